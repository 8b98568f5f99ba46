"""How PLATIPUS is trained: Algorithm 1 of Finn, Xu & Levine 2018."""

import functools

import jax

from gembml.base import Key, MetaGradient, Problem, Task
from gembml.gaussian import Gaussian, kl_divergence, perturb, standard_normal_like
from gembml.platipus import Platipus, ascend


def platipus_gradient(
    problem: Problem,
    learning_rate: float | jax.Array,
    num_steps: int,
    *,
    kl_weight: float | jax.Array = 1.0,
) -> MetaGradient:
    """The gradient of Algorithm 1's bound, one sample per task:

        q(theta | D^val) = N(mu + gamma_q o grad log P(D^val | mu), v_q),  theta ~ q
        p(theta | D^tr)  = N(mu + gamma_p o grad log P(D^tr | mu), sigma^2)
        phi              = ``num_steps`` SGD steps on log P(D^tr | .) from theta
        bound            = log P(D^val | phi) - kl_weight KL(q || p)

    differentiated in (mu, sigma, v_q, gamma_p, gamma_q) through all of it.
    """

    def meta_gradient(key: Key, prior: Platipus, task: Task) -> Platipus:
        support_key, query_key, noise_key = jax.random.split(key, 3)
        support = problem.support(support_key, task, prior.prior.mean)
        query = problem.query(query_key, task, prior.prior.mean)
        step = functools.partial(ascend, problem.log_likelihood)

        def bound(prior: Platipus) -> jax.Array:
            mean = prior.prior.mean
            towards_query = step(mean, query, learning_rate, prior.query_multiplier)
            towards_support = step(mean, support, learning_rate, prior.prior_multiplier)
            q = Gaussian(towards_query, prior.query_log_std)
            p = Gaussian(towards_support, prior.prior.log_std)
            params = perturb(q, standard_normal_like(noise_key, mean))
            params, _ = jax.lax.scan(
                lambda params, _: (step(params, support, learning_rate), None),
                params,
                length=num_steps,
            )
            return problem.log_likelihood(params, query) - kl_weight * kl_divergence(q, p)

        return jax.grad(bound)(prior)

    return meta_gradient
