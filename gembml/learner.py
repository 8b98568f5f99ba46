"""Algorithm 1 of the paper: meta-training by batches of tasks, meta-test by inference."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from gembml.base import (
    Collect,
    Distribution,
    Family,
    Inference,
    Key,
    LearnerState,
    MetaGradient,
    MetaLearner,
    Metrics,
    Problem,
    Task,
)
from gembml.distributed import AXIS
from gembml.inference.loop import trajectory
from gembml.meta_gradients.clipped import clipped
from gembml.options import OptionError


class Contribution(NamedTuple):
    """One task's, or the average of several tasks'."""

    gradient: Distribution
    lost: jax.Array
    """Whether the gradient counts as zero, 0 or 1."""
    failed: jax.Array
    """``[tasks]``: 1 at the task's own place if its gradient is not finite; ``[0]`` where that is
    not looked for."""


def meta_learner(
    problem: Problem,
    family: Family,
    inference: Inference,
    meta_gradient: MetaGradient,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None = None,
    tasks_at_once: int = 0,
    max_task_norm: float | jax.Array | None = None,
) -> MetaLearner:
    """Put the parts together.

    ``update`` averages the tasks' meta-gradients and steps *up* along them (the paper prints a
    minus sign, yet L is maximised): ``optimizer`` receives the negative average, as optax
    minimises. The average instead of the paper's sum keeps the learning rate independent of the
    meta-batch.

    On a ``mesh`` each device takes its part of the tasks, and their averages are averaged: the same
    up to the order of the sum. Prior and optimizer are the same on all devices. The device count
    must divide the number of tasks.

    With ``tasks_at_once`` above 0 a device handles its tasks in such groups, one after the other,
    and memory does not grow with the meta-batch.

    With ``max_task_norm`` each task's meta-gradient is cut to that norm before the average, and one
    that is not finite counts as zero: :func:`gembml.meta_gradients.clipped`. Their share is in the
    metrics. Without it, and where data come from rollouts, whose physics may blow up in one task
    alone, the metrics name the first task whose meta-gradient is not finite.

    Raises (``update``):
      OptionError: if ``tasks_at_once`` does not divide a device's tasks.
    """
    watched = problem.is_surrogate and max_task_norm is None

    def of_task(key: Key, prior: Distribution, task: Task, place: jax.Array) -> Contribution:
        """``place``: a one-hot vector, ``[tasks]``."""
        gradient = meta_gradient(key, prior, task)
        if max_task_norm is not None:
            return Contribution(*clipped(gradient, max_task_norm), place[:0])
        if not watched:
            return Contribution(gradient, jnp.float32(0), place[:0])
        failed = jnp.where(jnp.isfinite(optax.global_norm(gradient)), 0.0, place)
        return Contribution(gradient, jnp.float32(0), failed)

    def average_at_once(
        keys: Key, prior: Distribution, tasks: Task, places: jax.Array
    ) -> Contribution:
        all_tasks = jax.vmap(of_task, in_axes=(0, None, 0, 0))(keys, prior, tasks, places)
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), all_tasks)

    def average_here(
        keys: Key, prior: Distribution, tasks: Task, places: jax.Array
    ) -> Contribution:
        groups, rest = divmod(len(keys), tasks_at_once or len(keys))
        if groups <= 1 and not rest:
            return average_at_once(keys, prior, tasks, places)
        if rest or not groups:
            raise OptionError(
                f"config.tasks_at_once must divide the {len(keys)} tasks that a device has, and "
                f"{tasks_at_once} does not."
            )
        grouped = (keys, tasks, places)
        if tasks_at_once > 1:
            grouped = jax.tree.map(
                lambda leaf: leaf.reshape(groups, tasks_at_once, *leaf.shape[1:]), grouped
            )

        def add(
            total: Contribution, group: tuple[Key, Task, jax.Array]
        ) -> tuple[Contribution, None]:
            keys, tasks, places = group
            if tasks_at_once == 1:  # a batch of one is slower than none
                average = of_task(keys, prior, tasks, places)
            else:
                average = average_at_once(keys, prior, tasks, places)
            return jax.tree.map(lambda t, a: t + a / groups, total, average), None

        # A sum that is carried: one gradient in memory, not one per group.
        failed = jnp.zeros(places.shape[1] if watched else 0)
        zeros = Contribution(jax.tree.map(jnp.zeros_like, prior), jnp.float32(0), failed)
        return jax.lax.scan(add, zeros, grouped)[0]

    average = average_here
    if mesh is not None:
        # No check of what varies over devices: with it, gradients in the replicated prior would
        # arrive summed over devices, and the average would leave them too large.
        average = jax.shard_map(
            lambda *args: jax.lax.pmean(average_here(*args), AXIS),
            mesh=mesh,
            in_specs=(PartitionSpec(AXIS), PartitionSpec(), *2 * [PartitionSpec(AXIS)]),
            out_specs=PartitionSpec(),
            check_vma=False,
        )

    def init(key: Key) -> LearnerState:
        prior = family.init(key, problem.init)
        return LearnerState(prior, optimizer.init(prior))

    def update(state: LearnerState, key: Key, tasks: Task) -> tuple[LearnerState, Metrics]:
        num_tasks = jax.tree.leaves(tasks)[0].shape[0]
        keys = jax.random.split(key, num_tasks)
        gradient, lost, failed = average(keys, state.prior, tasks, jnp.eye(num_tasks))
        descent = jax.tree.map(jnp.negative, gradient)
        updates, optimizer_state = optimizer.update(descent, state.optimizer_state, state.prior)
        prior = optax.apply_updates(state.prior, updates)
        metrics = metrics_of(gradient, prior, lost)
        if watched:
            first = jnp.where(jnp.any(failed > 0), jnp.argmax(failed > 0), -1)
            metrics = metrics._replace(failed_task=first)
        return LearnerState(prior, optimizer_state), metrics

    def adapt(prior: Distribution, key: Key, collect: Collect, num_steps: int) -> Distribution:
        return trajectory(inference, key, prior, collect, num_steps)

    return MetaLearner(init, update, adapt, family.sample)


def metrics_of(
    gradient: Distribution, prior: Distribution, lost_tasks: jax.Array | float = 0.0
) -> Metrics:
    """What a meta-step with this meta-gradient, which led to this prior, says about itself."""
    norm = optax.global_norm(gradient)
    # A sum is finite only if every term is: one reduction instead of one test per entry.
    total = sum((jnp.sum(leaf) for leaf in jax.tree.leaves(prior)), start=norm)
    lost = jnp.asarray(lost_tasks, jnp.float32)
    return Metrics(norm, jnp.isfinite(total), lost, jnp.int32(-1))


def step_keys(key: Key, step: jax.Array | int) -> tuple[Key, Key]:
    """The keys of meta-step ``step``: for drawing its tasks, and for its update."""
    task_key, update_key = jax.random.split(jax.random.fold_in(key, step))
    return task_key, update_key


def meta_steps(
    learner: MetaLearner,
    sample_tasks: Callable[[Key], Task],
    key: Key,
    length: int,
) -> Callable[[LearnerState, jax.Array], tuple[LearnerState, Metrics]]:
    """``length`` meta-steps as one function ``(state, first_step) -> (state, metrics [length])``.

    Step t draws everything from ``fold_in(key, t)``, so that a run does not depend on how it is cut
    into calls. All tasks of the call are drawn at once before the scan: one large draw costs half
    as much as many small ones. ``sample_tasks`` should therefore return light tasks, such as
    parameters or indices, and leave the bulk to ``Problem.support`` and ``Problem.query``.
    """

    def run(state: LearnerState, first_step: jax.Array) -> tuple[LearnerState, Metrics]:
        steps = first_step + jnp.arange(length)
        task_keys, update_keys = jax.vmap(lambda step: step_keys(key, step))(steps)
        tasks = jax.vmap(sample_tasks)(task_keys)
        return jax.lax.scan(
            lambda state, xs: learner.update(state, *xs), state, (update_keys, tasks)
        )

    return run
