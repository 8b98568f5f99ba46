"""Checkpoints: what is kept, what is read back, and what damage does."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Gaussian, LearnerState, gaussian
from gembml.training import InputError
from gembml.training.checkpoints import Checkpoints

# Orbax gives up on a damaged checkpoint while its other reads are under way, and forgets them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("forgotten_reads"),
]


def state_of(seed: int) -> LearnerState:
    """A state with all that a real one has: nested weights, Adam's moments and its counter."""
    weights = {"w": jax.random.normal(jax.random.key(seed), (30, 40)), "b": jnp.zeros(3)}
    prior = gaussian.around(weights, -3.5)
    return LearnerState(prior, optax.adam(1e-3).init(prior))


def assert_same(left: LearnerState, right: LearnerState) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(*map(jax.tree.leaves, (left, right)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def saved(tmp_path: pathlib.Path) -> Checkpoints:
    """Three checkpoints: the state of step n is ``state_of(n)``."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        checkpoints.save(step, state_of(step), seconds=10.0 * step)
    return checkpoints


def test_the_newest_checkpoint_reads_back_as_it_was(saved):
    restored, complaints = saved.restore(state_of(0))
    assert restored is not None
    assert (restored.step, restored.seconds, complaints) == (3, 30.0, [])
    assert isinstance(restored.state.prior, Gaussian)
    assert_same(restored.state, state_of(3))


def test_the_newest_three_are_kept(saved):
    saved.save(10, state_of(10), 0.0)
    saved.save(9, state_of(9), 0.0)
    assert saved.steps() == [3, 9, 10]


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "new").restore(state_of(0)) == (None, [])


def files_of(checkpoints: pathlib.Path, step: int) -> list[pathlib.Path]:
    return [path for path in (checkpoints / str(step) / "state").rglob("*") if path.is_file()]


def flip_bytes(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 4, len(content), max(1, len(content) // 4)):
        content[at] ^= 0xFF
    path.write_bytes(content)


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


damages = pytest.mark.parametrize(
    "damage", [flip_bytes, truncate, pathlib.Path.unlink], ids=["flipped", "truncated", "deleted"]
)


@damages
@pytest.mark.parametrize("which", ["largest", "manifest", "about"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    saved, tmp_path, damage: Callable[[pathlib.Path], None], which
):
    directory = tmp_path / "checkpoints"
    damage(
        {
            "largest": max(files_of(directory, 3), key=lambda path: path.stat().st_size),
            "manifest": directory / "3" / "state" / "manifest.ocdbt",
            "about": directory / "3" / "about.json",
        }[which]
    )
    restored, complaints = saved.restore(state_of(0))
    assert restored is not None
    assert restored.step == 2
    assert_same(restored.state, state_of(2))
    assert len(complaints) == 1
    assert "checkpoint of step 3 is " in complaints[0]
    assert "\n" not in complaints[0]


@damages
def test_two_damaged_checkpoints_leave_the_third(saved, tmp_path, damage):
    for step in (2, 3):
        damage(max(files_of(tmp_path / "checkpoints", step), key=lambda path: path.stat().st_size))
    restored, complaints = saved.restore(state_of(0))
    assert restored is not None
    assert restored.step == 1
    assert len(complaints) == 2


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(saved, tmp_path):
    flip_bytes(max(files_of(tmp_path / "checkpoints", 3), key=lambda path: path.stat().st_size))
    saved.save(3, state_of(33), 0.0)
    restored, complaints = saved.restore(state_of(0))
    assert restored is not None
    assert_same(restored.state, state_of(33))
    assert complaints == []


def test_an_incomplete_checkpoint_is_reported_and_ignored(saved, tmp_path):
    (tmp_path / "checkpoints" / "4" / "state").mkdir(parents=True)
    restored, complaints = saved.restore(state_of(0))
    assert restored is not None
    assert restored.step == 3
    assert complaints == ["The checkpoint of step 4 is incomplete: ignored."]
    assert saved.steps() == [1, 2, 3]


def test_a_directory_that_orbax_left_half_written_is_ignored(saved, tmp_path):
    (tmp_path / "checkpoints" / "4" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    restored, _ = saved.restore(state_of(0))
    assert restored is not None
    assert restored.step == 3
    saved.save(4, state_of(4), 0.0)
    assert saved.steps() == [2, 3, 4]


def test_checkpoints_of_another_network_are_refused_and_stay(saved, tmp_path):
    whole = (tmp_path / "checkpoints" / "3" / "about.json").read_text()
    narrow = gaussian.around({"w": jnp.zeros((30, 4)), "b": jnp.zeros(3)}, 0.0)
    for other in (
        LearnerState(narrow, optax.adam(1e-3).init(narrow)),
        LearnerState(state_of(0).prior, optax.EmptyState()),
    ):
        with pytest.raises(InputError, match=r"step 1 in .* was written by code with other arrays"):
            saved.restore(other)
        truncate(saved_about := tmp_path / "checkpoints" / "3" / "about.json")
        with pytest.raises(InputError, match=r"step 1 in .* was written by code with other arrays"):
            saved.restore(other)
        saved_about.write_text(whole)
    assert saved.steps() == [1, 2, 3]
    restored, _ = saved.restore(state_of(0))
    assert restored is not None
    assert_same(restored.state, state_of(3))


def test_reading_one_checkpoint_leaves_what_another_process_is_writing(saved, tmp_path):
    unfinished = tmp_path / "checkpoints" / "4" / "state"
    unfinished.mkdir(parents=True)
    assert_same(saved.read(2, state_of(0)).state, state_of(2))
    assert unfinished.exists()


def test_what_is_carried_is_read_back(saved):
    saved.save(4, state_of(4), 0.0, carried={"lost": [0.25]})
    assert saved.read(4, state_of(0)).carried == {"lost": [0.25]}
