"""Error and calibration of a predictive distribution in regression.

The predictive of one task is the mixture (1/S) sum_s N(y | f_s(x), noise_std^2) over S sets of
weights drawn from the task's posterior; a delta posterior gives one component.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm


class RegressionMetrics(NamedTuple):
    """Averages over the held-out points."""

    mse: jax.Array
    """(mean of the mixture - clean target)^2."""
    nll: jax.Array
    """-log density of the noisy target under the mixture, in nats per point."""
    coverage90: jax.Array
    """Share of noisy targets inside the central 90% interval of the mixture."""


def regression_metrics(
    predictions: jax.Array, targets: jax.Array, clean: jax.Array, noise_std: jax.Array | float
) -> RegressionMetrics:
    """Metrics of one task.

    Args:
      predictions: network outputs, ``[samples, points, 1]``.
      targets: noisy observations, ``[points, 1]``.
      clean: noise-free targets, ``[points, 1]``.
      noise_std: standard deviation of each component, in units of the targets.

    Returns:
      Scalars. A target y is inside the central 90% interval if the mixture's distribution
      function at y lies in [0.05, 0.95]; this is exact, without a Gaussian approximation.
    """
    mse = jnp.mean((jnp.mean(predictions, axis=0) - clean) ** 2)
    log_density = jax.nn.logsumexp(norm.logpdf(targets, predictions, noise_std), axis=0) - jnp.log(
        predictions.shape[0]
    )
    cdf = jnp.mean(norm.cdf(targets, predictions, noise_std), axis=0)
    return RegressionMetrics(mse, -jnp.mean(log_density), jnp.mean((cdf >= 0.05) & (cdf <= 0.95)))
