"""A limit on what one task can do to the prior."""

import jax
import jax.numpy as jnp
import optax

from gembml.base import Distribution, Key, MetaGradient, Task


def clipped(meta_gradient: MetaGradient, max_norm: float | jax.Array) -> MetaGradient:
    """``meta_gradient``, shortened to the Euclidean norm ``max_norm``; zero where it is not finite.

    SGD in the inner loop blows up on a task that is steeper than its rate allows, and one such task
    ends a run or, through Adam's second moment, stops it from learning for a thousand steps.
    """

    def limited(key: Key, prior: Distribution, task: Task) -> Distribution:
        gradient = meta_gradient(key, prior, task)
        norm = optax.global_norm(gradient)
        scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-12))
        # Not scale = 0: nothing times infinity is not a number.
        return jax.tree.map(lambda g: jnp.where(jnp.isfinite(norm), scale * g, 0.0), gradient)

    return limited
