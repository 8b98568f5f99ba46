"""Gradient-EM Bayesian meta-learning in JAX."""

from gembml.algorithms import ALGORITHMS, Algorithm, make_learner
from gembml.base import Family, Inference, LearnerState, MetaLearner, Problem
from gembml.config import LearnerConfig
from gembml.delta import Delta
from gembml.gaussian import Gaussian, gem_gradient
from gembml.learner import meta_learner, meta_steps
from gembml.options import OptionError
from gembml.problem import ravel, supervised

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Delta",
    "Family",
    "Gaussian",
    "Inference",
    "LearnerConfig",
    "LearnerState",
    "MetaLearner",
    "OptionError",
    "Problem",
    "gem_gradient",
    "make_learner",
    "meta_learner",
    "meta_steps",
    "ravel",
    "supervised",
]
