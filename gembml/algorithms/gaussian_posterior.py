"""Rows with a Gaussian posterior: the cells of the paper's Table 1, and its third column."""

from gembml import gaussian
from gembml.algorithms.parts import Parts
from gembml.base import Problem
from gembml.config import LearnerConfig, expected_log_likelihood, inner_optimizer
from gembml.inference import variational
from gembml.meta_gradients import chaser, elbo_gradient, gem, normal_gamma_log_hyperprior


def _inference(problem: Problem, config: LearnerConfig, *, differentiated: bool):
    return variational(
        expected_log_likelihood(problem, config),
        inner_optimizer(config, differentiated=differentiated),
        kl_weight=config.kl_weight,
    )


def _gem(problem: Problem, config: LearnerConfig, objective: str) -> Parts:
    family, inference = (
        gaussian.family(config.log_std_init),
        _inference(problem, config, differentiated=False),
    )
    estimator = gem(problem, family, inference, config.inner_steps, objective=objective)
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
        objective=objective,
        kl_weight=config.kl_weight,
        **options,
    )
    return Parts(gaussian.family(config.log_std_init), inference, estimator)


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
        leader=inference,
        leader_steps=config.inner_steps,
        leader_data=problem.query,
        distance=gaussian.kl_divergence,
    )
    return Parts(gaussian.family(config.log_std_init), inference, estimator)
