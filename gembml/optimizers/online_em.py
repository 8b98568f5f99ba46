"""The M-step of EM for a Gaussian prior, and online EM, as an optax transformation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gembml.gaussian import Gaussian


def online_em(
    step_size: float, *, min_variance_ratio: float = 0.25
) -> optax.GradientTransformation:
    """Move the prior's expectation parameters (E theta, E theta^2) towards the posteriors'.

    For gradients g of -L1 averaged over tasks, with d = -sigma^2 g_mean (the mean of m - mu) and
    V = sigma^2 (1 - g_log_std) (the mean of s^2 + (m - mu)^2), a step b gives

        mu'      = mu + b d
        sigma'^2 = (1 - b) sigma^2 + b V - b^2 d^2.

    ``step_size`` 1 is the exact M-step: mu' and sigma'^2 are the moments of the mixture of the
    tasks' posteriors. Under L2 the difference of two such terms need not be a valid variance, so
    sigma'^2 is kept above ``min_variance_ratio`` * sigma^2; under L1 that floor only limits the
    step.

    Raises:
      ValueError: for a step outside (0, 1] or a floor outside (0, 1); at the first update if the
        parameters are not a ``Gaussian``.

    """
    if not 0 < step_size <= 1:
        raise ValueError(f"the step of online EM must lie in (0, 1], not {step_size}.")
    if not 0 < min_variance_ratio < 1:
        raise ValueError(f"min_variance_ratio must lie in (0, 1), not {min_variance_ratio}.")

    def update(updates: Any, state: optax.OptState, params: Any = None):
        if not isinstance(params, Gaussian):
            raise ValueError("online EM needs a Gaussian prior.")
        mean = jax.tree.map(
            lambda g, ls: -step_size * jnp.exp(2 * ls) * g, updates.mean, params.log_std
        )

        def log_std(g: jax.Array, step: jax.Array, ls: jax.Array) -> jax.Array:
            ratio = 1 - step_size * g - (step * jnp.exp(-ls)) ** 2
            return 0.5 * jnp.log(jnp.maximum(ratio, min_variance_ratio))

        return Gaussian(mean, jax.tree.map(log_std, updates.log_std, mean, params.log_std)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
