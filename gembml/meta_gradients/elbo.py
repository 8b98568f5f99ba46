"""The ELBO-gradient estimator: a bound of the evidence, differentiated through the inner loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Data, Inference, Key, MetaGradient, Problem, Task
from gembml.gaussian import Gaussian, kl_divergence
from gembml.inference.expectations import ExpectedLogLikelihood
from gembml.meta_gradients.gem import sequential_posteriors
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
    query_inference: Inference | None = None,
    kl_weight: float | jax.Array = 1.0,
    log_hyperprior: Callable[[Gaussian], jax.Array] = lambda prior: jnp.zeros(()),
) -> MetaGradient:
    """The gradient in Theta of a lower bound, through every inner step (Section 3.2, appendix B.4).

    With lambda_tr and lambda_all of :func:`~gembml.meta_gradients.gem.sequential_posteriors`,
    E_l(D) = E_{theta ~ l} log P(D | theta), D = D^tr u D^val, and w the ``kl_weight``, they are

    * ``"L1"``:            E_{lambda_all}(D) - w KL(lambda_all || Theta), of log P(D | Theta);
    * ``"support"``:       E_{lambda_tr}(D) - w KL(lambda_tr || Theta), the same evidence bounded
      with the posterior that meta-test will have (Ravi & Beatson 2019);
    * ``"L2"``:            E_{lambda_all}(D^val) - w KL(lambda_all || lambda_tr);
    * ``"L2_difference"``: the bound "L1" minus E_{lambda_tr}(D^tr) - w KL(lambda_tr || Theta), the
      paper's L2 = L(D^tr u D^val) - L(D^tr), which it names as a third column and does not run
      with this estimator (with Gradient-EM it is GEM-BML+). As a difference of bounds it is none.

    All but the last are lower bounds for w of at least 1; for 0 < w < 1 they are bounds of w times
    the same log probability with the likelihood P(D | theta)^(1/w).

    Memory grows with the steps of both posteriors. ``log_hyperprior`` is added to the bound.

    Raises:
      OptionError: for another objective.
    """
    if objective not in OBJECTIVES:
        raise OptionError(f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}.")
    posteriors = sequential_posteriors(
        problem,
        inference,
        num_steps,
        0 if objective == "support" else query_steps,
        query_inference,
        differentiated=True,
    )

    def elbo(posterior: Gaussian, prior: Gaussian, *parts: tuple[Key, Data]) -> jax.Array:
        fit = sum(expected_log_likelihood(key, posterior, data) for key, data in parts)
        return fit - kl_weight * kl_divergence(posterior, prior)

    def meta_gradient(key: Key, prior: Gaussian, task: Task) -> Gaussian:
        _, *noise = jax.random.split(jax.random.fold_in(key, 1), 4)
        # `posteriors` splits the key; its parts are what 0 and 1 fold into. So the noise above has
        # a key in common with a loop, which draws from parts of it alone; these data have none.
        support_key, query_key = jax.random.split(jax.random.fold_in(key, 3))

        def bound(prior: Gaussian) -> jax.Array:
            posterior_support, posterior_all = posteriors(key, prior, task)
            # Data are constants, also when weights acted to collect them.
            acting = jax.lax.stop_gradient((prior.mean, posterior_support.mean))
            query = problem.query(query_key, task, acting[1])
            if objective == "L2":
                return elbo(posterior_all, posterior_support, (noise[0], query))
            support = problem.support(support_key, task, acting[0])
            if objective == "support":
                return elbo(posterior_support, prior, (noise[0], support), (noise[1], query))
            bound_all = elbo(posterior_all, prior, (noise[0], query), (noise[1], support))
            if objective == "L1":
                return bound_all
            return bound_all - elbo(posterior_support, prior, (noise[2], support))

        return jax.grad(lambda prior: bound(prior) + log_hyperprior(prior))(prior)

    return meta_gradient
