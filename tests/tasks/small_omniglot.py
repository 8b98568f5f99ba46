"""Omniglot from small archives of the real layout."""

import pathlib
import warnings
from typing import Any

from gembml.tasks import omniglot
from gembml.tasks.images import Splits

BACKGROUND, EVALUATION = omniglot.LABELS


def load(data_dir: pathlib.Path | None, **options: Any) -> Splits:
    """Without the warning that these are not upstream's archives."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Omniglot: the SHA-256")
        return omniglot.load(data_dir, **options)


def contents(folder: pathlib.Path) -> list[str]:
    """The files and folders in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
