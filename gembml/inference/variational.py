"""Mean-field variational inference with any optax optimizer (Section 3.1, subroutine VI)."""

import jax
import optax

from gembml.base import Collect, Data, Inference, InferenceState, Key, StepKeys
from gembml.gaussian import Gaussian, kl_divergence
from gembml.inference.expectations import ExpectedLogLikelihood
from gembml.options import OptionError, concrete


def elbo(
    key: Key,
    posterior: Gaussian,
    prior: Gaussian,
    data: Data,
    *,
    expected_log_likelihood: ExpectedLogLikelihood,
    kl_weight: float | jax.Array,
) -> jax.Array:
    """An estimate of ELBO(lambda; Theta, D), below equation (2) of the paper:

        E_{theta ~ lambda} log P(D | theta) - kl_weight * KL(lambda || Theta).

    The expectation is sampled, the KL is exact. A ``kl_weight`` below 1 is a cold posterior.
    """
    expected = expected_log_likelihood(key, posterior, data)
    return expected - kl_weight * kl_divergence(posterior, prior)


def variational(
    expected_log_likelihood: ExpectedLogLikelihood,
    optimizer: optax.GradientTransformation,
    *,
    kl_weight: float | jax.Array = 1.0,
) -> Inference:
    """Gradient steps of ``optimizer`` on the negative ELBO over (mean, log_std).

    The optimizer sees a :class:`~gembml.gaussian.Gaussian` of gradients and the current posterior
    as its parameters; :func:`gembml.optimizers.natural_gradient` is made for that, any other
    optax transformation works as well. Its state starts afresh at every call of the inner loop.

    Raises:
      OptionError: for a negative weight.
    """
    if concrete(kl_weight) and kl_weight < 0:
        raise OptionError(f"kl_weight must not be negative, not {kl_weight}.")

    def init(key: Key, prior: Gaussian) -> InferenceState:
        del key
        return InferenceState(prior, optimizer.init(prior))

    def step(
        keys: StepKeys, state: InferenceState, prior: Gaussian, collect: Collect
    ) -> InferenceState:
        data = collect(keys.data, jax.lax.stop_gradient(state.posterior.mean))

        def negative_elbo(posterior: Gaussian) -> jax.Array:
            return -elbo(
                keys.noise,
                posterior,
                prior,
                data,
                expected_log_likelihood=expected_log_likelihood,
                kl_weight=kl_weight,
            )

        gradient = jax.grad(negative_elbo)(state.posterior)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.posterior
        )
        return InferenceState(optax.apply_updates(state.posterior, updates), optimizer_state)

    return Inference(init, step)
