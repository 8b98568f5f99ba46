"""The delta posterior: gradient steps on the log-likelihood (Section 3.1, "a special case")."""

from collections.abc import Callable

import jax
import optax

from gembml.base import Collect, Data, Inference, InferenceState, Key, Params, StepKeys
from gembml.delta import Delta, half_squared_distance
from gembml.inference.descent import Divergence, descend


def point(
    log_likelihood: Callable[[Params, Data], jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    first_order: bool = False,
    proximal_weight: float | jax.Array = 0.0,
    divergence: Divergence | None = None,
    objective: Callable[[Data], jax.Array] | None = None,
) -> Inference:
    """Steps of ``optimizer`` on -log P(D | theta) + ``proximal_weight`` / 2 |theta - mu|^2.

    With weight 0 this is the inner update of MAML and Reptile: the prior's pull is replaced by
    starting at mu and stopping early. With a weight it is iMAML's (Rajeswaran et al. 2019, Section
    2.2). With ``first_order`` the gradient is a constant to whoever differentiates through the
    loop, which drops the Hessian: MAML becomes first-order MAML.

    The optimizer is also given the loss, ``value``, for Polyak's step size. With ``objective``
    (:class:`~gembml.base.Problem`'s) that replaces the log-likelihood there; like the data, of
    which it is, it is a constant to whoever differentiates through the step. And the loss of a
    candidate, ``value_fn``, and, with ``divergence`` (its, too), ``divergence_fn``, how far a
    candidate is from the present weights on the same data: :func:`gembml.optimizers.trust_region`
    needs both. Data that are rollouts then ask for a likelihood weighed by importance, whose value
    at a candidate estimates its return (the surrogates ``ratio`` and ``dice``, not ``log_prob``).
    """
    accepting = optax.with_extra_args_support(optimizer)

    def init(key: Key, prior: Delta) -> InferenceState:
        del key
        return InferenceState(prior, optimizer.init(prior))

    def step(
        keys: StepKeys, state: InferenceState, prior: Delta, collect: Collect
    ) -> InferenceState:
        data = collect(keys.data, jax.lax.stop_gradient(state.posterior.mean))

        def plus_proximal(fit: jax.Array, posterior: Delta) -> jax.Array:
            if isinstance(proximal_weight, float) and proximal_weight == 0.0:
                return fit
            return fit + proximal_weight * half_squared_distance(posterior.mean, prior.mean)

        def loss(posterior: Delta) -> jax.Array:
            return plus_proximal(-log_likelihood(posterior.mean, data), posterior)

        value, gradient = jax.value_and_grad(loss)(state.posterior)
        if objective is not None:
            value = plus_proximal(-objective(data), state.posterior)
        if first_order:
            value, gradient = jax.lax.stop_gradient((value, gradient))
        return descend(accepting, state, gradient, value, loss, divergence, data)

    return Inference(init, step)
