"""The region A* of good starting points: random points between adapted weights (Section 2.3)."""

import jax
import jax.numpy as jnp
from jax import lax

from experiments.sinusoid_evaluation import Experiment, adapted_metrics
from gembml import Delta
from gembml.base import Distribution, Key
from gembml.tasks.sinusoid import HeldOutTask


def adapted_weights(
    experiment: Experiment, prior: Distribution, key: Key, tasks: HeldOutTask, num_steps: int
) -> jax.Array:
    """The weights theta_i after ``num_steps`` steps on each of ``tasks``: ``[tasks, weights]``."""

    def adapt(task_key: Key, task: HeldOutTask) -> jax.Array:
        posteriors = experiment.learner.adapt(prior, task_key, lambda *_: task.support, num_steps)
        return posteriors.mean[-1]

    keys = jax.random.split(key, tasks.clean.shape[0])
    return lax.map(lambda xs: adapt(*xs), (keys, tasks), batch_size=50)


def random_points(
    key: Key, weights: jax.Array, number: int, combined: int, concentration: float
) -> jax.Array:
    """Random points of the convex hull of ``weights [tasks, weights]``: ``[number, weights]``.

    Each is sum_j w_j theta_{i_j} over ``combined`` different rows, drawn anew for every point, with
    w ~ Dirichlet(``concentration``). If the rows have variance v per weight, the points have

        v (concentration + 1) / (combined * concentration + 1)

    around the same mean, so a uniform Dirichlet(1) over all of 300 rows stays within 8% of the
    rows' own standard deviation: 100 such points are 100 times the mean. Few rows (5: 58%) or a
    small concentration reach out to the corners.
    """

    def point(point_key: Key) -> jax.Array:
        row_key, weight_key = jax.random.split(point_key)
        rows = jax.random.choice(row_key, weights.shape[0], (combined,), replace=False)
        return jax.random.dirichlet(weight_key, jnp.full(combined, concentration)) @ weights[rows]

    return lax.map(point, jax.random.split(key, number))


def relative_spread(points: jax.Array, weights: jax.Array) -> jax.Array:
    """Root mean squared distance from the centre of ``weights``, of ``points`` over ``weights``."""
    centre = weights.mean(axis=0)
    return jnp.sqrt(
        jnp.mean(jnp.sum((points - centre) ** 2, axis=-1))
        / jnp.mean(jnp.sum((weights - centre) ** 2, axis=-1))
    )


def errors(
    experiment: Experiment,
    starts: jax.Array,
    key: Key,
    tasks: HeldOutTask,
    steps: tuple[int, ...],
) -> jax.Array:
    """MSE after ``steps`` steps from each of ``starts``, per task: ``[starts, tasks, steps]``.

    Every start sees the same tasks with the same keys.
    """
    metrics = adapted_metrics(experiment, steps)
    keys = jax.random.split(key, tasks.clean.shape[0])

    def from_start(start: jax.Array) -> jax.Array:
        # The noise matters to the density alone, which is not computed.
        def on_task(xs: tuple[Key, HeldOutTask]) -> jax.Array:
            return metrics(Delta(start), *xs, jnp.ones(())).mse

        return lax.map(on_task, (keys, tasks), batch_size=50)

    return lax.map(from_start, starts)
