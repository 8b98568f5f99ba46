"""Estimators of E_{theta ~ lambda} log P(D | theta), the term of the ELBO that needs samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Data, Key, Params
from gembml.gaussian import Gaussian, perturb, standard_normal_like
from gembml.options import OptionError

ExpectedLogLikelihood = Callable[[Key, Gaussian, Data], jax.Array]
"""``(key, posterior, data)`` -> an unbiased estimate, differentiable in the posterior.

A network that knows better than sampling its weights brings its own: see
:func:`gembml.models.mlp.local_reparameterization`.
"""


def weight_samples(
    log_likelihood: Callable[[Params, Data], jax.Array],
    *,
    num_samples: int = 2,
    antithetic: bool = True,
) -> ExpectedLogLikelihood:
    """The average over ``num_samples`` reparameterised weights theta = m + s e (Section 3.1).

    With ``antithetic`` the samples come in pairs m + s e, m - s e, which removes the noise of the
    mean's gradient that is linear in e.

    Raises:
      OptionError: for fewer than one sample, or an odd number with ``antithetic``.
    """
    if num_samples < 1:
        raise OptionError(f"num_samples must be at least 1, not {num_samples}.")
    if antithetic and num_samples % 2:
        raise OptionError(f"num_samples must be even with antithetic pairs, not {num_samples}.")

    def expected(key: Key, posterior: Gaussian, data: Data) -> jax.Array:
        if num_samples == 1:  # a batch of one is slower than none
            return log_likelihood(
                perturb(posterior, standard_normal_like(key, posterior.mean)), data
            )
        draws = num_samples // 2 if antithetic else num_samples
        # One batched evaluation of all samples: fewer and larger matrix products.
        keys = jax.random.split(key, draws) if draws > 1 else key[None]
        noise = jax.vmap(lambda k: standard_normal_like(k, posterior.mean))(keys)
        if antithetic:
            noise = jax.tree.map(lambda n: jnp.concatenate([n, -n]), noise)
        params = jax.vmap(perturb, in_axes=(None, 0))(posterior, noise)
        return jnp.mean(jax.vmap(log_likelihood, in_axes=(0, None))(params, data))

    return expected
