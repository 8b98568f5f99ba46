"""Confidence intervals."""

import numpy as np
from scipy.special import bdtr


def ci95(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Half the width of the 95% confidence interval of a mean, by the normal approximation.

    1.96 * std / sqrt(n) with the unbiased standard deviation over ``axis``; the n values (test
    tasks, say) must be independent.
    """
    values = np.asarray(values, dtype=np.float64)
    return 1.96 * values.std(axis=axis, ddof=1) / np.sqrt(values.shape[axis])


def median_ci95(values: np.ndarray) -> tuple[float, float]:
    """The 95% confidence interval of a median, by order statistics of at least 6 ``values [n]``.

    For any distribution: with B ~ Binomial(n, 1/2) the interval is [x_(l), x_(n + 1 - l)], l the
    largest rank with P(B < l) <= 0.025. The values must be independent; they may be infinite.
    """
    values = np.sort(np.asarray(values, dtype=np.float64))
    n = len(values)
    rank = int(np.searchsorted(bdtr(np.arange(n), n, 0.5), 0.025, side="right"))
    if rank == 0:
        raise ValueError(f"a 95% interval of a median needs at least 6 values, not {n}.")
    return float(values[rank - 1]), float(values[n - rank])
