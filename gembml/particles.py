"""Sets of weights as a distribution: the mixture of M points with equal shares."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Family, Key, Params


class Particles(NamedTuple):
    """M particles; leaves are ``[M, ...]``."""

    weights: Params
    log_precision: jax.Array | None = None
    """``[M]``: each particle's log precision of the N(0, 1 / precision) prior of its weights, where
    that is inferred too (BMAML); None where it is not."""


def sample(key: Key, particles: Particles, num_samples: int) -> Params:
    """The particles in turn, 0, 1, ..., M - 1, 0, ...: no chance, so that averages over a multiple
    of M samples are exact; leaves are ``[num_samples, ...]``.
    """
    del key
    number = jax.tree.leaves(particles.weights)[0].shape[0]
    return jax.tree.map(lambda leaf: leaf[jnp.arange(num_samples) % number], particles.weights)


def squared_distance(left: Particles, right: Particles) -> jax.Array:
    """sum_m |theta_m - theta'_m|^2, between particles of the same number; precisions do not count.

    BMAML's chaser loss leaves them out (Yoon et al. 2018).
    """
    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), left.weights, right.weights)
    return sum(jax.tree.leaves(squares), start=jnp.zeros(()))


def family(num_particles: int, initial_log_precision: float | None = None) -> Family:
    """``num_particles`` particles that start at independent initial weights."""

    def init(key: Key, init_params) -> Particles:
        weights = jax.vmap(init_params)(jax.random.split(key, num_particles))
        if initial_log_precision is None:
            return Particles(weights)
        dtype = jax.tree.leaves(weights)[0].dtype
        return Particles(weights, jnp.full((num_particles,), initial_log_precision, dtype))

    return Family(init=init, sample=sample)
