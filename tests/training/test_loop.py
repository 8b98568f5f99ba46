"""The training loop: resuming, Ctrl-C, damage and divergence."""

import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import Delta, LearnerState, MetaLearner, delta
from gembml.base import Metrics
from gembml.training import DivergedError, InterruptedRunError, lost_tasks, read_metrics, train

# Orbax gives up on a damaged checkpoint while its other reads are under way, and forgets them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("forgotten_reads"),
]
STEPS = 40


def random_walk(bad_step: int = -1, bad: str = "gradient") -> MetaLearner:
    """A learner that drifts at random; at ``bad_step`` its gradient or its prior is NaN."""

    def init(key):
        return LearnerState(Delta(jax.random.normal(key, (3,))), jnp.int32(0))

    def update(state, key, tasks):
        count = state.optimizer_state
        poison = jnp.where(count == bad_step, jnp.nan, 0.0)
        mean = 0.9 * state.prior.mean + tasks.mean(axis=0) + jax.random.normal(key, (3,))
        if bad == "prior":
            mean = mean + poison
        norm = 1.0 + (poison if bad == "gradient" else 0.0)
        return LearnerState(Delta(mean), count + 1), Metrics(
            jnp.asarray(norm), jnp.isfinite(norm + mean.sum()), jnp.where(count < 15, 0.5, 0.0)
        )

    return MetaLearner(init, update, lambda *_: None, delta.sample)


def run(
    directory: pathlib.Path,
    learner: MetaLearner | None = None,
    on_evaluation: Callable[[int], None] = lambda step: None,
    **options: Any,
) -> LearnerState:
    """40 steps, 5 per dispatch, a validation and a checkpoint every 10."""

    def evaluate(state: LearnerState) -> dict[str, float]:
        on_evaluation(int(state.optimizer_state))
        return {"error": float(jnp.sum(state.prior.mean**2))}

    options = {"evaluate_every": 10, "checkpoint_every": 10, "seed": 7} | options
    state, seconds = train(
        learner or random_walk(),
        lambda key: jax.random.normal(key, (4, 3)),
        num_meta_steps=STEPS,
        directory=directory,
        evaluate=evaluate,
        progress="error",
        steps_per_dispatch=5,
        **options,
    )
    assert seconds > 0
    return state


def rows(directory: pathlib.Path) -> list[dict[str, float]]:
    """The metrics without the clock's."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read_metrics(directory / "metrics.jsonl")
    ]


def checkpointed(directory: pathlib.Path) -> dict[int, str]:
    """Each checkpoint's step and checksum."""
    return {
        int(path.parent.name): json.loads(path.read_text())["sha256"]
        for path in (directory / "checkpoints").glob("*/about.json")
        if path.parent.name.isdigit()  # and not moved aside
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, LearnerState]:
    """An uninterrupted run."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, run(directory)


def assert_equals_whole(directory: pathlib.Path, state: LearnerState, whole) -> None:
    """Bit for bit: the state, the metrics, the checkpoints."""
    np.testing.assert_array_equal(state.prior.mean, whole[1].prior.mean)
    assert state.optimizer_state == STEPS
    assert rows(directory) == rows(whole[0])
    assert checkpointed(directory) == checkpointed(whole[0])


def test_a_run_evaluates_and_saves_at_its_intervals(whole):
    directory, state = whole
    assert state.optimizer_state == STEPS
    assert [row["step"] for row in rows(directory)] == [10, 20, 30, 40]
    assert sorted(checkpointed(directory)) == [20, 30, 40]  # the newest three


def test_another_seed_gives_another_run(whole, tmp_path):
    assert np.all(run(tmp_path, seed=8).prior.mean != whole[1].prior.mean)


def test_a_finished_run_is_not_run_again(whole):
    evaluated = []
    state = run(whole[0], on_evaluation=evaluated.append)
    assert evaluated == []
    assert_equals_whole(whole[0], state, whole)


class KilledError(Exception):
    """Stands for whatever ends a process between two checkpoints."""


@pytest.mark.parametrize("at", [10, 30])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(whole, tmp_path, at, capsys):
    def die(step: int) -> None:
        if step == at:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, on_evaluation=die)
    assert_equals_whole(tmp_path, run(tmp_path), whole)
    printed = capsys.readouterr().out
    assert ("Resumed at meta-step 20 of 40." in printed) == (at == 30)


def test_a_report_counts_lost_tasks_before_a_checkpoint_between_two_reports(tmp_path):
    def die(step: int) -> None:
        if step == 20:
            raise KilledError

    intervals = {"evaluate_every": 20, "checkpoint_every": 15}
    with pytest.raises(KilledError):
        run(tmp_path, on_evaluation=die, **intervals)
    run(tmp_path, **intervals)
    assert [row["lost_tasks"] for row in rows(tmp_path)] == [15 * 0.5 / 20, 0.0]


def test_ctrl_c_saves_where_it_stops_and_the_run_goes_on_from_there(whole, tmp_path, capsys):
    def interrupt(step: int) -> None:
        if step == 20:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError, match="saved at meta-step 20"):
        # Checkpoints at 30 alone: that of step 20 is Ctrl-C's.
        run(tmp_path, on_evaluation=interrupt, checkpoint_every=30)
    assert signal.getsignal(signal.SIGINT) == before
    assert sorted(checkpointed(tmp_path)) == [20]
    state = run(tmp_path)
    assert "Resumed at meta-step 20 of 40." in capsys.readouterr().out
    assert_equals_whole(tmp_path, state, whole)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(whole, tmp_path, capsys):
    def die(step: int) -> None:
        if step == 40:
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, on_evaluation=die)
    for path in (tmp_path / "checkpoints" / "30" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    state = run(tmp_path)
    printed = capsys.readouterr().out
    assert "The checkpoint of step 30 is damaged" in printed
    assert "Resumed at meta-step 20 of 40." in printed
    assert_equals_whole(tmp_path, state, whole)


@pytest.mark.parametrize("bad", ["gradient", "prior"])
def test_divergence_stops_names_step_and_seed_and_keeps_the_checkpoints(tmp_path, bad):
    for _ in range(2):  # the same again when resumed
        with pytest.raises(DivergedError) as error:
            run(tmp_path, random_walk(bad_step=23, bad=bad))
        message = str(error.value)
        assert "not finite at meta-step 23," in message
        assert "step_keys(jax.random.fold_in(jax.random.key(7), 1), 23)[0]" in message
        assert f"The last good checkpoint is kept: step 20 in {tmp_path}." in message
        assert sorted(checkpointed(tmp_path)) == [10, 20]
        assert [row["step"] for row in rows(tmp_path)] == [10, 20]


def test_divergence_before_the_first_checkpoint_says_so(tmp_path):
    with pytest.raises(DivergedError, match="no checkpoint yet"):
        run(tmp_path, random_walk(bad_step=3))
    assert checkpointed(tmp_path) == {}


def test_lost_tasks_are_weighed_by_the_meta_steps_of_their_rows():
    assert lost_tasks([]) == 0.0
    found = lost_tasks([{"step": 10, "lost_tasks": 0.0}, {"step": 12, "lost_tasks": 0.9}])
    assert found == pytest.approx(0.9 * 2 / 12)
