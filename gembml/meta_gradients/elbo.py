"""The ELBO-gradient estimator: a bound of the evidence, differentiated through the inner loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Data, Inference, Key, MetaGradient, Problem, Task
from gembml.gaussian import Gaussian, kl_divergence
from gembml.inference.expectations import ExpectedLogLikelihood
from gembml.inference.loop import infer_differentiably
from gembml.options import OptionError

OBJECTIVES = ("support", "L1", "L2", "L2_difference")


def elbo_gradient(
    problem: Problem,
    inference: Inference,
    expected_log_likelihood: ExpectedLogLikelihood,
    num_steps: int,
    *,
    objective: str,
    query_steps: int | None = None,
    kl_weight: float | jax.Array = 1.0,
    log_hyperprior: Callable[[Gaussian], jax.Array] = lambda prior: jnp.zeros(()),
) -> MetaGradient:
    """The gradient in Theta of a lower bound, through every inner step (Section 3.2, appendix B.4).

    With lambda_tr = VI(Theta, D^tr), lambda_all = VI(lambda_tr, D^val), E_l(D) = E_{theta ~ l}
    log P(D | theta), D = D^tr u D^val, and w the ``kl_weight``, the bounds are

    * ``"L1"``:            E_{lambda_all}(D) - w KL(lambda_all || Theta), of log P(D | Theta);
    * ``"support"``:       E_{lambda_tr}(D) - w KL(lambda_tr || Theta), the same evidence bounded
      with the posterior that meta-test will have (Ravi & Beatson 2019);
    * ``"L2"``:            E_{lambda_all}(D^val) - w KL(lambda_all || lambda_tr);
    * ``"L2_difference"``: the bound "L1" minus E_{lambda_tr}(D^tr) - w KL(lambda_tr || Theta), the
      paper's L2 = L(D^tr u D^val) - L(D^tr), which it names and does not run.

    lambda_all takes ``query_steps``, if None as many as lambda_tr, ``num_steps``; memory grows with
    both. ``log_hyperprior`` is added to the bound.

    Raises:
      OptionError: for another objective.
    """
    if objective not in OBJECTIVES:
        raise OptionError(f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}.")

    def after_query(key: Key, posterior_support: Gaussian, task: Task) -> Gaussian:
        steps = num_steps if query_steps is None else query_steps
        return infer_differentiably(
            inference, key, posterior_support, lambda k, p: problem.query(k, task, p), steps
        )

    def elbo(posterior: Gaussian, prior: Gaussian, *parts: tuple[Key, Data]) -> jax.Array:
        fit = sum(expected_log_likelihood(key, posterior, data) for key, data in parts)
        return fit - kl_weight * kl_divergence(posterior, prior)

    def meta_gradient(key: Key, prior: Gaussian, task: Task) -> Gaussian:
        # The first two as in `gem`: the same key gives both estimators the same posteriors.
        support_key, query_key = jax.random.split(key)
        data_key, *noise = jax.random.split(jax.random.fold_in(key, 1), 4)
        support_data_key, query_data_key = jax.random.split(data_key)

        def bound(prior: Gaussian) -> jax.Array:
            tr = infer_differentiably(
                inference, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
            )
            # Data are constants, also when weights acted to collect them.
            acting = jax.lax.stop_gradient((prior.mean, tr.mean))
            query = problem.query(query_data_key, task, acting[1])
            if objective == "L2":
                return elbo(after_query(query_key, tr, task), tr, (noise[0], query))
            support = problem.support(support_data_key, task, acting[0])
            if objective == "support":
                return elbo(tr, prior, (noise[0], support), (noise[1], query))
            parts = (noise[0], query), (noise[1], support)
            bound_all = elbo(after_query(query_key, tr, task), prior, *parts)
            if objective == "L1":
                return bound_all
            return bound_all - elbo(tr, prior, (noise[2], support))

        return jax.grad(lambda prior: bound(prior) + log_hyperprior(prior))(prior)

    return meta_gradient
