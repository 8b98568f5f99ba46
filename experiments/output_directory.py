"""The directory that a program writes into."""

import os
import pathlib

from gembml.training import InputError


def make_directory(flag: str, path: str) -> pathlib.Path:
    """Make the directory that ``--flag`` names, unless it is there.

    Raises:
      InputError: if it cannot be made or written.

    """
    allowed = "name a directory that you may write to."
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--{flag}={path} cannot be made ({error.strerror}): {allowed}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"--{flag}={path} cannot be written: {allowed}")
    return pathlib.Path(path)
