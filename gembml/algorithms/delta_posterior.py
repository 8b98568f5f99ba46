"""Rows with a delta posterior: each task's weights are one point."""

from gembml import delta
from gembml.algorithms.parts import Parts
from gembml.base import Inference, Problem
from gembml.builders import inner_optimizer
from gembml.config import LearnerConfig
from gembml.inference import learned_rates, point
from gembml.inference.learned_rates import family as learned_rates_family
from gembml.meta_gradients import backprop, gem, implicit
from gembml.meta_gradients import pretrain as pretrain_gradient


def _point(problem: Problem, config: LearnerConfig, *, later: bool = False, **options) -> Inference:
    optimizer = inner_optimizer(config, later=later)
    return point(
        problem.log_likelihood,
        optimizer,
        divergence=problem.divergence,
        objective=problem.objective,
        **options,
    )


def maml(problem: Problem, config: LearnerConfig) -> Parts:
    """MAML: Finn, Abbeel & Levine 2017, equation (1); Section 4 of the paper."""
    optimizer = inner_optimizer(config, differentiated=True)
    inference = point(problem.log_likelihood, optimizer, objective=problem.objective)
    return Parts(delta.family(), inference, backprop(problem, inference, config.inner_steps))


def fomaml(problem: Problem, config: LearnerConfig) -> Parts:
    """First-order MAML: the inner gradients are constants (Finn et al. 2017, Section 5.2)."""
    inference = _point(problem, config, first_order=True)
    return Parts(delta.family(), inference, backprop(problem, inference, config.inner_steps))


def reptile(problem: Problem, config: LearnerConfig) -> Parts:
    """Reptile: Nichol, Achiam & Schulman 2018, Algorithm 2; GEM-BML's delta case, Section 4."""
    family, inference = delta.family(), _point(problem, config)
    estimator = gem(
        problem,
        family,
        inference,
        config.inner_steps,
        objective="L1",
        query_steps=config.query_steps or None,
        query_inference=_point(problem, config, later=True),
    )
    return Parts(family, inference, estimator)


def imaml(problem: Problem, config: LearnerConfig) -> Parts:
    """iMAML: Rajeswaran, Finn, Kakade & Levine 2019, Algorithms 1 and 2."""
    inference = _point(problem, config, proximal_weight=config.proximal_weight)
    estimator = implicit(
        problem,
        inference,
        config.inner_steps,
        proximal_weight=config.proximal_weight,
        cg_steps=config.cg_steps,
        curvature=config.curvature,
    )
    return Parts(delta.family(), inference, estimator)


def pretrain(problem: Problem, config: LearnerConfig) -> Parts:
    """Pre-training: L1 with a delta prior, Section 4 of the paper."""
    return Parts(delta.family(), _point(problem, config), pretrain_gradient(problem))


def meta_sgd(problem: Problem, config: LearnerConfig) -> Parts:
    """Meta-SGD: Li, Zhou, Chen & Li 2017, Algorithm 1, with any number of inner steps."""
    inference = learned_rates(problem.log_likelihood, config.inner_learning_rate)
    estimator = backprop(problem, inference, config.inner_steps)
    return Parts(learned_rates_family(), inference, estimator)
