"""Reinforcement learning as a problem of the library: data are rollouts of the current weights."""

from collections.abc import Callable
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp

from gembml.base import Key, Params, Problem, Task
from gembml.rl import surrogates
from gembml.rl.baselines import Baseline
from gembml.rl.environment import Environment
from gembml.rl.returns import (
    discounted_sums,
    generalized_advantages,
    standard_deviation,
    standardized,
)
from gembml.rl.rollouts import Policy, Rollouts, log_prob, roll_out
from gembml.rl.surrogates import Surrogate


class Experience(NamedTuple):
    """What a policy gradient needs of N episodes; see :class:`~gembml.rl.rollouts.Rollouts`."""

    observations: jax.Array
    """``[N, H, o]``"""
    actions: jax.Array
    """``[N, H, a]``"""
    log_probs: jax.Array
    """Of the policy that acted, ``[N, H]``; 0 where masked."""
    advantages: jax.Array
    """Standardised over the task's episodes, ``[N, H]``; 0 where masked."""
    mask: jax.Array
    """``[N, H]``"""
    regret: jax.Array
    """The best reward (0 where none is known) less the average one of all N H steps, of which those
    after an episode's end have the best; in units of the standard deviation of the advantages; a
    scalar."""


def experience(
    rollouts: Rollouts,
    *,
    baseline: Baseline,
    discount: float,
    gae_lambda: float,
    best_reward: float = 0.0,
) -> Experience:
    """Episodes with their advantages."""
    returns = discounted_sums(rollouts.rewards, discount) * rollouts.mask
    values = baseline(rollouts.observations, returns, rollouts.mask)
    advantages = generalized_advantages(
        rollouts.rewards, values, rollouts.mask, discount, gae_lambda
    )
    return Experience(
        rollouts.observations,
        rollouts.actions,
        rollouts.log_probs,
        standardized(advantages, rollouts.mask),
        rollouts.mask,
        jnp.mean((best_reward - rollouts.rewards) * rollouts.mask)
        / standard_deviation(advantages, rollouts.mask),
    )


def policy_gradient(
    environment: Environment,
    policy: Policy,
    init: Callable[[Key], Params],
    *,
    num_rollouts: int,
    surrogate: Surrogate,
    baseline: Baseline,
    discount: float,
    gae_lambda: float,
) -> Problem:
    """The problem of acting well in ``environment``'s tasks.

    D^tr and D^val are each ``num_rollouts`` episodes of the weights that the inner loop stands at:
    of the prior's mean, and of the posterior's mean after D^tr. log P(D | theta) is the mean of
    ``surrogate`` over all actions (appendix B.1 of the paper prints sum_t pi(a_t | x_t) r_t).
    Trust regions are in the mean KL divergence of the actions' distributions; with the surrogate
    ``log_prob`` the problem has no divergence, as a line search that compares its values compares
    no returns.

    The objective, for steps that follow from its value, is the average reward of a step less the
    environment's best, if that is known. The surrogate's gradient is that of the average reward
    of running steps, up to what the discount leaves out. Where episodes end early the objective,
    an average over the whole horizon, is smaller than in proportion, by the share of steps that
    run, and so are Polyak's steps: on navigation that is better (BUILD_NOTES.md).
    """

    def collect(key: Key, task: Task, params: Params) -> Experience:
        rollouts = roll_out(key, environment, policy, params, task, num_rollouts)
        return experience(
            rollouts,
            baseline=baseline,
            discount=discount,
            gae_lambda=gae_lambda,
            best_reward=environment.best_reward or 0.0,
        )

    def log_likelihood(params: Params, data: Experience) -> jax.Array:
        log_pi = log_prob(policy, params, data.observations, data.actions) * data.mask
        terms = surrogate(log_pi, data.log_probs, data.advantages)
        return jnp.sum(terms) / jnp.maximum(jnp.sum(data.mask), 1.0)

    def divergence(params: Params, other: Params, data: Experience) -> jax.Array:
        mean, log_std = policy(params, data.observations)
        other_mean, other_log_std = policy(other, data.observations)
        between = distrax.Normal(mean, jnp.exp(log_std)).kl_divergence(
            distrax.Normal(other_mean, jnp.exp(other_log_std))
        )
        per_step = jnp.sum(jnp.asarray(between), axis=-1) * data.mask
        return jnp.sum(per_step) / jnp.maximum(jnp.sum(data.mask), 1.0)

    return Problem(
        init=init,
        log_likelihood=log_likelihood,
        support=collect,
        query=collect,
        divergence=None if surrogate is surrogates.log_prob else divergence,
        objective=None if environment.best_reward is None else lambda data: -data.regret,
        is_surrogate=True,
    )
