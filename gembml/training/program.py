"""What the training loop drives: one run, or many at once, behind the same few methods."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gembml.base import Key, LearnerState, MetaLearner, Metrics, Task
from gembml.learner import meta_steps, step_keys
from gembml.runs import init_key, many_runs, steps_key
from gembml.training.errors import DivergedError, TaskFailedError
from gembml.training.log import MetricsLog

Evaluate = Callable[[LearnerState], dict[str, float]]


class Program(Protocol):
    """A computation of many meta-steps with a state, and what is told about it."""

    def init(self) -> Any:
        """The state at the start."""
        ...

    def steps(self, length: int) -> Callable[[Any, jax.Array], tuple[Any, Metrics]]:
        """``(state, first_step)`` -> the state ``length`` meta-steps on, and their metrics."""
        ...

    def check(self, first_step: int, state: Any, metrics: Metrics) -> None:
        """Raise :class:`DivergedError` if the one run there is has diverged."""
        ...

    def over(self, state: Any) -> bool:
        """Whether no run is left to go on with."""
        ...

    def open_logs(self, directory: pathlib.Path, step: int, carried: Any) -> None:
        """Make ready to report; rows beyond ``step`` are dropped."""
        ...

    def carried(self) -> Any:
        """What a checkpoint keeps for the next report, JSON; ``open_logs`` is given it again."""
        ...

    def report(self, step: int, state: Any, metrics: Metrics, seconds: float) -> str:
        """Evaluate and log; returns what the progress bar shows."""
        ...

    def close_logs(self) -> None:
        """Flush what was reported."""
        ...


def _failed(metrics: Metrics) -> jax.Array:
    """``[..., length]``: meta-steps that are not finite, or all of them if each lost every task.

    One that loses every task leaves the prior as it is, but for what its optimizer still carries.
    """
    lost_all = jnp.all(metrics.lost_tasks >= 1.0, axis=-1, keepdims=True)
    return jnp.logical_not(metrics.finite) | lost_all


def _diverged(seed: int, step: int, task: str = "") -> str:
    return (
        "The meta-gradient (under a cap, that of every task) or the prior is not finite at "
        f"meta-step {step:,}{task}, whose task batch is drawn with gembml.learner.step_keys("
        f"jax.random.fold_in(jax.random.key({seed}), 1), {step})[0]."
    )


class OneRun:
    """The run of one seed, reported into the run's directory."""

    def __init__(
        self,
        learner: MetaLearner,
        sample_tasks: Callable[[Key], Task],
        seed: int,
        evaluate: Evaluate,
        progress: str,
        work: tuple[str, float] | None = None,
    ) -> None:
        """``work``: a unit, and how much of it a meta-step is."""
        self._learner, self._sample_tasks, self._seed = learner, sample_tasks, seed
        self._evaluate, self._progress, self._work = evaluate, progress, work
        self._root = jax.random.key(seed)
        self._reported = (0, 0.0)  # meta-steps, seconds
        self._lost_tasks: list[float] = []

    def init(self) -> LearnerState:
        """The learner's own state."""
        return jax.jit(self._learner.init)(init_key(self._root))

    def steps(self, length: int) -> Callable:
        """The learner's own meta-steps."""
        return meta_steps(self._learner, self._sample_tasks, steps_key(self._root), length)

    def check(self, first_step: int, state: LearnerState, metrics: Metrics) -> None:  # noqa: ARG002
        """Raise at the first meta-step that is not finite; count the tasks that were lost."""
        failed = np.asarray(_failed(metrics))
        if failed.any():
            index = int(np.argmax(failed))
            step, task = first_step + index, int(np.ravel(metrics.failed_task)[index])
            if task >= 0:
                named = f", first in task {task}, {self._task(step, task)}"
                raise TaskFailedError(_diverged(self._seed, step, named))
            raise DivergedError(_diverged(self._seed, step))
        self._lost_tasks += np.asarray(metrics.lost_tasks, np.float64).tolist()

    def _task(self, step: int, number: int) -> str:
        """What meta-step ``step`` drew as this task."""
        tasks = self._sample_tasks(step_keys(steps_key(self._root), step)[0])
        return ", ".join(str(np.asarray(leaf[number])) for leaf in jax.tree.leaves(tasks))

    def over(self, state: LearnerState) -> bool:  # noqa: ARG002
        """Never: a run that diverges raises."""
        return False

    def open_logs(self, directory: pathlib.Path, step: int, carried: Any) -> None:
        """Log into the run's directory."""
        self._log = MetricsLog(directory, step)
        if carried is not None:
            self._reported, self._lost_tasks = tuple(carried["reported"]), carried["lost_tasks"]

    def carried(self) -> dict[str, Any]:
        """When the last report was, and the tasks that were lost since."""
        return {"reported": self._reported, "lost_tasks": self._lost_tasks}

    def report(self, step: int, state: LearnerState, metrics: Metrics, seconds: float) -> str:
        """One evaluation, one row."""
        measures = self._evaluate(state)
        norm = float(np.mean(metrics.meta_gradient_norm))
        shown = f"{self._progress} {measures[self._progress]:.4g}"
        if self._work is not None:
            unit, amount = self._work
            since, before = self._reported
            rate = amount * (step - since) / (seconds - before)
            measures = measures | {f"{unit}_per_second": rate}
            shown += f", {rate:,.0f} {unit}/s"
        self._reported = (step, seconds)
        lost = float(np.mean(self._lost_tasks))  # since the last report
        self._lost_tasks = []
        row = {**measures, "meta_gradient_norm": norm, "lost_tasks": lost, "seconds": seconds}
        self._log.write(step, row)
        return shown

    def close_logs(self) -> None:
        """Flush the log."""
        self._log.close()


