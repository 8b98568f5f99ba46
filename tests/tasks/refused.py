"""How loaders of images refuse."""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from gembml.options import OptionError


def refused(
    load: Callable[..., Any], folder: pathlib.Path | None, cache: pathlib.Path, **options: Any
) -> str:
    """The one sentence with which ``load`` refuses a folder; nothing is left in the cache."""
    with pytest.raises(OptionError) as caught:
        load(folder, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert not list(cache.glob("*/*"))
    return sentence
