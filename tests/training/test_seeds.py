"""Many seeds in one training loop: each as alone, resumed bit for bit, and one lost to none."""

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
from gembml.training import (
    InterruptedRunError,
    SeedRun,
    read_metrics,
    train,
    train_seeds,
)

STEPS = 20
SEEDS = (4, 5, 6)
OPTIONS: dict[str, Any] = {
    "num_meta_steps": STEPS,
    "progress": "error",
    "steps_per_dispatch": 5,
    "evaluate_every": 10,
    "checkpoint_every": 10,
}


def sample_tasks(key: jax.Array) -> jax.Array:
    return jax.random.normal(key, (4, 3))


def random_walk(bad_step: int = STEPS, bad_runs: Callable = lambda start: False) -> MetaLearner:
    """A drift whose gradient at ``bad_step`` is infinite where ``bad_runs`` of its start holds."""

    def init(key):
        start = jax.random.normal(key, (3,))
        return LearnerState(Delta(start), (start, jnp.int32(0)))

    def update(state, key, tasks):
        start, count = state.optimizer_state
        mean = 0.9 * state.prior.mean + tasks.mean(axis=0) + jax.random.normal(key, (3,))
        bad = (count == bad_step) & bad_runs(start)
        # The prior stays finite: what is lost must be remembered, not seen.
        norm = jnp.where(bad, jnp.inf, 1.0)
        metrics = Metrics(norm, jnp.isfinite(norm), jnp.where(count < 15, 0.5, 0.0))
        return LearnerState(Delta(mean), (start, count + 1)), metrics

    return MetaLearner(init, update, lambda *_: None, delta.sample)


def error_of(state: LearnerState) -> dict[str, float]:
    return {"error": float(jnp.sum(state.prior.mean**2))}


def run(
    directory: pathlib.Path,
    learner: MetaLearner | None = None,
    evaluate: Callable[[LearnerState], dict[str, float]] = error_of,
    **intervals: int,
) -> list[SeedRun]:
    return train_seeds(
        learner or random_walk(),
        sample_tasks,
        seeds=SEEDS,
        directory=directory,
        evaluate=evaluate,
        **OPTIONS | intervals,
    )


def rows(directory: pathlib.Path) -> list[dict[str, float]]:
    """The metrics without the clock's."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read_metrics(directory / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[SeedRun]:
    """An uninterrupted run of all seeds."""
    return run(tmp_path_factory.mktemp("whole"))


def test_each_seed_is_trained_and_logged_as_its_single_run(whole, tmp_path):
    for result in whole:
        single = tmp_path / str(result.seed)
        state, _ = train(
            random_walk(),
            sample_tasks,
            seed=result.seed,
            directory=single,
            evaluate=error_of,
            **OPTIONS,
        )
        # Sums in another order: float32 rounding.
        np.testing.assert_allclose(result.state.prior.mean, state.prior.mean, rtol=1e-5)
        for mine, alone in zip(rows(result.directory), rows(single), strict=True):
            assert mine == pytest.approx(alone, rel=1e-5)
    assert [result.seed for result in whole] == list(SEEDS)
    assert whole[0].directory.name == "seed_4"


def assert_same(runs: list[SeedRun], whole: list[SeedRun]) -> None:
    """Bit for bit."""
    for mine, theirs in zip(runs, whole, strict=True):
        np.testing.assert_array_equal(mine.state.prior.mean, theirs.state.prior.mean)
        assert rows(mine.directory) == rows(theirs.directory)


def test_a_stopped_and_resumed_program_equals_an_uninterrupted_one(whole, tmp_path, capsys):
    asked = []

    def interrupt(state: LearnerState) -> dict[str, float]:
        if not asked:
            asked.append(signal.raise_signal(signal.SIGINT))
        return error_of(state)

    with pytest.raises(InterruptedRunError, match="saved at meta-step 10"):
        run(tmp_path, evaluate=interrupt)
    assert_same(run(tmp_path), whole)
    assert "Resumed at meta-step 10 of 20." in capsys.readouterr().out


def killed(state: LearnerState) -> dict[str, float]:
    if state.optimizer_state[1] == STEPS:
        raise RuntimeError
    return error_of(state)


def test_a_killed_and_resumed_program_equals_an_uninterrupted_one(whole, tmp_path, capsys):
    with pytest.raises(RuntimeError):
        run(tmp_path, evaluate=killed)
    assert_same(run(tmp_path), whole)
    assert "Resumed at meta-step 10 of 20." in capsys.readouterr().out


def test_lost_tasks_before_a_checkpoint_between_two_reports_count_after_a_resume(tmp_path):
    intervals = {"evaluate_every": 20, "checkpoint_every": 15}
    with pytest.raises(RuntimeError):
        run(tmp_path, evaluate=killed, **intervals)
    for result in run(tmp_path, **intervals):
        assert [row["lost_tasks"] for row in rows(result.directory)] == [15 * 0.5 / 20]


def first_start_of(seed: int) -> float:
    return float(random_walk().init(jax.random.fold_in(jax.random.key(seed), 0)).prior.mean[0])


def test_a_seed_that_diverges_is_named_and_the_others_go_on(whole, tmp_path):
    lost = first_start_of(5)
    learner = random_walk(7, lambda start: jnp.abs(start[0] - lost) < 1e-4)
    with pytest.raises(RuntimeError):  # resumed, it is still known
        run(tmp_path, learner, killed)
    runs = run(tmp_path, learner)
    assert [result.diverged is None for result in runs] == [True, False, True]
    assert "not finite at meta-step 7, " in runs[1].diverged
    assert "jax.random.key(5)" in runs[1].diverged
    assert rows(runs[1].directory) == []
    assert_same([runs[0], runs[2]], [whole[0], whole[2]])


def test_when_all_diverge_training_ends_and_says_so_of_each(tmp_path):
    steps = []

    def learner_that_counts() -> MetaLearner:
        learner = random_walk(7, lambda start: jnp.isfinite(start[0]))

        def update(*args):
            jax.debug.callback(lambda count: steps.append(int(count)), args[0].optimizer_state[1])
            return learner.update(*args)

        return learner._replace(update=update)

    runs = run(tmp_path, learner_that_counts())
    for result in runs:
        assert result.diverged is not None
        assert "not finite at meta-step 7, " in result.diverged
        assert rows(result.directory) == []
    assert max(steps) < 10  # of 20: the dispatch in which it happens is the last
    assert not list(tmp_path.glob("checkpoints/*"))
