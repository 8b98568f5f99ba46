"""The Stein direction: which way a set of particles moves to resemble a distribution."""

import jax
import jax.numpy as jnp

from gembml.particles import Particles


def stein_direction(particles: Particles, gradients: Particles) -> Particles:
    """phi(x_m) = 1/M sum_j [k(x_j, x_m) g_j + grad_{x_j} k(x_j, x_m)], leaves ``[M, ...]``.

    The kernel is exp(-|x - y|^2 / h), with h = (median of the squared distances) / log(M + 1),
    over weights and log-precision together; h is a constant to whoever differentiates.
    """
    flat = jax.tree.leaves(jax.tree.map(lambda x: x.reshape(x.shape[0], -1), particles))
    number = flat[0].shape[0]

    def squared_distances(x: jax.Array) -> jax.Array:
        # |x|^2 + |y|^2 - 2 x.y, centred: one matrix product instead of all M^2 differences.
        x = x - jax.lax.stop_gradient(x.mean(axis=0))
        gram = x @ x.T
        squares = jnp.diag(gram)
        return jnp.maximum(squares[:, None] + squares[None] - 2 * gram, 0.0)

    distances = sum((squared_distances(x) for x in flat), start=jnp.zeros(()))
    # Not the median of all M^2: M of them are zero.
    off_diagonal = distances[jnp.triu_indices(number, 1)] if number > 1 else jnp.ones(1)
    bandwidth = jnp.maximum(jnp.median(off_diagonal) / jnp.log(number + 1.0), 1e-12)
    bandwidth = jax.lax.stop_gradient(bandwidth)
    kernel = jnp.exp(-distances / bandwidth)

    def direction(x: jax.Array, g: jax.Array) -> jax.Array:
        x_flat, g_flat = x.reshape(number, -1), g.reshape(number, -1)
        attraction = kernel @ g_flat
        repulsion = 2 / bandwidth * (kernel.sum(axis=1)[:, None] * x_flat - kernel @ x_flat)
        return ((attraction + repulsion) / number).reshape(x.shape)

    return jax.tree.map(direction, particles, gradients)
