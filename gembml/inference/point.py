"""The delta posterior: gradient steps on the log-likelihood (Section 3.1, "a special case")."""

from collections.abc import Callable

import jax
import optax

from gembml.base import Collect, Data, Inference, InferenceState, Params, StepKeys
from gembml.delta import Delta


def point(
    log_likelihood: Callable[[Params, Data], jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    first_order: bool = False,
) -> Inference:
    """Steps of ``optimizer`` on -log P(D | theta), with the prior as the starting point only.

    This is the inner update of MAML and Reptile: the prior's pull |theta - mu|^2 is replaced by
    starting at mu and stopping early. With ``first_order`` the gradient is a constant to whoever
    differentiates through the loop, which drops the Hessian: MAML becomes first-order MAML.
    """

    def init(prior: Delta) -> InferenceState:
        return InferenceState(prior, optimizer.init(prior))

    def step(
        keys: StepKeys, state: InferenceState, prior: Delta, collect: Collect
    ) -> InferenceState:
        del prior
        data = collect(keys.data, jax.lax.stop_gradient(state.posterior.mean))
        gradient = jax.grad(lambda posterior: -log_likelihood(posterior.mean, data))(
            state.posterior
        )
        if first_order:
            gradient = jax.lax.stop_gradient(gradient)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.posterior
        )
        return InferenceState(optax.apply_updates(state.posterior, updates), optimizer_state)

    return Inference(init, step)
