"""Estimators of the meta-gradient, one a file: the paper's subroutine Meta-Gradient."""

from gembml.meta_gradients.backprop import backprop
from gembml.meta_gradients.gem import gem

__all__ = ["backprop", "gem"]
