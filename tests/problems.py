"""Small problems with nonlinear likelihoods, written out by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml import Problem
from gembml.base import Key


class Data(NamedTuple):
    """``x [points, 3]``, ``y [points]``."""

    x: jax.Array
    y: jax.Array


class Task(NamedTuple):
    """A task's two data sets."""

    support: Data
    query: Data


def log_likelihood(weights: jax.Array, data: Data) -> jax.Array:
    """A smooth likelihood that is not quadratic in the weights."""
    return -jnp.sum((jnp.tanh(data.x @ weights) - data.y) ** 2)


def quadratic_log_likelihood(weights: jax.Array, data: Data) -> jax.Array:
    """-|X w - y|^2 / 2, whose Hessian is -X^T X."""
    return -0.5 * jnp.sum((data.x @ weights - data.y) ** 2)


def make_task(seed: int, points: int = 6) -> Task:
    """Two random data sets."""

    def data(key: Key) -> Data:
        x_key, y_key = jax.random.split(key)
        return Data(
            0.5 * jax.random.normal(x_key, (points, 3)), jax.random.normal(y_key, (points,))
        )

    return Task(*map(data, jax.random.split(jax.random.key(seed))))


def make_weights(seed: int) -> jax.Array:
    """Where the inner loop starts."""
    return jax.random.normal(jax.random.key(100 + seed), (3,))


def problem(likelihood=log_likelihood) -> Problem:
    """The problem of the tasks above."""
    return Problem(
        init=lambda key: jax.random.normal(key, (3,)),
        log_likelihood=likelihood,
        support=lambda key, task, params: task.support,
        query=lambda key, task, params: task.query,
    )
