"""Stein variational gradient descent (Liu & Wang 2016), the inner loop of BMAML."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gembml.base import Collect, Data, Inference, InferenceState, Key, Params, StepKeys
from gembml.inference.stein import stein_direction
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
