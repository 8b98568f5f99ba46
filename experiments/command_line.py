"""Flags from typed configs, and errors as one sentence with an exit code."""

import dataclasses
import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

# One thread on a CPU: these programs are made of kernels of microseconds, which a thread pool only
# delays. Must be set before JAX starts; what the user sets wins. XLA sizes its pool by NPROC.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("NPROC", "1")

from absl import app, flags, logging

from gembml import ALGORITHMS, distributed
from gembml.options import OptionError, allowed, has_effect
from gembml.training import (
    DivergedError,
    InputError,
    InterruptedRunError,
    LostClientError,
    TaskFailedError,
)

Config = TypeVar("Config")
_PREFIX = "config."
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def define_config_flags(config_class: type, only: tuple[str, ...] = ()) -> None:
    """A flag ``--config.NAME`` for each field of a dataclass; unset, the preset's value holds.

    ``only``: the names of the fields that have one, if not all.
    """
    define = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    for field in dataclasses.fields(config_class):
        if only and field.name not in only:
            continue
        text = f"{field.metadata['description']} ({allowed(field)}; unset: as in the preset)"
        holder = define[field.type](_PREFIX + field.name, None, text)
        # The program's own help lists its own flags only.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[holder.name])


def override(config: Config, algorithm: str) -> Config:
    """``config`` with the fields that ``--config.NAME`` flags name replaced.

    Raises:
      OptionError: if the result is out of range, or a given option has no effect with the
        algorithm or with the other choices.
    """
    given = {
        field.name: flags.FLAGS[_PREFIX + field.name].value
        for field in dataclasses.fields(config)  # type: ignore[arg-type]
        if _PREFIX + field.name in flags.FLAGS
        and flags.FLAGS[_PREFIX + field.name].value is not None
    }
    config = dataclasses.replace(config, **given)  # type: ignore[type-var]
    choices = dataclasses.asdict(config)  # type: ignore[call-overload]
    row = ALGORITHMS[algorithm]
    choices |= {"algorithm": algorithm, "posterior family": row.family}
    choices["query loop"] = "present" if row.query_loop else "absent"
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        needed = has_effect(field, choices) if field.name in given else None
        if needed and needed.startswith("query loop"):  # say who has one
            *names, last = (name for name, row in ALGORITHMS.items() if row.query_loop)
            needed = f"algorithm {', '.join(names)} or {last}, and here it is {algorithm}"
        if needed:
            raise OptionError(f"--config.{field.name} has an effect only with {needed}.")
    return config


def choose(flag: str, table: Mapping[str, Any], name: str) -> Any:
    """``table[name]``, or an error that lists the names."""
    if name not in table:
        raise InputError(f"--{flag} must be one of {', '.join(table)}, not {name!r}.")
    return table[name]


def in_range(flag: str, value: int, least: int, most: int = 2**31 - 1) -> int:
    """``value``, or an error that says what is allowed."""
    if not least <= value <= most:
        raise InputError(f"--{flag} must be at least {least} and at most {most}, not {value}.")
    return value


def whole_numbers(flag: str, texts: list[str], least: int) -> list[int]:
    """The numbers of a list flag, or an error that says what is allowed."""
    example = ",".join(str(least + i) for i in range(3))
    allowed = f"--{flag} must be different whole numbers of at least {least}, as in {example}"
    try:
        values = [int(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{allowed}, not {','.join(texts)}.") from error
    if not values or min(values) < least or len(set(values)) < len(values):
        raise InputError(f"{allowed}, not {','.join(texts) or 'nothing'}.")
    return values


def _fail(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith(_PREFIX):
            names = ", ".join(
                sorted(n.removeprefix(_PREFIX) for n in flags.FLAGS if n.startswith(_PREFIX))
            )
            sys.exit(_fail(f"--{error.flagname} is not an option: config. takes {names}.", 2))
        sys.exit(_fail(f"{str(error).rstrip('.')}; --help lists the flags.", 2))
    except flags.IllegalFlagValueError as error:
        found = re.match(r"flag --([\w.]+)=(.*?): ", str(error), re.DOTALL)
        kind = _KINDS.get(flags.FLAGS[found[1]].flag_type()) if found else None
        text = f"--{found[1]} takes {kind}, not {found[2]!r}." if found and kind else str(error)
        sys.exit(_fail(text, 2))
    except flags.Error as error:
        sys.exit(_fail(str(error), 2))
    return rest


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> tuple[int, str]:
    """Run ``main``: the exit code, and the sentence that was printed."""
    try:
        main(argv)
        distributed.team().exchange("end")  # none goes before all are done
    except (InputError, OptionError, TaskFailedError) as error:
        return _fail(error, 2), str(error)
    except (DivergedError, LostClientError, distributed.PeerLostError) as error:
        return _fail(error, 1), str(error)
    except InterruptedRunError as error:
        print(error, flush=True)
        return 130, str(error)
    except KeyboardInterrupt:
        sentence = "stopped; the same command goes on from the last checkpoint."
        return _fail(sentence, 130), sentence
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        return _fail(f"{error}; checkpoints written before are kept.", 1), str(error)
    return 0, ""


def run(main: Callable[[list[str]], None]) -> None:
    """Run a program: parse flags, and turn the expected errors into exit codes.

    2: the input is wrong, or what a named task's episodes gave is not finite. 1: training diverged
    otherwise, or a client or a process was lost. 130: Ctrl-C, after saving.
    """

    def guarded(argv: list[str]) -> int:
        logging.set_verbosity(logging.ERROR)  # orbax reports every file otherwise
        try:
            code, reason = _guarded(main, argv)
        except BaseException as error:
            if distributed.team().count == 1:
                raise
            traceback.print_exc()
            code, reason = 1, f"{type(error).__name__}, see its own output."
        if distributed.team().count > 1:
            distributed.team().leave(reason)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # JAX's own farewell waits for processes that may be gone
        return code

    app.run(guarded, flags_parser=_parse)


def no_arguments(argv: list[str]) -> None:
    """Refuse positional arguments, most often a flag without its dashes."""
    if argv[1:]:
        raise InputError(f"{argv[1]!r} is not a flag; flags are written --name=value.")


def given(flag: str, value: str | None, what: str = "the directory to write to") -> str:
    """``value``, or an error that says ``what`` it is if the flag was left out."""
    if not value:
        raise InputError(f"--{flag}=DIR is needed: {what}.")
    return value


def command(module: str) -> str:
    """The command line that runs this again."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])
