"""The learning rates that the search tries, by algorithm."""

from gembml import ALGORITHMS

# Inner rates by what a step is: on the mean squared error; on the summed log-likelihood, which at
# noise std 0.3 and K = 10 is 55 times steeper; on the Stein direction, an average over particles;
# on the natural gradient, whose unit is the posterior's variance.
_MEAN = (1e-3, 3e-3, 1e-2)
_SUM = (2e-5, 6e-5, 2e-4)
_STEIN = (2e-4, 6e-4, 2e-3)
_NATURAL = (0.03, 0.1, 0.3)
_META = (3e-4, 1e-3, 3e-3)


def grid(algorithm: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The inner and the meta learning rates that are tried."""
    if algorithm == "reptile":  # its meta-step is SGD
        return _MEAN, (0.1, 0.3, 1.0)
    if ALGORITHMS[algorithm].family == "gaussian":
        return _NATURAL, _META
    inner = {"bmaml": _STEIN, "platipus": _SUM, "llama": _SUM}.get(algorithm, _MEAN)
    return inner, _META
