"""MAML's own meta-step in reinforcement learning: a trust region after adaptation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gembml.base import (
    Collect,
    Data,
    Distribution,
    Family,
    Inference,
    Key,
    LearnerState,
    MetaLearner,
    Metrics,
    Params,
    Problem,
    StepKeys,
    Task,
)
from gembml.inference.loop import loop_keys, trajectory, unrolls
from gembml.learner import metrics_of
from gembml.options import OptionError


class Recorded(NamedTuple):
    """What one task has collected at the present prior: constants of the meta-step."""

    init_key: Key
    step_keys: StepKeys
    """``[steps]``"""
    support: Data
    """The data of each inner step, ``[steps, ...]``."""
    adapted: Params
    """theta'(Theta), which collected the query data."""
    query: Data


def trust_region_learner(
    problem: Problem,
    family: Family,
    inference: Inference,
    num_steps: int,
    optimizer: optax.GradientTransformationExtraArgs,
    tasks_at_once: int = 0,
) -> MetaLearner:
    """A learner that moves Theta as far as the adapted networks may change what they predict.

    Finn et al. 2017, Section 5.3, and its code: each task collects support data along its inner
    steps, and query data with the weights theta'(Theta) at their end, once. With these data fixed,
    and theta' a function of Theta by the same inner steps on them, ``optimizer``, a
    :func:`gembml.optimizers.trust_region`, receives

        loss(Theta)       = -mean over tasks of log P(D^val | theta'(Theta)),
        divergence(Theta) =  mean over tasks of D(theta'(Theta_old), theta'(Theta); D^val).

    For rollouts log P must be weighed by importance (the surrogates ``ratio`` and ``dice``), or the
    line search compares what is no estimate of the return.

    With ``tasks_at_once`` above 0 tasks are handled in such groups, one after the other: what is
    kept for all of them is their data, and what a derivative stores is one group's.

    Raises:
      OptionError: for a problem without divergence; and, at an update, if ``tasks_at_once`` does
        not divide the tasks.
    """
    if problem.divergence is None:
        raise OptionError(
            "a trust region needs the problem's divergence between what two networks predict, and "
            "this problem has none; rollouts have one with the surrogate ratio or dice."
        )
    between = problem.divergence

    def record(key: Key, prior: Distribution, task: Task) -> Recorded:
        inner_key, query_key = jax.random.split(key)
        init_key, keys = loop_keys(inner_key, num_steps)

        def step(state, keys: StepKeys):
            data = problem.support(keys.data, task, state.posterior.mean)
            return inference.step(keys, state, prior, lambda *_: data), data

        state, support = jax.lax.scan(step, inference.init(init_key, prior), keys)
        adapted = state.posterior.mean
        return Recorded(init_key, keys, support, adapted, problem.query(query_key, task, adapted))

    def adapted_again(prior: Distribution, recorded: Recorded) -> Params:
        """The weights theta' from another prior, by the same inner steps on the same data."""
        state, _ = jax.lax.scan(
            lambda state, at: (inference.step(at[0], state, prior, lambda *_: at[1]), None),
            inference.init(recorded.init_key, prior),
            (recorded.step_keys, recorded.support),
            unroll=unrolls(num_steps),
        )
        return state.posterior.mean

    def task_loss(prior: Distribution, recorded: Recorded) -> jax.Array:
        return -problem.log_likelihood(adapted_again(prior, recorded), recorded.query)

    def task_divergence(prior: Distribution, recorded: Recorded) -> jax.Array:
        return between(recorded.adapted, adapted_again(prior, recorded), recorded.query)

    def for_each(function: Callable, prior: Distribution, arguments: tuple):
        """``function(prior, *argument)`` of each task, ``[tasks, ...]``."""
        num_tasks = jax.tree.leaves(arguments)[0].shape[0]
        if tasks_at_once in (0, num_tasks):
            return jax.vmap(lambda argument: function(prior, *argument))(arguments)
        if num_tasks % tasks_at_once:
            raise OptionError(
                f"config.tasks_at_once must divide the {num_tasks} tasks of a meta-step, and "
                f"{tasks_at_once} does not."
            )
        # Derivatives of the map compute each group again, in place of what all would store.
        once = jax.checkpoint(function)
        batch = {"batch_size": tasks_at_once} if tasks_at_once > 1 else {}
        return jax.lax.map(lambda argument: once(prior, *argument), arguments, **batch)

    def mean(function: Callable, recorded: Recorded) -> Callable[[Distribution], jax.Array]:
        return lambda prior: jnp.mean(for_each(function, prior, (recorded,)))

    def init(key: Key) -> LearnerState:
        prior = family.init(key, problem.init)
        return LearnerState(prior, optimizer.init(prior))

    def update(state: LearnerState, key: Key, tasks: Task) -> tuple[LearnerState, Metrics]:
        keys = jax.random.split(key, jax.tree.leaves(tasks)[0].shape[0])
        recorded = for_each(
            lambda prior, key, task: record(key, prior, task), state.prior, (keys, tasks)
        )
        loss = mean(task_loss, recorded)
        gradient = jax.grad(loss)(state.prior)
        updates, optimizer_state = optimizer.update(
            gradient,
            state.optimizer_state,
            state.prior,
            value_fn=loss,
            divergence_fn=mean(task_divergence, recorded),
        )
        prior = optax.apply_updates(state.prior, updates)
        return LearnerState(prior, optimizer_state), metrics_of(gradient, prior)

    def adapt(prior: Distribution, key: Key, collect: Collect, num_steps: int) -> Distribution:
        return trajectory(inference, key, prior, collect, num_steps)

    return MetaLearner(init, update, adapt, family.sample)
