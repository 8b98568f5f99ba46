"""Episodes of a policy, of exactly H steps each, with a mask after their end."""

import math
from collections.abc import Callable
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp

from gembml.base import Key, Params, Task
from gembml.rl.environment import Environment

Policy = Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]]
"""``(params, observations [..., o])`` -> mean ``[..., a]`` and log std ``[a]`` of the action."""

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Rollouts(NamedTuple):
    """N episodes of H steps; what comes after an episode's end is masked and has no meaning.

    It does not depend on what the environment does there, which may be NaN: whoever multiplies by
    the mask gets 0, and so do gradients.
    """

    observations: jax.Array
    """``[N, H, observation_size]``, before the action; the last one again and again where
    masked."""
    actions: jax.Array
    """``[N, H, action_size]``, as drawn: the environment may clip them."""
    log_probs: jax.Array
    """Of the actions under the policy that drew them, ``[N, H]``, 0 where masked."""
    rewards: jax.Array
    """``[N, H]``, 0 where masked."""
    mask: jax.Array
    """``[N, H]``, 1.0 up to and including the step that ends the episode, then 0.0."""

    @property
    def returns(self) -> jax.Array:
        """The undiscounted return of each episode, ``[N]``."""
        return jnp.sum(self.rewards, axis=1)


def log_prob(policy: Policy, params: Params, observations: jax.Array, actions: jax.Array):
    """Log pi(a | s; params), summed over the action's entries: ``[...]``."""
    mean, log_std = policy(params, observations)
    density = distrax.Normal(mean, jnp.exp(log_std))
    return jnp.sum(jnp.asarray(density.log_prob(actions)), axis=-1)


def roll_out(
    key: Key,
    environment: Environment,
    policy: Policy,
    params: Params,
    task: Task,
    num_rollouts: int,
) -> Rollouts:
    """``num_rollouts`` episodes of one task under one policy."""
    reset_key, noise_key = jax.random.split(key)
    reset_keys = jax.random.split(reset_key, num_rollouts)
    # One draw for all steps: on a CPU a draw's cost is mostly its start.
    shape = (environment.horizon, num_rollouts, environment.action_size)
    noise = jax.random.normal(noise_key, shape)

    def step(carry, noise):
        state, observation, running = carry
        mean, log_std = policy(params, observation)
        action = mean + jnp.exp(log_std) * noise
        after = jax.vmap(environment.step, in_axes=(None, 0, 0))(task, state, action)
        log_probs = jnp.sum(-0.5 * noise**2 - log_std - _HALF_LOG_TWO_PI, axis=-1)
        reward = jnp.where(running > 0, after.reward, 0.0)
        out = (observation, action, log_probs * running, reward, running)
        running = running * (1.0 - after.terminated)
        # Where a network sees NaN its gradient is NaN, whatever masks its outputs: after the end
        # it sees what it saw last.
        observation = jnp.where(running[:, None] > 0, after.observation, observation)
        return (after.state, observation, running), out

    state, observation = jax.vmap(environment.reset, in_axes=(0, None))(reset_keys, task)
    start = (state, observation, jnp.ones(num_rollouts))
    _, steps = jax.lax.scan(step, start, noise)
    return Rollouts(*(jnp.moveaxis(leaf, 0, 1) for leaf in steps))
