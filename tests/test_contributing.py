"""The worked examples of CONTRIBUTING.md run as they are printed."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.sinusoid_evaluation import make_experiment
from experiments.sinusoid_presets import PRESETS, preset
from gembml import ALGORITHMS
from tests import test_algorithms, toy

NAME = "first_order_pmaml"
TEXT = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def printed() -> Iterator[dict[str, Any]]:
    """What all Python blocks define, run in their order; the row is in the tables meanwhile."""
    assert NAME not in ALGORITHMS, "choose an example that is not in the table"
    namespace: dict[str, Any] = {"__name__": "contributing"}
    try:
        for block in BLOCKS:
            exec(compile(block, "CONTRIBUTING.md", "exec"), namespace)
        yield namespace
    finally:
        for table in (ALGORITHMS, PRESETS["tuned"], toy.CONFIGS):
            table.pop(NAME, None)


def test_the_example_is_a_short_file_a_row_a_preset_a_config_and_a_test():
    assert len(BLOCKS) == 7
    assert len(BLOCKS[0].splitlines()) <= 80


@pytest.mark.usefixtures("printed")
def test_the_new_row_learns_the_toy_problem_as_every_row_must():
    test_algorithms.test_meta_training_improves_held_out_tasks_is_finite_and_traces_once(NAME)


@pytest.mark.usefixtures("printed")
def test_the_new_row_s_preset_builds():
    make_experiment(NAME, "default", preset("tuned", NAME, "default"), 10)


def test_the_printed_test_passes(printed):
    tests = [value for name, value in printed.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()


def test_the_printed_task_distribution_trains(printed):
    assert printed["metrics"].finite.shape == (20,)
    assert bool(jnp.all(printed["metrics"].finite))
    task = printed["sample_line"](printed["jax"].random.key(0), 5, 3)
    assert (task.support.x.shape, task.query.y.shape) == ((5, 1), (3, 1))
    slopes = np.diff(task.support.y[:, 0]) / np.diff(task.support.x[:, 0])
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-3)


@pytest.mark.parametrize("path", re.findall(r"`((?:gembml|experiments|tests)/[\w/]*\.?\w*)`", TEXT))
def test_files_that_are_named_exist(path):
    new = ("gembml/algorithms/first_order_pmaml.py", "gembml/tasks/lines.py")
    assert (path in new) != (pathlib.Path(__file__).parents[1] / path).exists()
