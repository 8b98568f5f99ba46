"""Confidence intervals."""

import numpy as np


def ci95(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Half the width of the 95% confidence interval of a mean, by the normal approximation.

    1.96 * std / sqrt(n) with the unbiased standard deviation over ``axis``; the n values (test
    tasks, say) must be independent.
    """
    values = np.asarray(values, dtype=np.float64)
    return 1.96 * values.std(axis=axis, ddof=1) / np.sqrt(values.shape[axis])
