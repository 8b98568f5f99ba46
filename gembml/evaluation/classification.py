"""Error and calibration of a predictive distribution in classification.

The predictive of one task is the average p(y | x) = (1/S) sum_s p(y | x, theta_s) over S sets of
weights drawn from the task's posterior; a delta posterior gives one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.evaluation.calibration import Bins, bin_predictions


class ClassificationMetrics(NamedTuple):
    """Averages over the queries of one task, and its sums in bins of confidence."""

    accuracy: jax.Array
    """Share of queries whose most probable class is the true one; none where it is not a number."""
    nll: jax.Array
    """-log p(true class | x), in nats per query."""
    bins15: Bins
    """15 bins, as Guo et al. 2017."""
    bins10: Bins
    """10 bins, as Naeini et al. 2015."""


def classification_metrics(log_probs: jax.Array, labels: jax.Array) -> ClassificationMetrics:
    """Metrics of one task.

    Args:
      log_probs: normalised log-probabilities under each set of weights, ``[samples, n, ways]``.
      labels: the true classes, integers ``[n]``.

    """
    log_predictive = jax.nn.logsumexp(log_probs, axis=0) - jnp.log(log_probs.shape[0])
    chosen = jnp.take_along_axis(log_predictive, labels[:, None], axis=-1)
    probabilities = jnp.exp(log_predictive)
    return ClassificationMetrics(
        jnp.mean((jnp.argmax(log_predictive, axis=-1) == labels) & ~jnp.isnan(chosen[:, 0])),
        -jnp.mean(chosen),
        bin_predictions(probabilities, labels, 15),
        bin_predictions(probabilities, labels, 10),
    )
