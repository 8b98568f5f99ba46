"""How PLATIPUS adapts at meta-test: Algorithm 2 of Finn, Xu & Levine 2018."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Collect, Data, Inference, InferenceState, Key, Params, StepKeys
from gembml.gaussian import sample
from gembml.particles import Particles
from gembml.platipus import Platipus, ascend


def platipus_inference(
    log_likelihood: Callable[[Params, Data], jax.Array],
    learning_rate: float | jax.Array,
    num_particles: int,
) -> Inference:
    """Algorithm 2: theta ~ N(mu + gamma_p o grad log P(D | mu), sigma^2), then SGD from each theta.

    The first step makes both the shift by gamma_p and an SGD step; before it, particles are draws
    from p(theta).
    """

    def init(key: Key, prior: Platipus) -> InferenceState:
        return InferenceState(
            Particles(sample(key, prior.prior, num_particles)), jnp.zeros((), bool)
        )

    def step(
        keys: StepKeys, state: InferenceState, prior: Platipus, collect: Collect
    ) -> InferenceState:
        mean = prior.prior.mean
        data = collect(keys.data, mean)
        shifted = ascend(log_likelihood, mean, data, learning_rate, prior.prior_multiplier)
        weights = jax.tree.map(
            lambda w, s, m: jnp.where(state.optimizer_state, w, w + (s - m)),
            state.posterior.weights,
            shifted,
            mean,
        )
        weights = jax.vmap(lambda w: ascend(log_likelihood, w, data, learning_rate))(weights)
        return InferenceState(Particles(weights), jnp.ones((), bool))

    return Inference(init, step)
