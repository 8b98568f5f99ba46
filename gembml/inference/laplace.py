"""The Laplace approximation with a diagonal Fisher matrix: Grant et al. 2018 (LLAMA)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Collect, Data, Inference, InferenceState, Key, Params, StepKeys
from gembml.delta import Delta
from gembml.gaussian import Gaussian, around


def diagonal_fisher(
    whitened_outputs: Callable[[Params, Data], jax.Array], params: Params, data: Data
) -> Params:
    """diag(J^T J), J the Jacobian of ``whitened_outputs``: exact, one backward pass per output."""
    jacobian = jax.jacrev(lambda p: whitened_outputs(p, data).reshape(-1))(params)
    return jax.tree.map(lambda rows: jnp.sum(rows**2, axis=0), jacobian)


def laplace(
    point: Inference,
    whitened_outputs: Callable[[Params, Data], jax.Array],
    *,
    prior_log_std: float | jax.Array,
) -> Inference:
    """N(theta_hat, (F + tau I)^-1): ``point``'s path, with the curvature at each point of it.

    F is the diagonal of the Fisher matrix on the data and tau = exp(-2 ``prior_log_std``) the
    precision of the prior N(mu, 1 / tau), which is fixed as in Grant et al. 2018.
    """

    def init(key: Key, prior: Delta) -> InferenceState:
        state = point.init(key, prior)
        return InferenceState(around(prior.mean, prior_log_std), state.optimizer_state)

    def step(
        keys: StepKeys, state: InferenceState, prior: Delta, collect: Collect
    ) -> InferenceState:
        before = InferenceState(Delta(state.posterior.mean), state.optimizer_state)
        after = point.step(keys, before, prior, collect)
        params = after.posterior.mean
        fisher = diagonal_fisher(whitened_outputs, params, collect(keys.data, params))
        log_std = jax.tree.map(lambda f: -0.5 * jnp.log(f + jnp.exp(-2 * prior_log_std)), fisher)
        return InferenceState(Gaussian(params, log_std), after.optimizer_state)

    return Inference(init, step)
