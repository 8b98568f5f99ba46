"""Where data are looked for, and the cache that prepared data go to."""

import contextlib
import os
import pathlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gembml.options import OptionError

_TEMPORARY = ".preparing-"
_ABANDONED_AFTER = 24 * 60 * 60  # seconds


def default_data_dir() -> pathlib.Path | None:
    """The folder that GEMBML_DATA_DIR names, or None."""
    value = os.environ.get("GEMBML_DATA_DIR")
    return pathlib.Path(value).expanduser() if value else None


def cache_dir() -> pathlib.Path:
    """The folder for prepared data: GEMBML_CACHE_DIR, by default ~/.cache/gembml."""
    value = os.environ.get("GEMBML_CACHE_DIR")
    return pathlib.Path(value or "~/.cache/gembml").expanduser()


def check_data_dir(data_dir: pathlib.Path, needed: str) -> None:
    """Refuse a data folder that is none; ``needed`` completes the sentence: what to do.

    Raises:
      OptionError: it does not exist, or is a file.
    """
    # os.path answers where pathlib raises: a name may be longer than the system allows.
    if not os.path.isdir(data_dir):
        problem = "is a file, not a folder" if os.path.exists(data_dir) else "does not exist"
        raise OptionError(f"The data folder {data_dir} {problem}: {needed}.")


def own_folder(data_dir: pathlib.Path, name: str) -> pathlib.Path:
    """``data_dir/name``, or ``data_dir`` itself if that is what it is called."""
    return data_dir if data_dir.name == name else data_dir / name


def curl(addresses: Sequence[str], folder: pathlib.Path) -> str:
    """The command, in backquotes, that downloads files into a folder."""
    return (
        f"`curl --fail -L --create-dirs --output-dir {shlex.quote(str(folder))} "
        f"--remote-name-all {' '.join(addresses)}`"
    )


@contextlib.contextmanager
def preparing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends.

    If the block raises, the temporary folder is removed; if the process is killed, it stays until
    a day has passed, and nothing takes it for ``target``. Where another process was faster, its
    result stays.

    Raises:
      OptionError: the cache cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target.parent))
    except OSError as error:
        raise _cannot_write(target.parent, error) from error
    try:
        yield temporary
        with contextlib.suppress(FileExistsError):
            _rename(temporary, target)
    except OSError as error:
        raise _cannot_write(target.parent, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_arrays(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of an .npz file of the cache.

    Raises:
      OptionError: the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except Exception as error:  # zip, zlib and npy each have their own
        raise OptionError(
            f"The prepared data in {path} cannot be read ({error}); delete {path.parent} and they "
            "are prepared again."
        ) from error


def _rename(temporary: pathlib.Path, target: pathlib.Path) -> None:
    try:
        temporary.rename(target)
    except OSError as error:
        # A folder that is not empty is not replaced; which error says so depends on the system.
        if target.is_dir():
            raise FileExistsError(str(target)) from error
        raise


def _remove_abandoned(folder: pathlib.Path) -> None:
    for path in folder.glob(f"{_TEMPORARY}*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
            shutil.rmtree(path, ignore_errors=True)


def _cannot_write(folder: pathlib.Path, error: OSError) -> OptionError:
    return OptionError(
        f"The cache folder {folder} cannot be written ({error.strerror or error}); name another "
        "one in GEMBML_CACHE_DIR."
    )
