"""Runs a program, `python -m experiments.sinusoid`, many times for the price of one start.

Importing JAX takes seconds, so a server process imports the program once and forks a child for each
command line. The child is a process of its own, which can be killed; JAX starts only inside it.
"""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

ROOT = pathlib.Path(__file__).parents[1]
# That nothing hangs, with room for a machine that stands still for minutes.
_TIMEOUT_SECONDS = 600
_NOTHING: Mapping[str, str] = MappingProxyType({})
# Each program, and its config if it has --config flags.
_CONFIGS = {
    "sinusoid": "SinusoidConfig",
    "few_shot": "FewShotConfig",
    "navigation": "NavigationConfig",
    "half_cheetah": "HalfCheetahConfig",
    "tradeoffs": "FewShotConfig",
    "exploration_study": None,
    "spread_study": None,
}


class Finished(NamedTuple):
    """How a program ended."""

    code: int
    """Exit code; minus the signal's number if a signal ended it."""
    stdout: str
    stderr: str


class Running:
    """A program that was started."""

    def __init__(self, server: "Programs", pid: int, out: pathlib.Path, err: pathlib.Path) -> None:
        self._server, self._pid, self._out, self._err = server, pid, out, err
        self._code: int | None = None

    def send(self, signal_number: int) -> None:
        os.kill(self._pid, signal_number)

    def wait(self) -> Finished:
        """Wait until the program ends."""
        self._poll(self._ended)
        assert self._code is not None
        return Finished(self._code, self._out.read_text(), self._err.read_text())

    def wait_for(self, path: pathlib.Path) -> None:
        """Wait until the program, which goes on, has made a file or folder."""
        self._poll(lambda: path.exists() or self._ended(), every=0.005)
        assert path.exists(), f"the program ended without {path}: {self._err.read_text()}"

    def _ended(self) -> bool:
        if self._code is None:
            self._code = self._server.ask({"pid": self._pid})["code"]
        return self._code is not None

    def _poll(self, done: Callable[[], bool], every: float = 0.02) -> None:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not done():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"the program took too long: {self._err.read_text()}")
            time.sleep(every)


class Programs:
    """The server, seen from the tests."""

    def __init__(self, directory: pathlib.Path, name: str = "sinusoid") -> None:
        self._directory, self._name, self._count = directory, name, 0

    def __enter__(self) -> "Programs":
        environment = os.environ | {
            # The runs of these tests share most of their compiled code.
            "JAX_COMPILATION_CACHE_DIR": str(self._directory / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.programs", self._name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(timeout=60)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments: str, environment: Mapping[str, str] = _NOTHING) -> Running:
        """Start the program with these command line arguments, and variables beside our own."""
        self._count += 1
        out, err = (self._directory / f"{self._count}.{name}" for name in ("out", "err"))
        request = {
            "argv": [f"{self._name}.py", *arguments],
            "environment": dict(environment),
            "out": str(out),
            "err": str(err),
        }
        return Running(self, self.ask(request)["pid"], out, err)

    def run(self, *arguments: str) -> Finished:
        """Run the program to its end."""
        return self.start(*arguments).wait()


def _child(main: Callable[[list[str]], None], request: dict[str, Any]) -> NoReturn:
    from experiments import command_line

    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT, 0o644), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = request["argv"]
    os.environ.update(request["environment"])
    code: Any = 1
    try:
        command_line.run(main)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(name: str) -> None:
    from experiments import command_line

    program = importlib.import_module(f"experiments.{name}")
    if config := _CONFIGS[name]:
        command_line.define_config_flags(getattr(program, config))
    running = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            pid = os.fork()
            if pid == 0:
                _child(program.main, request)
            running.add(pid)
            reply: dict[str, Any] = {"pid": pid}
        else:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            running.discard(pid)
            reply = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        print(json.dumps(reply), flush=True)
    for pid in running:  # of tests that failed half-way
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _serve(sys.argv[1])
