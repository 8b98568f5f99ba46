"""Stein variational gradient descent (Liu & Wang 2016), the inner loop of BMAML."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gembml.base import Collect, Data, Inference, InferenceState, Key, Params, StepKeys
from gembml.particles import Particles

# Gamma(1, 0.1) on the precision of the weights, as in Liu & Wang 2016, Section 5.
_SHAPE, _RATE = 1.0, 0.1


def log_prior(weights: Params, log_precision: jax.Array) -> jax.Array:
    """Log N(weights | 0, 1 / precision) + log Gamma(precision | 1, 0.1) in log precision.

    Of one particle, up to a constant; with P weights, (P / 2 + 1) log precision
    - precision (|weights|^2 / 2 + 0.1).
    """
    leaves = jax.tree.leaves(weights)
    half_square = 0.5 * sum((jnp.sum(leaf**2) for leaf in leaves), start=jnp.zeros(()))
    number = sum(leaf.size for leaf in leaves)
    return (0.5 * number + _SHAPE) * log_precision - jnp.exp(log_precision) * (half_square + _RATE)


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


def svgd(
    log_likelihood: Callable[[Params, Data], jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    prior_weight: float | jax.Array = 1.0,
) -> Inference:
    """Steps of ``optimizer`` along the Stein direction of log P(D | theta) + w :func:`log_prior`.

    As in BMAML (Yoon et al. 2018, Algorithm 2) the loop starts at the meta-learned particles, and
    the target's prior is the particles' own; w is ``prior_weight``. The log precision's steps are
    divided by its Fisher information P / 2 + 1: it is that much steeper than a weight's. Its
    direction as a whole and not its gradient alone, whose balance with the repulsion is the target.
    """

    def target_gradient(particles: Particles, data: Data) -> Particles:
        def target(weights: Params, log_precision: jax.Array) -> jax.Array:
            fit = log_likelihood(weights, data)
            return fit + prior_weight * log_prior(weights, log_precision)

        return Particles(
            *jax.grad(target, (0, 1))(particles.weights, jnp.asarray(particles.log_precision))
        )

    def precondition(direction: Particles) -> Particles:
        leaves = jax.tree.leaves(direction.weights)
        number = sum(leaf[0].size for leaf in leaves)
        return direction._replace(
            log_precision=jnp.asarray(direction.log_precision) / (0.5 * number + _SHAPE)
        )

    def init(key: Key, prior: Particles) -> InferenceState:
        del key
        return InferenceState(prior, optimizer.init(prior))  # pyright: ignore[reportArgumentType]

    def step(
        keys: StepKeys, state: InferenceState, prior: Particles, collect: Collect
    ) -> InferenceState:
        del prior
        particles = state.posterior
        number = jax.tree.leaves(particles.weights)[0].shape[0]

        def of_particle(key: Key, particle: Particles) -> Particles:
            data = collect(key, jax.lax.stop_gradient(particle.weights))
            return target_gradient(particle, data)

        gradients = jax.vmap(of_particle)(jax.random.split(keys.data, number), particles)
        direction = precondition(stein_direction(particles, gradients))
        descent = jax.tree.map(jnp.negative, direction)
        updates, optimizer_state = optimizer.update(descent, state.optimizer_state, particles)
        return InferenceState(optax.apply_updates(particles, updates), optimizer_state)

    return Inference(init, step)
