"""What a row of the algorithm table builds."""

from collections.abc import Callable
from typing import NamedTuple

from gembml.base import Family, Inference, MetaGradient, Problem
from gembml.config import LearnerConfig


class Parts(NamedTuple):
    """The choices that make an algorithm, besides the meta-optimizer."""

    family: Family
    inference: Inference
    """What adapts at meta-test."""
    meta_gradient: MetaGradient


class Algorithm(NamedTuple):
    """One row of the table."""

    build: Callable[[Problem, LearnerConfig], Parts]
    family: str
    """The posterior's: ``gaussian``, ``delta``, ``particles`` or ``laplace``."""
    estimator: str
    """How the meta-gradient is estimated; ``none``: exactly, without an inner loop."""
    objective: str
    """``L1`` = log P(D^tr u D^val | Theta), ``L2`` = log P(D^val | D^tr, Theta), or a name."""
    reference: str
