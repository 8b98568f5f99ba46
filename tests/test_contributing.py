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
from gembml.options import OptionError
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
    assert len(BLOCKS) == 12
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


def test_the_printed_recorded_tasks_train(printed):
    assert bool(jnp.all(printed["recorded_metrics"].finite))
    curves, used = printed["curves"], 8
    task = printed["sample_draw"](printed["jax"].random.key(0), curves, used)
    problem = printed["recorded_problem"]
    support, query = (draw(None, task, None) for draw in (problem.support, problem.query))
    assert (len(support.x), len(query.y)) == (5, used - 5)
    assert len({*np.ravel(support.x).tolist(), *np.ravel(query.x).tolist()}) == used
    place = task.points[0]
    np.testing.assert_allclose(support.y[0], curves.y[task.curve, place], rtol=1e-6)


def test_the_printed_loader_divides_the_classes(printed, tmp_path):
    for digit in range(5):
        np.save(tmp_path / f"{digit}.npy", np.full((3, 4, 4, 1), digit, np.uint8))
    splits = printed["load"](tmp_path)
    assert [len(splits.names[part]) for part in ("train", "validation", "test")] == [2, 0, 3]
    first = int(splits.names["test"][0])
    assert (splits.test.images.shape, splits.test.images[0, 0, 0, 0, 0]) == ((3, 3, 4, 4, 1), first)
    (tmp_path / "0.npy").unlink()
    (tmp_path / "1.npy").unlink()
    with pytest.raises(OptionError, match="at least 4 classes"):
        printed["load"](tmp_path)


def test_the_printed_environment_trains(printed):
    assert bool(jnp.all(printed["rl_metrics"].finite))
    environment = printed["cart"](10)
    transition = environment.step(jnp.float32(0.5), jnp.zeros(2), jnp.ones(1))
    np.testing.assert_allclose(transition.reward, -0.4, rtol=1e-6)


@pytest.mark.parametrize("path", re.findall(r"`((?:gembml|experiments|tests)/[\w/]*\.?\w*)`", TEXT))
def test_files_that_are_named_exist(path):
    new = {
        *("gembml/algorithms/first_order_pmaml.py", "gembml/tasks/lines.py"),
        *("gembml/tasks/digits.py", "gembml/tasks/cart.py", "gembml/tasks/recorded.py"),
    }
    assert (path in new) != (pathlib.Path(__file__).parents[1] / path).exists()
