"""The training loop: the only place where meta-training meets files, clocks and the terminal."""

import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from gembml.base import Key, LearnerState, MetaLearner, Task
from gembml.learner import meta_steps
from gembml.training.checkpoints import Checkpoints
from gembml.training.errors import DivergedError, InterruptedRunError
from gembml.training.log import MetricsLog


class _StopOnCtrlC:
    """Turns the first Ctrl-C into a request that the loop honours after the current dispatch."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_StopOnCtrlC":
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_: Any) -> None:
        self.asked = True
        print(
            "\nStopping: finishing this dispatch and saving; Ctrl-C again stops at once.",
            flush=True,
        )
        signal.signal(signal.SIGINT, self._before)  # a second Ctrl-C stops at once

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self._before)


def train(
    learner: MetaLearner,
    sample_tasks: Callable[[Key], Task],
    *,
    seed: int,
    num_meta_steps: int,
    directory: pathlib.Path,
    evaluate: Callable[[LearnerState], dict[str, float]],
    progress: str,
    steps_per_dispatch: int = 500,
    evaluate_every: int = 1000,
    checkpoint_every: int = 2000,
) -> tuple[LearnerState, float]:
    """Train to the end, from the newest checkpoint in ``directory`` if there is one.

    Step t draws from ``fold_in(fold_in(key(seed), 1), t)`` and the prior from
    ``fold_in(key(seed), 0)``: a resumed run equals an uninterrupted one bit for bit, since
    dispatches begin at the same multiples of ``steps_per_dispatch``.

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

    Returns:
      The last state, and the seconds of training over all the run's processes, without
      compilation and evaluation.

    Raises:
      DivergedError: if the meta-gradient or the prior is not finite.
      InterruptedRunError: on Ctrl-C, after saving.
    """
    root = jax.random.key(seed)
    step_key = jax.random.fold_in(root, 1)
    state = jax.jit(learner.init)(jax.random.fold_in(root, 0))
    checkpoints = Checkpoints(directory / "checkpoints")
    restored, complaints = checkpoints.restore(state)
    for complaint in complaints:
        print(complaint, flush=True)
    step, seconds = 0, 0.0
    if restored is not None:
        step, state, seconds = restored
        print(f"Resumed at meta-step {step:,} of {num_meta_steps:,}.", flush=True)

    # Whole dispatches between two evaluations or checkpoints, at least one.
    evaluate_every = max(1, round(evaluate_every / steps_per_dispatch)) * steps_per_dispatch
    checkpoint_every = max(1, round(checkpoint_every / steps_per_dispatch)) * steps_per_dispatch
    compiled: dict[int, Callable] = {}

    def dispatch(length: int) -> Callable:
        if length not in compiled:
            run = meta_steps(learner, sample_tasks, step_key, length)
            compiled[length] = jax.jit(run).lower(state, jnp.int32(0)).compile()
        return compiled[length]

    log = MetricsLog(directory, step)
    bar = tqdm(total=num_meta_steps, initial=step, unit="step", smoothing=0.1, disable=None)
    saved = step
    try:
        with _StopOnCtrlC() as ctrl_c:
            while step < num_meta_steps:
                length = min(steps_per_dispatch, num_meta_steps - step)
                run = dispatch(length)
                began = time.perf_counter()
                new_state, metrics = run(state, jnp.int32(step))
                finite = np.asarray(metrics.finite)
                seconds += time.perf_counter() - began
                if not finite.all():
                    bad = step + int(np.argmin(finite))
                    raise DivergedError(
                        f"The meta-gradient or the prior is not finite at meta-step {bad:,}, whose "
                        f"task batch is drawn with gembml.learner.step_keys(jax.random.fold_in("
                        f"jax.random.key({seed}), 1), {bad})[0]. "
                        + (
                            f"The last good checkpoint is kept: step {saved:,} in {directory}."
                            if saved
                            else "There is no checkpoint yet."
                        )
                    )
                state, step = new_state, step + length
                bar.update(length)
                finished = step == num_meta_steps
                if finished or step % evaluate_every == 0:
                    measures = evaluate(state)
                    log.write(
                        step,
                        {
                            **measures,
                            "meta_gradient_norm": float(np.mean(metrics.meta_gradient_norm)),
                            "seconds": seconds,
                        },
                    )
                    bar.set_postfix_str(f"{progress} {measures[progress]:.4g}")
                if finished or ctrl_c.asked or step % checkpoint_every == 0:
                    checkpoints.save(step, state, seconds)
                    saved = step
                if ctrl_c.asked:
                    raise InterruptedRunError(
                        f"Stopped and saved at meta-step {step:,}; the same command goes on from "
                        "there."
                    )
    finally:
        bar.close()
        log.close()
    return state, seconds
