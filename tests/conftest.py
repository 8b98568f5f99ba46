"""What all tests share: reproducible property tests, float64, and a server for whole programs."""

import os
import pathlib
from collections.abc import Iterator

import jaxlib.version

# Most of the time goes into compiling programs that run for milliseconds: LLVM's optimizations cost
# twice what they save, and XLA's newer emitters three times. Before JAX starts; the programs that
# tests start inherit it, so the flag that they set themselves is here too.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if jaxlib.version.__version_info__ >= (0, 10):  # before, XLA aborts at a flag it does not know
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_multi_thread_eigen=false --xla_cpu_use_fusion_emitters=false "
        "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
    )

# isort: split
import hypothesis
import jax
import pytest

from tests.programs import Programs

# Compiling takes longer than hypothesis's deadline; the examples are the same at every run.
hypothesis.settings.register_profile("gembml", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("gembml")


@pytest.fixture(scope="module")
def float64() -> Iterator[None]:
    """JAX computes in float64 for this module."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs `python -m experiments.sinusoid` quickly, many times."""
    directory: pathlib.Path = tmp_path_factory.mktemp("programs")
    with Programs(directory) as server:
        yield server
