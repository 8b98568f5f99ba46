"""Problems of rollouts that are small enough to test."""

import jax
import jax.numpy as jnp

from gembml import Problem
from gembml.rl import BASELINES, SURROGATES, Environment, Transition, policy_gradient
from gembml.tasks.navigation import navigation

KEY = jax.random.key(0)
QUICK_KEY = jax.random.key(0, impl="unsafe_rbg")  # to compile; most of the time goes there
GOAL = jnp.array([0.3, 0.2])
POLYAK = "polyak_sgd(eps=1.0)"

# One step, seen by nobody: the reward is -(a - target)^2.
BANDIT = Environment(
    observation_size=1,
    action_size=1,
    horizon=1,
    reset=lambda key, target: (jnp.zeros(1), jnp.zeros(1)),
    step=lambda target, state, action: Transition(
        state, state, -jnp.sum((action - target) ** 2), jnp.bool_(True)
    ),
)


def constant_policy(params, observations):
    mean, log_std = params
    return jnp.broadcast_to(mean, (*observations.shape[:-1], mean.shape[0])), log_std


def affine_policy(params, observations):
    """In one vector: a program of one leaf compiles in half the time."""
    return observations @ params[:4].reshape(2, 2) + params[4:6], params[6:]


def affine_params(key) -> jax.Array:
    return 0.5 * jax.random.normal(key, (8,))


def problem_of(
    environment=None,
    policy=affine_policy,
    init=affine_params,
    surrogate: str = "log_prob",
    baseline: str = "linear",
    num_rollouts: int = 2,
) -> Problem:
    return policy_gradient(
        environment or navigation(horizon=5),
        policy,
        init,
        num_rollouts=num_rollouts,
        surrogate=SURROGATES[surrogate],
        baseline=BASELINES[baseline],
        discount=0.99,
        gae_lambda=1.0,
    )
