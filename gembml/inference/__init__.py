"""Ways to get a task's posterior from a prior and data: the paper's subroutine VI."""

from gembml.inference.ensemble import ensemble
from gembml.inference.expectations import ExpectedLogLikelihood, weight_samples
from gembml.inference.laplace import laplace
from gembml.inference.learned_rates import learned_rates
from gembml.inference.loop import infer, infer_differentiably, trajectory
from gembml.inference.point import point
from gembml.inference.svgd import svgd
from gembml.inference.variational import elbo, variational

__all__ = [
    "ExpectedLogLikelihood",
    "elbo",
    "ensemble",
    "infer",
    "infer_differentiably",
    "laplace",
    "learned_rates",
    "point",
    "svgd",
    "trajectory",
    "variational",
    "weight_samples",
]
