"""The prior of the prior: log P(Theta), which counts once beside the evidence of all tasks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.gaussian import Gaussian


def normal_gamma_log_hyperprior(
    weight: float | jax.Array, *, shape: float = 1.0, rate: float = 0.01
) -> Callable[[Gaussian], jax.Array]:
    """``weight`` * log P(Theta): N(0, 1) on each mean, Gamma(shape, rate) on each precision.

    As in Ravi & Beatson 2019. P(Theta) counts once for the whole meta-training set, so its weight
    beside one task's evidence is 1 / (number of tasks). Up to a constant,

        weight * sum_i [-mu_i^2 / 2 + (shape - 1) log tau_i - rate tau_i],  tau = sigma^-2,

    where a precision that weights share counts once, and points have none.
    """

    def log_hyperprior(prior: Gaussian) -> jax.Array:
        def leaf(mean: jax.Array, log_std: jax.Array | None) -> jax.Array:
            normal = -0.5 * jnp.sum(mean**2)
            if log_std is None:
                return normal
            log_precision = -2 * log_std
            gamma = (shape - 1) * log_precision - rate * jnp.exp(log_precision)
            return normal + jnp.sum(gamma)

        terms = jax.tree.map(leaf, prior.mean, prior.log_std)
        return weight * sum(jax.tree.leaves(terms), start=jnp.zeros(()))

    return log_hyperprior
