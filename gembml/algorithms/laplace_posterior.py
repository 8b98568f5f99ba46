"""The row with a Laplace posterior."""

from gembml import delta
from gembml.algorithms.parts import Parts
from gembml.base import Problem
from gembml.builders import inner_optimizer
from gembml.config import LearnerConfig
from gembml.gaussian import sample
from gembml.inference import laplace, point
from gembml.meta_gradients import laplace_evidence
from gembml.options import OptionError


def llama(problem: Problem, config: LearnerConfig) -> Parts:
    """LLAMA: Grant, Finn, Levine, Darrell & Griffiths 2018, Subroutine 4, diagonal curvature.

    Raises:
      OptionError: for a problem that does not say what its Fisher matrix is.
    """
    if problem.whitened_outputs is None:
        raise OptionError(
            "llama needs the curvature of the likelihood, and this problem gives no "
            "whitened_outputs: choose a likelihood that has them."
        )
    optimizer = inner_optimizer(config, differentiated=True)
    single = point(problem.log_likelihood, optimizer, objective=problem.objective)
    estimator = laplace_evidence(
        problem,
        single,
        problem.whitened_outputs,
        config.inner_steps,
        prior_log_std=config.log_std_init,
        curvature_weight=config.curvature_weight,
    )
    inference = laplace(single, problem.whitened_outputs, prior_log_std=config.log_std_init)
    return Parts(delta.family()._replace(sample=sample), inference, estimator)
