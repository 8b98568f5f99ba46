"""Mean-field variational inference with any optax optimizer (Section 3.1, subroutine VI)."""

from collections.abc import Callable

import jax
import optax

from gembml.base import Collect, Data, Inference, InferenceState, Key, StepKeys
from gembml.gaussian import Gaussian, kl_divergence
from gembml.inference.descent import Divergence, descend
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
    divergence: Divergence | None = None,
    objective: Callable[[Data], jax.Array] | None = None,
) -> Inference:
    """Gradient steps of ``optimizer`` on the negative ELBO over (mean, log_std).

    The optimizer sees a :class:`~gembml.gaussian.Gaussian` of gradients and the current posterior
    as its parameters; :func:`gembml.optimizers.natural_gradient` is made for that, any other
    optax transformation works as well. Its state starts afresh at every call of the inner loop.

    The optimizer is also given the negative ELBO, ``value``, for Polyak's step size. With
    ``objective`` (:class:`~gembml.base.Problem`'s), a constant like the data, that replaces the
    expected log-likelihood there. And the negative ELBO of a candidate with this
    step's noise, ``value_fn``, and, with ``divergence`` (its, too), ``divergence_fn``, how far
    a candidate's mean is from the present one: for :func:`gembml.optimizers.trust_region` by
    :func:`gembml.optimizers.on_mean`. As for :func:`~gembml.inference.point`, rollouts then ask for
    a likelihood weighed by importance.

    Raises:
      OptionError: for a negative weight.
    """
    if concrete(kl_weight) and kl_weight < 0:
        raise OptionError(f"kl_weight must not be negative, not {kl_weight}.")

    accepting = optax.with_extra_args_support(optimizer)

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

        value, gradient = jax.value_and_grad(negative_elbo)(state.posterior)
        if objective is not None:
            value = kl_weight * kl_divergence(state.posterior, prior) - objective(data)
        return descend(accepting, state, gradient, value, negative_elbo, divergence, data)

    return Inference(init, step)
