"""What a reinforcement-learning task is to the library: pure functions of one episode."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from gembml.base import Key, Task

State = Any  # a pytree: the whole state of one episode


class Transition(NamedTuple):
    """What one action leads to."""

    state: State
    observation: jax.Array
    """``[observation_size]``"""
    reward: jax.Array
    """A scalar."""
    terminated: jax.Array
    """Whether the episode ends here, a scalar boolean; the reward still counts."""


class Environment(NamedTuple):
    """A family of Markov decision processes, one for each task.

    Everything is for one episode of one task; callers ``vmap``. An environment never resets itself:
    whoever steps on after the end masks what comes.
    """

    observation_size: int
    action_size: int
    horizon: int
    """Actions of an episode that does not terminate before."""
    reset: Callable[[Key, Task], tuple[State, jax.Array]]
    """``(key, task)`` -> the state at the start, and its observation ``[observation_size]``."""
    step: Callable[[Task, State, jax.Array], Transition]
    """``(task, state, action [action_size])``; actions are in units of the policy, in which the
    environment's own limits are -1 and 1: it clips what lies beyond."""
    best_reward: float | None = None
    """What no step's reward exceeds and good policies come close to; None if it is not known."""
