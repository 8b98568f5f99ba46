"""Independent copies of a point inference, one for each particle."""

import jax

from gembml.base import Collect, Inference, InferenceState, Key, StepKeys
from gembml.delta import Delta
from gembml.particles import Particles


def ensemble(point: Inference) -> Inference:
    """``point``, for every particle on its own: what EMAML does where BMAML uses SVGD."""

    def init(key: Key, prior: Particles) -> InferenceState:
        state = jax.vmap(lambda weights: point.init(key, Delta(weights)))(prior.weights)
        return InferenceState(Particles(state.posterior.mean), state.optimizer_state)

    def step(
        keys: StepKeys, state: InferenceState, prior: Particles, collect: Collect
    ) -> InferenceState:
        def of_particle(weights, optimizer_state, prior_weights) -> InferenceState:
            before = InferenceState(Delta(weights), optimizer_state)
            return point.step(keys, before, Delta(prior_weights), collect)

        after = jax.vmap(of_particle)(state.posterior.weights, state.optimizer_state, prior.weights)
        return InferenceState(Particles(after.posterior.mean), after.optimizer_state)

    return Inference(init, step)
