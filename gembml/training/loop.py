"""The training loop: where meta-training meets files, clocks and the terminal."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from gembml import constants, distributed
from gembml.base import Key, LearnerState, MetaLearner, Metrics, Task
from gembml.training.checkpoints import Checkpoints
from gembml.training.errors import DivergedError, InterruptedRunError
from gembml.training.interrupt import StopOnCtrlC
from gembml.training.program import Evaluate, ManySeeds, OneRun, Program, seed_directory


class Intervals(NamedTuple):
    """Meta-steps per compiled call, and between evaluations and checkpoints.

    The latter two are rounded to whole dispatches, at least one.
    """

    dispatch: int
    evaluate: int
    checkpoint: int

    def whole(self) -> "Intervals":
        """The same in whole dispatches."""
        evaluate, checkpoint = (
            max(1, round(every / self.dispatch)) * self.dispatch
            for every in (self.evaluate, self.checkpoint)
        )
        return Intervals(self.dispatch, evaluate, checkpoint)


def drive(
    program: Program,
    *,
    num_meta_steps: int,
    directory: pathlib.Path,
    intervals: Intervals,
    mesh: jax.sharding.Mesh | None,
) -> tuple[Any, float]:
    """Run a program to the end, from the newest checkpoint in ``directory`` if there is one.

    With several processes all of them call this; process 0 alone reads, writes and prints.

    Returns:
      The last state, and the seconds of training over all the run's processes.
    """
    team = distributed.team()
    start = program.init()
    checkpoints = None
    if team.first:
        directory.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(directory / "checkpoints")
    step, state, seconds, carried = _restore(checkpoints, start, num_meta_steps)
    state = distributed.replicate(state, mesh)

    intervals = intervals.whole()
    # A scalar that belongs to no device, if there are several.
    scalar = jnp.int32 if mesh is None else np.int32
    dispatch = _compiler(program, state, scalar(0), mesh)

    if team.first:
        program.open_logs(directory, step, carried)
    options: dict[str, Any] = {
        "unit": "step",
        "smoothing": 0.1,
        "disable": None if team.first else True,
    }
    bar = tqdm(total=num_meta_steps, initial=step, **options)
    saved = step
    try:
        with StopOnCtrlC() as ctrl_c:
            while step < num_meta_steps:
                length = min(intervals.dispatch, num_meta_steps - step)
                run = dispatch(length)
                began = time.perf_counter()
                try:
                    new_state, metrics = run(state, scalar(step))
                    np.asarray(metrics.finite)
                except (jax.errors.JaxRuntimeError, ValueError) as error:
                    raise team.lost(error) from error
                seconds += time.perf_counter() - began
                mine, metrics = distributed.local((new_state, metrics), mesh)
                _check(program, step, mine, metrics, saved, directory)
                state, step = new_state, step + length
                if program.over(mine):
                    break  # unsaved: the last checkpoint is from when a run was left
                bar.update(length)
                finished = step == num_meta_steps
                if team.first and (finished or step % intervals.evaluate == 0):
                    bar.set_postfix_str(program.report(step, mine, metrics, seconds))
                # All stop after the same dispatch, whichever was asked to.
                stop = any(team.exchange("stop" if ctrl_c.asked else ""))
                if finished or stop or step % intervals.checkpoint == 0:
                    if checkpoints is not None:
                        checkpoints.save(step, mine, seconds, program.carried())
                    saved = step
                if stop:
                    raise InterruptedRunError(
                        f"Stopped and saved at meta-step {step:,}; the same command goes on from "
                        "there."
                    )
    finally:
        bar.close()
        if team.first:
            program.close_logs()
    return distributed.local(state, mesh), seconds


def _compiler(
    program: Program, state: Any, step: Any, mesh: jax.sharding.Mesh | None
) -> Callable[[int], Callable]:
    """``length`` -> the program of so many meta-steps, compiled once for arguments like these."""
    placed: dict[str, Any] = (
        {} if mesh is None else {"out_shardings": NamedSharding(mesh, PartitionSpec())}
    )

    @functools.cache
    def compiled(length: int) -> Callable:
        return constants.compiled(program.steps(length), state, step, **placed)

    return compiled


def _check(
    program: Program,
    step: int,
    state: Any,
    metrics: Metrics,
    saved: int,
    directory: pathlib.Path,
) -> None:
    """Raise if the program diverged, and say which checkpoint is left."""
    try:
        program.check(step, state, metrics)
    except DivergedError as error:
        kept = f"The last good checkpoint is kept: step {saved:,} in {directory}."
        raise type(error)(f"{error} {kept if saved else 'There is no checkpoint yet.'}") from None


def _restore(
    checkpoints: Checkpoints | None, start: Any, num_meta_steps: int
) -> tuple[int, Any, float, Any]:
    """The step, state and seconds to go on from, process 0's in every process; and its carried."""
    step, state, seconds, carried = 0, start, 0.0, None
    if checkpoints is not None:
        restored, complaints = checkpoints.restore(start)
        for complaint in complaints:
            print(complaint, flush=True)
        if restored is not None:
            step, state, seconds, carried = restored
            print(f"Resumed at meta-step {step:,} of {num_meta_steps:,}.", flush=True)
    if distributed.team().count > 1:
        sent = distributed.from_first((np.int64(step), state, np.float64(seconds)))
        step, state, seconds = int(sent[0]), sent[1], float(sent[2])
    return step, state, seconds, carried


