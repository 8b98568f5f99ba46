"""A run's directory: what it holds, and that it belongs to this run."""

import fcntl
import json
import os
import pathlib
from typing import Any

from gembml import distributed
from gembml.training.errors import InputError

# The operating system gives the locks back when the process ends, however it ends.
_LOCKED: dict[pathlib.Path, int] = {}


def write_json(path: pathlib.Path, content: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.rename(path)


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _differences(first: dict[str, Any], second: dict[str, Any], a: str, b: str) -> str:
    """The fields with two values, each called by its place."""
    old, new = _flatten(first), _flatten(second)
    return ", ".join(
        f"{name} ({a} {old.get(name, 'absent')}, {b} {new.get(name, 'absent')})"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def _lock(directory: pathlib.Path) -> None:
    """Keep other processes out of the directory for as long as this one lives."""
    path = directory.resolve()
    if path in _LOCKED:
        return
    file = os.open(path / ".lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise InputError(
            f"--workdir={directory} is in use by another process: wait for it or name another."
        ) from error
    _LOCKED[path] = file


def open_workdir(path: str, run: dict[str, Any]) -> pathlib.Path:
    """Make the directory, or check that it holds the same run.

    With several processes all call this, and process 0 alone touches the directory.

    Args:
      path: the directory.
      run: everything that defines the run, JSON-serialisable; kept in ``run.json``.

    Raises:
      InputError: if it cannot be written, is in use, holds a run with other values (the fields
        are named), or if the processes were started with different ones.
    """
    directory = pathlib.Path(path)
    team = distributed.team()
    runs = [json.loads(text) for text in team.exchange(json.dumps(run))]
    for other, theirs in enumerate(runs):
        if theirs != runs[0]:
            raise InputError(
                f"All processes of a run must be given the same options, and process 0 "
                f"differs from process {other} in {_differences(theirs, runs[0], 'there', 'here')}."
            )
    if not team.first:
        return directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--workdir={path} cannot be made ({error.strerror}): name a directory that you may "
            "write to."
        ) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(
            f"--workdir={path} cannot be written: name a directory that you may write to."
        )
    _lock(directory)
    record = directory / "run.json"
    run = json.loads(json.dumps(run))
    if not record.exists():
        write_json(record, run)
        return directory
    try:
        before = json.loads(record.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{record} is not valid JSON: name another --workdir.") from error
    if not isinstance(before, dict):
        raise InputError(f"{record} is not the record of a run: name another --workdir.")
    if before != run:
        raise InputError(
            f"--workdir={path} holds another run, which differs in "
            f"{_differences(before, run, 'there', 'here')}: name another directory or the same "
            "options."
        )
    return directory
