"""Ways to get a task's posterior from a prior and data: the paper's subroutine VI."""

from gembml.inference.expectations import ExpectedLogLikelihood, weight_samples
from gembml.inference.loop import infer, trajectory
from gembml.inference.point import point
from gembml.inference.variational import elbo, variational

__all__ = [
    "ExpectedLogLikelihood",
    "elbo",
    "infer",
    "point",
    "trajectory",
    "variational",
    "weight_samples",
]