class ManyState(NamedTuple):
    """The state of many runs; every leaf has a leading axis ``[runs]``."""

    runs: LearnerState
    diverged: jax.Array
    """The meta-step at which a run stopped being finite, or -1."""

    def of(self, run: int) -> LearnerState:
        """The state of one run, as NumPy arrays: slices on the device would each be compiled."""
        return jax.tree.map(lambda a: np.asarray(a)[run], self.runs)


class ManySeeds:
    """The runs of many seeds in one program, each reported into ``seed_SEED`` below the directory.

    A run that diverges is reported no more, and the others go on.
    """

    def __init__(
        self,
        learner: MetaLearner,
        sample_tasks: Callable[[Key], Task],
        seeds: tuple[int, ...],
        evaluate: Evaluate,
        progress: str,
        mesh: Mesh | None = None,
    ) -> None:
        """``mesh``: devices among which the runs are divided, if any."""
        self.seeds = seeds
        self._evaluate, self._progress = evaluate, progress
        self._many = lambda length: many_runs(lambda _: learner, sample_tasks, length, mesh)
        self._keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
        self._lost_tasks: list[np.ndarray] = []

    def init(self) -> ManyState:
        """All runs' states, none diverged."""
        runs = jax.jit(self._many(1).init)(self._keys, {})
        return ManyState(runs, jnp.full(len(self.seeds), -1, jnp.int32))

    def steps(self, length: int) -> Callable:
        """All runs' meta-steps; a run's first that is not finite is kept."""
        run = self._many(length).run

        def steps(state: ManyState, first_step: jax.Array) -> tuple[ManyState, Metrics]:
            runs, metrics = run(state.runs, self._keys, {}, first_step)
            failed = _failed(metrics)
            bad = jnp.where(failed.any(axis=1), first_step + jnp.argmax(failed, axis=1), -1).astype(
                jnp.int32
            )
            return ManyState(runs, jnp.where(state.diverged < 0, bad, state.diverged)), metrics

        return steps

    def complaints(self, state: ManyState) -> dict[int, str]:
        """A sentence for each seed whose run diverged."""
        return {
            seed: _diverged(seed, int(step))
            for seed, step in zip(self.seeds, np.asarray(state.diverged), strict=True)
            if step >= 0
        }

    def check(self, first_step: int, state: ManyState, metrics: Metrics) -> None:  # noqa: ARG002
        """Count the tasks that were lost; a run that diverged is marked in the state."""
        self._lost_tasks += list(np.asarray(metrics.lost_tasks, np.float64).T)

    def over(self, state: ManyState) -> bool:
        """Whether every run has diverged."""
        return len(self.complaints(state)) == len(self.seeds)

    def open_logs(self, directory: pathlib.Path, step: int, carried: Any) -> None:
        """One log per run."""
        self._lost_tasks = [np.array(lost) for lost in carried or []]
        self._logs = []
        for seed in self.seeds:
            below = seed_directory(directory, seed)
            below.mkdir(exist_ok=True)
            self._logs.append(MetricsLog(below, step))

    def carried(self) -> list[list[float]]:
        """The tasks that were lost since the last report, by meta-step and run."""
        return [lost.tolist() for lost in self._lost_tasks]

    def report(self, step: int, state: ManyState, metrics: Metrics, seconds: float) -> str:
        """One evaluation and one row per run that has not diverged."""
        shown = []
        norms = np.asarray(metrics.meta_gradient_norm).mean(axis=1)
        lost_tasks = np.mean(self._lost_tasks, axis=0)  # since the last report
        self._lost_tasks = []
        diverged = self.complaints(state)
        for run, seed in enumerate(self.seeds):
            if seed in diverged:
                continue
            measures = self._evaluate(state.of(run))
            row = {
                **measures,
                "meta_gradient_norm": float(norms[run]),
                "lost_tasks": float(lost_tasks[run]),
                # Its share: as many such runs, one after the other, would have cost the sum.
                "seconds": seconds / len(self.seeds),
            }
            self._logs[run].write(step, row)
            shown.append(measures[self._progress])
        lost = f", {len(diverged)} diverged" if diverged else ""
        return f"{self._progress} {min(shown):.4g} to {max(shown):.4g}{lost}"

    def close_logs(self) -> None:
        """Flush the logs."""
        for log in self._logs:
            log.close()


def seed_directory(directory: pathlib.Path, seed: int) -> pathlib.Path:
    """Where the run of ``seed`` is reported when many are made at once."""
    return directory / f"seed_{seed}"
