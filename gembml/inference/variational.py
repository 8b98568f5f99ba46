"""Mean-field variational inference with any optax optimizer (Section 3.1, subroutine VI)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gembml.base import Collect, Data, Inference, InferenceState, Key, Params, StepKeys
from gembml.gaussian import Gaussian, kl_divergence, perturb, standard_normal_like
from gembml.options import OptionError


def elbo(
    key: Key,
    posterior: Gaussian,
    prior: Gaussian,
    data: Data,
    *,
    log_likelihood: Callable[[Params, Data], jax.Array],
    num_samples: int,
    antithetic: bool,
    kl_weight: float,
) -> jax.Array:
    """A Monte Carlo estimate of ELBO(lambda; Theta, D), below equation (2) of the paper:

        E_{theta ~ lambda} log P(D | theta) - kl_weight * KL(lambda || Theta).

    The expectation is the average over reparameterised samples, the KL is exact. With
    ``antithetic`` the samples come in pairs m + s e, m - s e (``num_samples`` is then even), which
    removes the noise of the mean's gradient that is linear in e.
    """
    draws = num_samples // 2 if antithetic else num_samples
    keys = jax.random.split(key, draws) if draws > 1 else [key]
    noises = [standard_normal_like(k, posterior.mean) for k in keys]
    if antithetic:
        noises += [jax.tree.map(jnp.negative, noise) for noise in noises]
    # One batched evaluation of all samples: fewer and larger matrix products.
    noise = jax.tree.map(lambda *leaves: jnp.stack(leaves), *noises)
    params = jax.vmap(perturb, in_axes=(None, 0))(posterior, noise)
    expected = jnp.mean(jax.vmap(log_likelihood, in_axes=(0, None))(params, data))
    return expected - kl_weight * kl_divergence(posterior, prior)


def variational(
    log_likelihood: Callable[[Params, Data], jax.Array],
    optimizer: optax.GradientTransformation,
    *,
    num_samples: int = 2,
    antithetic: bool = True,
    kl_weight: float = 1.0,
) -> Inference:
    """Gradient steps of ``optimizer`` on the negative ELBO over (mean, log_std).

    The optimizer sees a :class:`~gembml.gaussian.Gaussian` of gradients and the current posterior
    as its parameters; :func:`gembml.optimizers.natural_gradient` is made for that, any other
    optax transformation works as well. Its state starts afresh at every call of the inner loop.

    Raises:
      OptionError: for fewer than one sample, an odd number with ``antithetic``, a negative weight.
    """
    if num_samples < 1:
        raise OptionError(f"num_samples must be at least 1, not {num_samples}.")
    if antithetic and num_samples % 2:
        raise OptionError(f"num_samples must be even with antithetic pairs, not {num_samples}.")
    if kl_weight < 0:
        raise OptionError(f"kl_weight must not be negative, not {kl_weight}.")

    def init(prior: Gaussian) -> InferenceState:
        return InferenceState(prior, optimizer.init(prior))

    def step(
        keys: StepKeys, state: InferenceState, prior: Gaussian, collect: Collect
    ) -> InferenceState:
        data = collect(keys.data, state.posterior.mean)

        def negative_elbo(posterior: Gaussian) -> jax.Array:
            return -elbo(
                keys.noise,
                posterior,
                prior,
                data,
                log_likelihood=log_likelihood,
                num_samples=num_samples,
                antithetic=antithetic,
                kl_weight=kl_weight,
            )

        gradient = jax.grad(negative_elbo)(state.posterior)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.posterior
        )
        return InferenceState(optax.apply_updates(state.posterior, updates), optimizer_state)

    return Inference(init, step)
