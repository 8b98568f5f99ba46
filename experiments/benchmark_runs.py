"""Eight seeds in one program against eight runs: whole runs, as a user starts them."""

import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from subprocess import DEVNULL
from typing import Any, NamedTuple

from experiments import style
from experiments.report_tables import table
from gembml.training import InputError

SEEDS = 8
_CORES = 2
_RUNS = (("maml", 20_000), ("gem_bml_plus", 2_000))  # (algorithm, meta-steps)


class Cost(NamedTuple):
    """Seconds of the clock, and of all cores together."""

    wall: float
    cpu: float


def _cost(commands: list[list[str]], at_once: int) -> Cost:
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def run(command: list[str]) -> int:
        return subprocess.run(command, stdout=DEVNULL, check=False).returncode

    began, used = time.perf_counter(), cpu()
    with ThreadPoolExecutor(at_once) as pool:
        codes = list(pool.map(run, commands))
    if any(codes):
        raise InputError("a run of the benchmark failed, for the reason above: mend that first.")
    return Cost(time.perf_counter() - began, cpu() - used)


def whole_runs(repeats: int, length: int) -> tuple[Any, str]:
    """From the command line to ``results.json``: one program on two devices, two runs at a time.

    Start, compilation and evaluation are in it; the fastest of ``repeats`` counts, of each.

    Raises:
      InputError: if a run fails; its own message is on the terminal.
    """
    del length  # runs have their preset's
    rows, cells = [], []
    for algorithm, meta_steps in _RUNS:
        program = [sys.executable, "-m", "experiments.sinusoid", f"--algorithm={algorithm}"]
        program += [f"--meta_steps={meta_steps}", "--setting=default"]
        together = [f"--seeds={SEEDS}", f"--cpu_devices={_CORES}", f"--devices={_CORES}"]
        apart, joined = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as directory:
                eight = [
                    [*program, f"--seed={seed}", f"--workdir={directory}/{seed}"]
                    for seed in range(SEEDS)
                ]
                apart.append(_cost(eight, _CORES))
                joined.append(_cost([[*program, *together, f"--workdir={directory}/all"]], 1))
        runs, one = min(apart), min(joined)
        rows.append(
            {"algorithm": algorithm, "meta_steps": meta_steps, "seeds": SEEDS, "cores": _CORES}
            | {"runs_seconds": runs.wall, "one_program_seconds": one.wall}
            | {"runs_cpu_seconds": runs.cpu, "one_program_cpu_seconds": one.cpu}
        )
        cells.append([style.label(algorithm), f"{meta_steps:,}"])
        cells[-1] += [f"{runs.wall:.0f}", f"{one.wall:.0f}", f"{one.wall / runs.wall:.2f}"]
        cells[-1] += [f"{one.cpu / runs.cpu:.2f}"]
    header = ["algorithm", "meta-steps", f"{SEEDS} runs, {_CORES} at a time, s"]
    header += ["one program, s", "ratio (target < 1)", "ratio of CPU seconds"]
    return rows, f"### Seeds: whole runs on {_CORES} cores\n\n{table(header, cells)}"
