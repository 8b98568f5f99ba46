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


class Estimator(NamedTuple):
    """How a meta-gradient is estimated."""

    name: str
    differentiates: bool
    """Whether through the inner loop, whose optimizer then must have a derivative and whose steps
    are all kept in memory."""


class Algorithm(NamedTuple):
    """One row of the table."""

    build: Callable[[Problem, LearnerConfig], Parts]
    family: str
    """The posterior's: ``gaussian``, ``delta``, ``particles`` or ``laplace``."""
    estimator: Estimator
    objective: str
    """``L1`` = log P(D^tr u D^val | Theta), ``L2`` = log P(D^val | D^tr, Theta), or a name."""
    reference: str
    query_loop: bool = False
    """Whether an inner loop on the query set follows that on the support set (that of Amortized BML
    with ``config.amortized_posterior=all`` only)."""