def train(
    learner: MetaLearner,
    sample_tasks: Callable[[Key], Task],
    *,
    seed: int,
    num_meta_steps: int,
    directory: pathlib.Path,
    evaluate: Evaluate,
    progress: str,
    steps_per_dispatch: int = 500,
    evaluate_every: int = 1000,
    checkpoint_every: int = 2000,
    mesh: jax.sharding.Mesh | None = None,
    work: tuple[str, float] | None = None,
) -> tuple[LearnerState, float]:
    """Train to the end, from the newest checkpoint in ``directory`` if there is one.

    Step t draws from ``fold_in(fold_in(key(seed), 1), t)`` and the prior from
    ``fold_in(key(seed), 0)``: a resumed run equals an uninterrupted one bit for bit, since
    dispatches begin at the same multiples of ``steps_per_dispatch``. Checkpoints do not know of
    devices: a run goes on with any number of them.

    Args:
      learner: what to train.
      sample_tasks: a batch of tasks from a key, with a leading axis ``[tasks]``.
      seed: the run's seed.
      num_meta_steps: the length of the run.
      directory: the run's directory.
      evaluate: validation measures of a state, by name.
      progress: the name of the measure that the progress bar shows.
      steps_per_dispatch: meta-steps per compiled call.
      evaluate_every: meta-steps between two evaluations, rounded to whole dispatches.
      checkpoint_every: meta-steps between two checkpoints, rounded to whole dispatches.
      mesh: the devices that the learner was made for, if more than one.
      work: a unit of work and how much of it a meta-step is, ``("env_steps", 80_000)``, to report
        ``env_steps_per_second`` since the last report.

    Returns:
      The last state, and the seconds of training over all the run's processes, without
      compilation and evaluation.

    Raises:
      DivergedError: if the meta-gradient or the prior is not finite; TaskFailedError, which is one,
        where it is known to come from a task's episodes.
      InterruptedRunError: on Ctrl-C, after saving.
      PeerLostError: if another process of the run is gone.
    """
    return drive(
        OneRun(learner, sample_tasks, seed, evaluate, progress, work),
        num_meta_steps=num_meta_steps,
        directory=directory,
        intervals=Intervals(steps_per_dispatch, evaluate_every, checkpoint_every),
        mesh=mesh,
    )


class SeedRun(NamedTuple):
    """What became of one of many runs."""

    seed: int
    directory: pathlib.Path
    state: LearnerState
    seconds: float
    """Its share of the program's time."""
    diverged: str | None
    """Why there is no result, in a sentence."""


def train_seeds(
    learner: MetaLearner,
    sample_tasks: Callable[[Key], Task],
    *,
    seeds: tuple[int, ...],
    num_meta_steps: int,
    directory: pathlib.Path,
    evaluate: Evaluate,
    progress: str,
    steps_per_dispatch: int = 500,
    evaluate_every: int = 1000,
    checkpoint_every: int = 2000,
    mesh: jax.sharding.Mesh | None = None,
) -> list[SeedRun]:
    """Train one run per seed, all in one program; otherwise as :func:`train`.

    The checkpoints hold all runs; metrics go into ``seed_SEED`` below the directory. A run that
    diverges is marked, and the others go on; when none is left, training ends.

    ``mesh`` holds the devices that the learner was made for, which share each meta-step's tasks, or
    (:func:`gembml.distributed.seed_mesh`) those among which the runs are divided; the learner then
    knows of none.

    Raises:
      InterruptedRunError: on Ctrl-C, after saving.
      PeerLostError: if another process of the run is gone.
    """
    of_runs = mesh if distributed.over_seeds(mesh) else None
    program = ManySeeds(learner, sample_tasks, seeds, evaluate, progress, of_runs)
    state, seconds = drive(
        program,
        num_meta_steps=num_meta_steps,
        directory=directory,
        intervals=Intervals(steps_per_dispatch, evaluate_every, checkpoint_every),
        mesh=mesh,
    )
    complaints = program.complaints(state)
    return [
        SeedRun(
            seed,
            seed_directory(directory, seed),
            state.of(run),
            seconds / len(seeds),
            complaints.get(seed),
        )
        for run, seed in enumerate(seeds)
    ]
