"""What the tests of damaged checkpoints leave behind is collected with them."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def forgotten_reads() -> Iterator[None]:
    """Whatever orbax forgot is complained about within this module, which ignores it."""
    yield
    gc.collect()
