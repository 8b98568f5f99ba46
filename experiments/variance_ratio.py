"""The asymptotic variance of the L2 estimator, by simulation and in closed form: appendix A.2.

The model has one mean per task: theta_i ~ N(mu, sigma^2), y_ij ~ N(theta_i, 1), j = 1..m, of which
the first k are D^tr. With s_j the score of log P(y_i1, ..., y_ij | Theta) and I_j its variance, the
score of L2 = L(D^tr u D^val) - L(D^tr) is s_m - s_k. Since E[s_m | D^tr] = s_k (scores of growing
data are a martingale), its variance is S = I_m - I_k, and so is -R: the predictive is a
likelihood too, and Bartlett's identity holds for it. Hence in (6) of the appendix

    R^-1 S R^-1 = (I_m - I_k)^-1.                                                          (*)

The appendix's (9), m / (m - k) I_m^-1, is (*) with I_k = (k / m) I_m: the information of a task's
data proportional to their number. It is not in a hierarchical model, where data of one task are
dependent given Theta. Here the mean of j data is N(mu, V_j) with V_j = sigma^2 + 1 / j, and the
rest of the data does not depend on Theta: I_j = 1 / V_j for mu and 1 / (2 V_j^2) for sigma^2, with
no information shared. The ratio of L2's variance to L1's, I_m / (I_m - I_k), is so

    mu:       m / (m - k) * (1 + k sigma^2),
    sigma^2:  1 / (1 - (V_m / V_k)^2),    which tends to m^2 / (m^2 - k^2) as sigma -> 0.

(9) therefore holds for mu in the limit of noise-dominated data (k sigma^2 << 1, in units of the
noise's variance), and is too small by 1 + k sigma^2 otherwise. For sigma^2 it is too large by
(m + k) / m in that limit and too small when sigma is large.
"""

from typing import NamedTuple

import numpy as np

PARAMETERS = ("mean", "variance")
_BLOCK = 100  # replicates that are simulated together
_ITERATIONS = 200


def printed_ratio(m: int, k: int) -> float:
    """The ratio m / (m - k), the appendix's equation (9)."""
    return m / (m - k)


def exact_ratio(parameter: str, m: int, k: int, variance: float) -> float:
    """I_m / (I_m - I_k) with ``variance`` the prior's sigma^2, in units of the noise's variance."""
    information = (variance + 1 / k) / (variance + 1 / m)  # I_m / I_k of the mean
    if parameter == "variance":
        information **= 2
    return information / (information - 1)


class Moments(NamedTuple):
    """First and second moment over tasks of the means of their first j data; ``[repeats]``."""

    first: np.ndarray
    second: np.ndarray
    number: int
    """j"""


def simulate(
    random: np.random.Generator,
    tasks: int,
    repeats: int,
    m: int,
    splits: list[int],
    variance: float,
) -> dict[int, Moments]:
    """Moments by j, for j = m and all ``splits``, with mu = 0. All come from the same data."""
    numbers = sorted([*splits, m])
    first, second = np.empty((2, len(numbers), repeats))
    for start in range(0, repeats, _BLOCK):
        block = slice(start, min(start + _BLOCK, repeats))
        size = (block.stop - start, tasks)
        theta = np.sqrt(variance) * random.standard_normal(size)
        noise, done = np.zeros(size), 0
        for index, number in enumerate(numbers):
            # The sum of the next data's noise: single data do not matter to the estimators.
            noise += np.sqrt(number - done) * random.standard_normal(size)
            done = number
            means = theta + noise / number
            first[index, block], second[index, block] = means.mean(axis=1), (means**2).mean(axis=1)
    return {j: Moments(first[i], second[i], j) for i, j in enumerate(numbers)}


class Estimates(NamedTuple):
    """Maximisers over (mu, sigma^2) jointly; all ``[repeats]``."""

    mean: np.ndarray
    variance: np.ndarray
    """May be negative down to -1 / m, where the means' variance V_m would vanish."""
    converged: np.ndarray


def maximise_l1(everything: Moments) -> Estimates:
    """Of sum_i log N(mean_i | mu, sigma^2 + 1 / m): in closed form."""
    variance = everything.second - everything.first**2 - 1 / everything.number
    return Estimates(everything.first, variance, np.full(variance.shape, True))


def maximise_l2(everything: Moments, support: Moments) -> Estimates:
    """Of sum_i log N(mean_m | mu, V_m) - log N(mean_k | mu, V_k), by Fisher scoring from L1's.

    mu is in closed form given sigma^2, for which a step is score / (I_m - I_k).
    """
    m, k = everything.number, support.number

    def profile(variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        all_precision, precision = 1 / (variance + 1 / m), 1 / (variance + 1 / k)
        mean = (all_precision * everything.first - precision * support.first) / (
            all_precision - precision
        )

        def score(moments: Moments, precision: np.ndarray) -> np.ndarray:
            residual = moments.second - 2 * mean * moments.first + mean**2
            return 0.5 * precision * (precision * residual - 1)

        information = 0.5 * (all_precision**2 - precision**2)
        return mean, score(everything, all_precision) - score(support, precision), information

    start = maximise_l1(everything).variance
    variance = start
    for _ in range(_ITERATIONS):
        _, score, information = profile(variance)
        # V_m stays positive: a step takes away half of it at most.
        variance = np.maximum(variance + score / information, 0.5 * (variance - 1 / m))
    mean, score, information = profile(variance)
    converged = np.abs(score / information) < 1e-8 * (variance + 1 / m)
    # With few tasks L2 can grow for ever with sigma.
    converged &= variance + 1 / m < 1e3 * (start + 1 / m)
    return Estimates(mean, variance, converged)


class Ratio(NamedTuple):
    """Variance of the L2 estimator over that of the L1 estimator, with its 95% interval."""

    ratio: float
    low: float
    high: float


def variance_ratio(l1: np.ndarray, l2: np.ndarray) -> Ratio:
    """Of paired estimates ``[repeats]`` with correlation r, nearly normal.

    The log of the ratio of their sample variances has the standard error
    2 ((1 - r^2) / (repeats - 1))^1/2.
    """
    ratio = float(l2.var(ddof=1) / l1.var(ddof=1))
    correlation = float(np.corrcoef(l1, l2)[0, 1])
    spread = np.exp(1.96 * 2 * np.sqrt((1 - correlation**2) / (len(l1) - 1)))
    return Ratio(ratio, ratio / spread, ratio * spread)
