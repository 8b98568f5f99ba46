"""Rows with a Gaussian posterior: the cells of the paper's Table 1, and its third column."""

from typing import Any

import jax
import optax

from gembml import gaussian
from gembml.algorithms.parts import Parts
from gembml.base import Family, Inference, Problem
from gembml.builders import expected_log_likelihood, inner_optimizer
from gembml.config import LearnerConfig
from gembml.inference import variational
from gembml.meta_gradients import chaser, elbo_gradient, gem, normal_gamma_log_hyperprior
from gembml.optimizers import on_mean, scale_log_std
from gembml.optimizers.by_name import needs_loss
from gembml.options import OptionError


def _is_head(name: str) -> bool:
    return "head" in name.split("/")


def gaussian_family(problem: Problem, config: LearnerConfig) -> Family:
    """Priors and posteriors, with the variances that ``config`` gives the problem's weights.

    Raises:
      OptionError: if the weights are one vector and the variances are those of arrays or a head.
    """
    of_arrays = config.variance_per == "array" or config.log_std_relative
    if of_arrays or config.random_weights == "head":
        shapes = jax.eval_shape(problem.init, jax.random.key(0))
        names = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
        ]
        if config.random_weights == "head" and not any(map(_is_head, names)):
            raise OptionError(
                "config.random_weights must be all for this problem, whose weights have no layer "
                "named head."
            )
        if of_arrays and names == [""]:
            raise OptionError(
                "config.variance_per must be weight and config.log_std_relative false for this "
                "problem, whose weights are one vector and not arrays."
            )
    return gaussian.family(
        config.log_std_init,
        relative=config.log_std_relative,
        shared=config.variance_per == "array",
        random=lambda name: config.random_weights == "all" or _is_head(name),
    )


def gaussian_inference(
    problem: Problem, config: LearnerConfig, *, differentiated: bool, later: bool = False
) -> Inference:
    """Variational inference by ``config``'s optimizer: subroutine VI of Section 3.1.

    Args:
      problem: what is learned.
      config: numbers and choices.
      differentiated: whether the meta-gradient is differentiated through the loop.
      later: whether it follows another loop, on the query set; its rate then begins as
        ``config.later_rate`` says.

    Raises:
      OptionError: if the optimizer cannot be used.
    """
    optimizer = inner_optimizer(config, differentiated=differentiated, later=later)
    if config.inner_optimizer == "trpo" or needs_loss(config.inner_optimizer):
        optimizer = on_mean(optimizer)
    elif config.inner_optimizer != "natural_gradient":  # which has it built in
        optimizer = optax.chain(optimizer, scale_log_std(config.log_std_multiplier))
    return variational(
        expected_log_likelihood(problem, config),
        optimizer,
        kl_weight=config.kl_weight,
        divergence=problem.divergence,
        objective=problem.objective,
    )


def _query_steps(config: LearnerConfig) -> int:
    return config.query_steps or config.inner_steps


def gem_loops(problem: Problem, config: LearnerConfig) -> dict[str, Any]:
    """Gradient-EM's inner loops, as arguments of :func:`gembml.meta_gradients.gem`."""
    return {
        "inference": gaussian_inference(problem, config, differentiated=False),
        "num_steps": config.inner_steps,
        "query_steps": _query_steps(config),
        "query_inference": gaussian_inference(problem, config, differentiated=False, later=True),
        "second_pass": config.second_pass,
    }


def _gem(problem: Problem, config: LearnerConfig, objective: str) -> Parts:
    family, loops = gaussian_family(problem, config), gem_loops(problem, config)
    return Parts(family, loops["inference"], gem(problem, family, **loops, objective=objective))


def gem_bml(problem: Problem, config: LearnerConfig) -> Parts:
    """GEM-BML: g(lambda_all), Section 3.2, Subroutine Meta-Gradient GEM-BML, Theorem 1."""
    return _gem(problem, config, "L1")


def gem_bml_plus(problem: Problem, config: LearnerConfig) -> Parts:
    """GEM-BML+: g(lambda_all) - g(lambda_tr), Section 3.2, appendix A.4 and equation (21)."""
    return _gem(problem, config, "L2")


def _elbo(problem: Problem, config: LearnerConfig, objective: str, **options) -> Parts:
    inference = gaussian_inference(problem, config, differentiated=True)
    estimator = elbo_gradient(
        problem,
        inference,
        expected_log_likelihood(problem, config),
        config.inner_steps,
        query_steps=_query_steps(config),
        query_inference=gaussian_inference(problem, config, differentiated=True, later=True),
        objective=objective,
        kl_weight=config.kl_weight,
        **options,
    )
    return Parts(gaussian_family(problem, config), inference, estimator)


def amortized_bml(problem: Problem, config: LearnerConfig) -> Parts:
    """Amortized BML (Ravi & Beatson 2019): equation (4) for L1, with a hyperprior on Theta.

    Theirs bounds the evidence of all data by the support's posterior: grad [E_{lambda_tr}
    log P(D^tr u D^val | theta) - KL(lambda_tr || Theta)]. ``config.amortized_posterior=all`` has
    lambda_all in place of lambda_tr, the cell of Table 1. Appendix B.4 prints neither: D^tr alone,
    or as the original's variant D^val alone, in the expectation.
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
    inference = gaussian_inference(problem, config, differentiated=True)
    estimator = chaser(
        problem,
        inference,
        config.inner_steps,
        leader=gaussian_inference(problem, config, differentiated=True, later=True),
        leader_steps=_query_steps(config),
        leader_data=problem.query,
        distance=gaussian.kl_divergence,
    )
    return Parts(gaussian_family(problem, config), inference, estimator)
