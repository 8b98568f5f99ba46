"""The Gradient-EM estimator (Section 3.2, subroutines Meta-Gradient: GEM-BML and GEM-BML+)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Distribution, Family, Inference, Key, MetaGradient, Problem, Task
from gembml.inference.loop import infer, infer_differentiably
from gembml.options import OptionError


def sequential_posteriors(
    problem: Problem,
    inference: Inference,
    num_steps: int,
    query_steps: int | None = None,
    query_inference: Inference | None = None,
    *,
    differentiated: bool = False,
) -> Callable[[Key, Distribution, Task], tuple[Distribution, Distribution]]:
    """``(key, prior, task)`` -> lambda_tr and lambda_all, by sequential Bayes:

    lambda_tr = VI(Theta, D^tr) in ``num_steps``, lambda_all = VI(lambda_tr, D^val) in
    ``query_steps`` (if None as many) inner steps of ``query_inference`` (if None the same);
    ``differentiated`` if the caller differentiates through them.
    """
    run = infer_differentiably if differentiated else infer
    query_steps = num_steps if query_steps is None else query_steps
    query_inference = query_inference or inference

    def posteriors(key: Key, prior: Distribution, task: Task) -> tuple[Distribution, Distribution]:
        support_key, query_key = jax.random.split(key)
        posterior_support = run(
            inference, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
        )
        posterior_all = run(
            query_inference,
            query_key,
            posterior_support,
            lambda k, p: problem.query(k, task, p),
            query_steps,
        )
        return posterior_support, posterior_all

    return posteriors


def gem(
    problem: Problem,
    family: Family,
    inference: Inference,
    num_steps: int,
    *,
    objective: str,
    query_steps: int | None = None,
    query_inference: Inference | None = None,
) -> MetaGradient:
    """Meta-gradients from the values of the two :func:`sequential_posteriors`:

    * ``"L1"`` (GEM-BML): g(lambda_all), the gradient of log P(D^tr u D^val | Theta);
    * ``"L2"`` (GEM-BML+): g(lambda_all) - g(lambda_tr), the gradient of log P(D^val | D^tr, Theta)
      by Property 1 (appendix A.4),

    with g = ``family.gem_gradient(prior, .)``. Nothing is differentiated through the inner loop.

    Raises:
      OptionError: for another objective.
    """
    if objective not in ("L1", "L2"):
        raise OptionError(f"objective must be 'L1' or 'L2', not {objective!r}.")
    if family.gem_gradient is None:
        raise OptionError(
            "Gradient-EM needs a posterior family whose gradient is known in closed form."
        )
    gem_gradient = family.gem_gradient
    posteriors = sequential_posteriors(problem, inference, num_steps, query_steps, query_inference)

    def meta_gradient(key: Key, prior: Distribution, task: Task) -> Distribution:
        posterior_support, posterior_all = posteriors(key, prior, task)
        gradient = gem_gradient(prior, posterior_all)
        if objective == "L2":
            gradient = jax.tree.map(jnp.subtract, gradient, gem_gradient(prior, posterior_support))
        return gradient

    return meta_gradient
