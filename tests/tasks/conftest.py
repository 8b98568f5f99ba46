"""Caches of the image data sets, and Omniglot's small archives."""

import pathlib

import pytest

from gembml.tasks import omniglot_tfds
from tests.small_images import omniglot_archives
from tests.tasks.small_omniglot import load


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty cache, and no network."""
    monkeypatch.setenv("GEMBML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(omniglot_tfds, "URL", "http://127.0.0.1:9/")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Small archives of Omniglot, and nothing else."""
    return omniglot_archives(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory, data_dir: pathlib.Path) -> pathlib.Path:
    """A cache in which the small archives are prepared."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMBML_CACHE_DIR", str(cache))
        load(data_dir)
    return cache


@pytest.fixture
def prepared(shared_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The cache is the one in which they are prepared."""
    monkeypatch.setenv("GEMBML_CACHE_DIR", str(shared_cache))
    return shared_cache
