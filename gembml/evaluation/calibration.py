"""Calibration of a classifier: whether its confidence is the share of right answers.

The confidence of a prediction is the largest probability. Predictions are put into M bins of equal
width by it; B_m holds the n_m of n predictions with confidence in ((m - 1) / M, m / M], and

    acc(B_m) = share of right answers in B_m,    conf(B_m) = mean confidence in B_m.

Guo, Pleiss, Sun & Weinberger, On Calibration of Modern Neural Networks, ICML 2017 (15 bins), after
Naeini, Cooper & Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI
2015 (10 bins).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Bins(NamedTuple):
    """Sums over the predictions of each bin, ``[bins]``; those of several tasks may be added."""

    count: jax.Array
    """n_m."""
    confidence: jax.Array
    """n_m conf(B_m)."""
    correct: jax.Array
    """n_m acc(B_m)."""


def bin_predictions(probabilities: jax.Array, labels: jax.Array, num_bins: int) -> Bins:
    """Put predictions into bins of equal width.

    Args:
      probabilities: of each class, ``[n, ways]``.
      labels: the true classes, integers ``[n]``.
      num_bins: M, at least 1.

    Raises:
      ValueError: if ``num_bins`` is less than 1.

    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, not {num_bins}.")
    confidence = jnp.max(probabilities, axis=-1)
    correct = (jnp.argmax(probabilities, axis=-1) == labels).astype(confidence.dtype)
    edges = jnp.asarray(np.arange(1, num_bins) / num_bins, confidence.dtype)
    members = jax.nn.one_hot(
        jnp.searchsorted(edges, confidence, side="left"), num_bins, dtype=confidence.dtype
    )
    sums = jnp.stack([jnp.ones_like(confidence), confidence, correct])
    # Not a matrix product: on an accelerator its precision is lower.
    return Bins(*jnp.sum(sums[:, :, None] * members, axis=1))


def expected_calibration_error(bins: Bins) -> jax.Array:
    """ECE = sum_m (n_m / n) |acc(B_m) - conf(B_m)|, equation 3 of Guo et al. 2017."""
    return jnp.sum(_weighted_gaps(bins), axis=-1) / jnp.sum(bins.count, axis=-1)


def expected_calibration_error_ci95(bins: Bins, resamples: int = 1000) -> np.ndarray:
    """1.96 standard deviations of the ECE over tasks, by bootstrap.

    Tasks are drawn anew with replacement, from a fixed seed, and their predictions pooled. It is
    half a 95% interval where the ECE is far from 0. Near 0 it is not: gaps by chance do not cancel
    and raise the ECE itself, for a calibrated classifier of 96% to some 0.002 with 45,000
    predictions and to 0.003 to 0.004 with 11,250.

    Args:
      bins: of each task, ``[tasks, ..., bins]``, at least 2 tasks.
      resamples: how often.

    Returns:
      ``[...]``, in float64.
    """
    count, confidence, correct = (np.asarray(sums, np.float64) for sums in bins)
    tasks = len(count)
    drawn = np.random.default_rng(0).multinomial(tasks, np.full(tasks, 1 / tasks), resamples)
    gaps = np.abs(np.tensordot(drawn, correct - confidence, 1)).sum(axis=-1)
    return 1.96 * (gaps / np.tensordot(drawn, count, 1).sum(axis=-1)).std(axis=0, ddof=1)


def maximum_calibration_error(bins: Bins) -> jax.Array:
    """MCE = max_m |acc(B_m) - conf(B_m)| over bins with n_m > 0, equation 5 of Guo et al. 2017."""
    return jnp.max(_weighted_gaps(bins) / jnp.maximum(bins.count, 1), axis=-1)


def _weighted_gaps(bins: Bins) -> jax.Array:
    """n_m |acc(B_m) - conf(B_m)|, which is 0 for an empty bin."""
    return jnp.abs(bins.correct - bins.confidence)
