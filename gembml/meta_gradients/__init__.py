"""Estimators of the meta-gradient, one a file: the paper's subroutine Meta-Gradient."""

from gembml.meta_gradients.backprop import backprop
from gembml.meta_gradients.chaser import chaser
from gembml.meta_gradients.clipped import clipped
from gembml.meta_gradients.elbo import elbo_gradient
from gembml.meta_gradients.ensemble import ensemble
from gembml.meta_gradients.gem import gem
from gembml.meta_gradients.hyperprior import normal_gamma_log_hyperprior
from gembml.meta_gradients.implicit import implicit
from gembml.meta_gradients.laplace import laplace_evidence
from gembml.meta_gradients.pretrain import pretrain

__all__ = [
    "backprop",
    "chaser",
    "clipped",
    "elbo_gradient",
    "ensemble",
    "gem",
    "implicit",
    "laplace_evidence",
    "normal_gamma_log_hyperprior",
    "pretrain",
]
