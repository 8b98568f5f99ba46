"""A limit on the length of a gradient, as an optax transformation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def shortening(gradient: Any, max_norm: float | jax.Array) -> jax.Array:
    """min(1, ``max_norm`` / |g|) over all leaves, with a derivative of 0 where g = 0.

    The derivative of |g| itself is there not a number, and inner loops are differentiated.
    """
    square = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))
    return jnp.minimum(1.0, max_norm / jnp.sqrt(jnp.maximum(square, 1e-24)))


def clip_norm(
    max_norm: float | jax.Array, *, per_particle: bool = False
) -> optax.GradientTransformation:
    """Gradient g times min(1, ``max_norm`` / |g|) over all leaves; particles on their own.

    As ``optax.clip_by_global_norm``, but that its derivative is the identity where g = 0. A norm
    that overflows makes the step 0.
    """

    def shorten(gradient: Any) -> Any:
        scale = shortening(gradient, max_norm)
        return jax.tree.map(lambda leaf: scale * leaf, gradient)

    def update(updates: Any, state: optax.OptState, params: Any = None):
        del params
        return (jax.vmap(shorten) if per_particle else shorten)(updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
