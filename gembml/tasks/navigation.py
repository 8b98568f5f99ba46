"""2D navigation: a point walks to a goal that it cannot see (Finn et al. 2017, Section 5.3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Key
from gembml.options import OptionError, check_choice
from gembml.rl.environment import Environment, Transition

MAX_STEP = 0.1
"""Length of a step along each axis."""
REACHED = 0.01
"""Within this distance of the goal the episode ends."""

REWARDS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "distance": lambda squared: -jnp.sqrt(squared),
    "squared_distance": lambda squared: -squared,
}
"""Squared distance to the goal -> reward: MAML's, and that of the paper's appendix C.4.3."""


def uniform_goal(key: Key) -> jax.Array:
    """A goal in the unit square around the origin, ``[2]`` (MAML's protocol)."""
    return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)


def bimodal_goal(key: Key) -> jax.Array:
    """A goal around (0.5, 0.5) or (-0.5, -0.5), standard deviation 0.5 (Vuorio et al. 2019)."""
    side_key, noise_key = jax.random.split(key)
    side = jnp.where(jax.random.bernoulli(side_key), 0.5, -0.5)
    return side + 0.5 * jax.random.normal(noise_key, (2,))


GOALS: dict[str, Callable[[Key], jax.Array]] = {"uniform": uniform_goal, "bimodal": bimodal_goal}


def navigation(reward: str = "distance", horizon: int = 100) -> Environment:
    """The point starts at the origin, sees where it is, and moves by at most 0.1 along each axis.

    A task is its goal, ``[2]``. Actions are in units of the largest step. The episode ends within
    0.01 of the goal, or after ``horizon`` steps.

    Args:
      reward: a key of :data:`REWARDS`.
      horizon: steps of an episode, at least 1.

    Raises:
      OptionError: an argument is none of these.
    """
    check_choice("reward", reward, REWARDS)
    if horizon < 1:
        raise OptionError(f"horizon must be at least 1, not {horizon}.")
    of_squared = REWARDS[reward]

    def reset(key: Key, goal: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        start = jnp.zeros_like(goal)
        return start, start

    def step(goal: jax.Array, position: jax.Array, action: jax.Array) -> Transition:
        position = position + MAX_STEP * jnp.clip(action, -1.0, 1.0)
        squared = jnp.sum((position - goal) ** 2)
        return Transition(position, position, of_squared(squared), squared < REACHED**2)

    return Environment(2, 2, horizon, reset, step, best_reward=0.0)


def best_return(goal: jax.Array, reward: str = "distance", horizon: int = 100) -> jax.Array:
    """The optimal return of a task, by walking straight along both axes at once.

    Along each axis the largest step is the best until the goal is in reach, whatever happens along
    the other: that brings every later position as near as it can be.
    """
    steps = jnp.arange(1, horizon + 1)
    left = jnp.maximum(jnp.abs(goal)[None, :] - MAX_STEP * steps[:, None], 0.0)
    squared = jnp.sum(left**2, axis=-1)
    before_end = jnp.concatenate([jnp.ones(1, bool), squared[:-1] >= REACHED**2])
    return jnp.sum(jnp.where(before_end, REWARDS[reward](squared), 0.0))
