"""The Gradient-EM estimator (Section 3.2, subroutines Meta-Gradient: GEM-BML and GEM-BML+)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Distribution, Family, Inference, Key, MetaGradient, Problem, Task
from gembml.inference.loop import infer, infer_differentiably
from gembml.options import OptionError, concrete, positive


def sequential_posteriors(
    problem: Problem,
    inference: Inference,
    num_steps: int,
    query_steps: int | None = None,
    query_inference: Inference | None = None,
    *,
    differentiated: bool = False,
    second_pass: float | jax.Array = 0.0,
) -> Callable[[Key, Distribution, Task], tuple[Distribution, Distribution]]:
    """``(key, prior, task)`` -> lambda_tr and lambda_all, by sequential Bayes:

    lambda_tr = VI(Theta, D^tr) in ``num_steps``, lambda_all = VI(lambda_tr, D^val) in
    ``query_steps`` (if None as many) inner steps of ``query_inference`` (if None the same);
    ``differentiated`` if the caller differentiates through them.

    ``second_pass`` = e > 0 (not in the paper; a traced one must not be 0) takes the two data sets
    in the other order once the query set's term is known, d = lambda_all - lambda_tr:

        lambda_all <- lambda_tr + [VI(Theta + e d, D^tr) - VI(Theta, D^tr)] / e,

    coordinate by coordinate and with the same noise in both. Up to O(e), and rounding of the order
    of ulp(Theta) / (e |d|), that is lambda_tr + J d, with J the Jacobian of VI(., D^tr) in Theta:
    the derivative through the inner loop, which lambda_all lacks after a few steps from lambda_tr.
    In the point limit with one query step, and with data that do not depend on the weights, J d is
    the inner rate times MAML's meta-gradient where J is symmetric: after one gradient step (then it
    is the Hessian-free MAML of Fallah et al. 2020, with a one-sided difference), or for a quadratic
    loss. Rollouts are made anew by the moved prior's policy, so of them J has the change, too.

    It asks for gradients that are continuous in the weights, so for no ReLUs; in single precision
    for 0.01 to 0.1, and in matrix products of fewer bits for more, as their rounding exceeds e d;
    and for loops that are stopped early. It moves the prior: where the loop starts and, with a KL
    term, what pulls it. A loop that has converged keeps the latter alone, and there the first pass
    is right.

    Raises:
      OptionError: for a negative ``second_pass``.
    """
    if concrete(second_pass) and not second_pass >= 0:
        raise OptionError(f"second_pass must not be negative, not {second_pass}.")
    run = infer_differentiably if differentiated else infer
    query_steps = num_steps if query_steps is None else query_steps
    query_inference = query_inference or inference

    def posteriors(key: Key, prior: Distribution, task: Task) -> tuple[Distribution, Distribution]:
        support_key, query_key = jax.random.split(key)

        def after_support(prior: Distribution) -> Distribution:
            return run(
                inference, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
            )

        posterior_support = after_support(prior)
        posterior_all = run(
            query_inference,
            query_key,
            posterior_support,
            lambda k, p: problem.query(k, task, p),
            query_steps,
        )
        if not positive(second_pass):
            return posterior_support, posterior_all
        moved = jax.tree.map(
            lambda p, a, t: p + second_pass * (a - t), prior, posterior_all, posterior_support
        )
        exchanged = jax.tree.map(
            lambda t, a: t + (a - t) / second_pass, posterior_support, after_support(moved)
        )
        return posterior_support, exchanged

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
    second_pass: float | jax.Array = 0.0,
) -> MetaGradient:
    """Meta-gradients from the values of the two :func:`sequential_posteriors`:

    * ``"L1"`` (GEM-BML): g(lambda_all), the gradient of log P(D^tr u D^val | Theta);
    * ``"L2"`` (GEM-BML+): g(lambda_all) - g(lambda_tr), the gradient of log P(D^val | D^tr, Theta)
      by Property 1 (appendix A.4),

    with g = ``family.gem_gradient(prior, .)``. Nothing is differentiated through the inner loop.

    An inference whose KL has a weight w > 0 other than 1 has as its optimum the posterior of the
    likelihood P(D | theta)^(1/w), and L1 and L2 then are of that likelihood: log of the integral of
    P(D | theta)^(1/w) P(theta | Theta), and the difference of two such. Of Gaussian noise s it is
    that of noise sqrt(w) s.

    Raises:
      OptionError: for another objective, or a negative ``second_pass``.
    """
    if objective not in ("L1", "L2"):
        raise OptionError(f"objective must be 'L1' or 'L2', not {objective!r}.")
    if family.gem_gradient is None:
        raise OptionError(
            "Gradient-EM needs a posterior family whose gradient is known in closed form."
        )
    gem_gradient = family.gem_gradient
    posteriors = sequential_posteriors(
        problem, inference, num_steps, query_steps, query_inference, second_pass=second_pass
    )

    def meta_gradient(key: Key, prior: Distribution, task: Task) -> Distribution:
        posterior_support, posterior_all = posteriors(key, prior, task)
        gradient = gem_gradient(prior, posterior_all)
        if objective == "L2":
            gradient = jax.tree.map(jnp.subtract, gradient, gem_gradient(prior, posterior_support))
        return gradient

    return meta_gradient
