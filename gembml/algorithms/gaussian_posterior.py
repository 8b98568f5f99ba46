"""Rows with a Gaussian posterior: the cells of the paper's Table 1, and its third column."""

import optax

from gembml import gaussian
from gembml.algorithms.parts import Parts
from gembml.base import Family, Inference, Problem
from gembml.builders import expected_log_likelihood, inner_optimizer
from gembml.config import LearnerConfig
from gembml.inference import variational
from gembml.meta_gradients import chaser, elbo_gradient, gem, normal_gamma_log_hyperprior
from gembml.optimizers import on_mean, scale_log_std


def _family(config: LearnerConfig) -> Family:
    return gaussian.family(
        config.log_std_init,
        relative=config.log_std_relative,
        shared=config.variance_per == "array",
        random=lambda name: config.random_weights == "all" or "head" in name.split("/"),
    )


def _inference(
    problem: Problem, config: LearnerConfig, *, differentiated: bool, later: bool = False
) -> Inference:
    optimizer = inner_optimizer(config, differentiated=differentiated, later=later)
    if config.inner_optimizer == "trpo":
        optimizer = on_mean(optimizer)
    elif config.inner_optimizer != "natural_gradient":  # which has it built in
        optimizer = optax.chain(optimizer, scale_log_std(config.log_std_multiplier))
    return variational(
        expected_log_likelihood(problem, config),
        optimizer,
        kl_weight=config.kl_weight,
        divergence=problem.divergence,
    )


def _query_steps(config: LearnerConfig) -> int:
    return config.query_steps or config.inner_steps


def _gem(problem: Problem, config: LearnerConfig, objective: str) -> Parts:
    family, inference = _family(config), _inference(problem, config, differentiated=False)
    estimator = gem(
        problem,
        family,
        inference,
        config.inner_steps,
        query_steps=_query_steps(config),
        query_inference=_inference(problem, config, differentiated=False, later=True),
        objective=objective,
    )
    return Parts(family, inference, estimator)


def gem_bml(problem: Problem, config: LearnerConfig) -> Parts:
    """GEM-BML: g(lambda_all), Section 3.2, Subroutine Meta-Gradient GEM-BML, Theorem 1."""
    return _gem(problem, config, "L1")


def gem_bml_plus(problem: Problem, config: LearnerConfig) -> Parts:
    """GEM-BML+: g(lambda_all) - g(lambda_tr), Section 3.2, appendix A.4 and equation (21)."""
    return _gem(problem, config, "L2")


def _elbo(problem: Problem, config: LearnerConfig, objective: str, **options) -> Parts:
    inference = _inference(problem, config, differentiated=True)
    estimator = elbo_gradient(
        problem,
        inference,
        expected_log_likelihood(problem, config),
        config.inner_steps,
        query_steps=_query_steps(config),
        query_inference=_inference(problem, config, differentiated=True, later=True),
        objective=objective,
        kl_weight=config.kl_weight,
        **options,
    )
    return Parts(_family(config), inference, estimator)


def amortized_bml(problem: Problem, config: LearnerConfig) -> Parts:
    """Amortized BML: equation (4) for L1, appendix B.4; Ravi & Beatson 2019.

    Theirs bounds the evidence of all data by the support's posterior, and has a hyperprior;
    ``config.amortized_posterior=all`` is the cell of Table 1.
    """
    objective = {"support": "support", "all": "L1"}[config.amortized_posterior]
    hyperprior = normal_gamma_log_hyperprior(config.hyperprior_weight)
    return _elbo(problem, config, objective, log_hyperprior=hyperprior)


def pmaml(problem: Problem, config: LearnerConfig) -> Parts:
    """PMAML: equation (4) for L2, grad [E_{lambda_all}(D^val) - KL(lambda_all || lambda_tr)]."""
    return _elbo(problem, config, "L2")


def elbo_difference(problem: Problem, config: LearnerConfig) -> Parts:
    """Section 4's further column, L(D^tr u D^val) - L(D^tr), by the ELBO gradient."""
    return _elbo(problem, config, "L2_difference")


def kl_chaser(problem: Problem, config: LearnerConfig) -> Parts:
    """KL-chaser: -grad KL(sg(lambda_all) || lambda_tr(Theta)), Table 1 and appendix B.4."""
    inference = _inference(problem, config, differentiated=True)
    estimator = chaser(
        problem,
        inference,
        config.inner_steps,
        leader=_inference(problem, config, differentiated=True, later=True),
        leader_steps=_query_steps(config),
        leader_data=problem.query,
        distance=gaussian.kl_divergence,
    )
    return Parts(_family(config), inference, estimator)
