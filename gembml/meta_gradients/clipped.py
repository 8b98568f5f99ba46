"""A limit on what one task can do to the prior."""

import jax
import jax.numpy as jnp
import optax

from gembml.base import Distribution


def clipped(gradient: Distribution, max_norm: float | jax.Array) -> tuple[Distribution, jax.Array]:
    """One task's meta-gradient, at most ``max_norm`` long; zero if its norm is not finite.

    SGD in the inner loop blows up on a task that is steeper than its rate allows, and one such task
    ends a run or, through Adam's second moment, stops it from learning for a thousand steps.

    Returns:
      The gradient, and 1.0 if its Euclidean norm is not finite (in float32 that of 1e30 is not),
      else 0.0.
    """
    norm = optax.global_norm(gradient)
    finite = jnp.isfinite(norm)
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-12))
    # Not scale = 0: nothing times infinity is not a number.
    shortened = jax.tree.map(lambda g: jnp.where(finite, scale * g, 0.0), gradient)
    return shortened, 1.0 - finite.astype(jnp.float32)
