"""Point masses over weights: the limit of a Gaussian posterior as its variance goes to zero.

The prior keeps a variance C0 = 1 that is not learned (Section 4 of the paper), so that the
Gradient-EM gradient stays finite; it is then Reptile's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Family, Key, Params


class Delta(NamedTuple):
    """All mass on one set of weights."""

    mean: Params


def sample(key: Key, delta: Delta, num_samples: int) -> Params:
    """``num_samples`` copies of the point; leaves are ``[num_samples, ...]``."""
    del key
    return jax.tree.map(lambda m: jnp.broadcast_to(m, (num_samples, *m.shape)), delta.mean)


def half_squared_distance(left: Params, right: Params) -> jax.Array:
    """|left - right|^2 / 2, summed over all weights."""
    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), left, right)
    return 0.5 * sum(jax.tree.leaves(squares), start=jnp.zeros(()))


def gem_gradient(prior: Delta, posterior: Delta) -> Delta:
    """grad_mu log N(m | mu, C0 = 1) = m - mu: Reptile's direction (Section 4 of the paper)."""
    return Delta(jax.tree.map(jnp.subtract, posterior.mean, prior.mean))


def family() -> Family:
    """Point masses."""
    return Family(init=lambda key, init: Delta(init(key)), sample=sample, gem_gradient=gem_gradient)
