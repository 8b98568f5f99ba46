"""PLATIPUS: probabilistic model-agnostic meta-learning (Finn, Xu & Levine 2018), whole.

It has an inference of its own, in training (its Algorithm 1) and at meta-test (its Algorithm 2),
and so stands apart from the matrix of estimators that the other rows combine.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import (
    Collect,
    Data,
    Family,
    Inference,
    InferenceState,
    Key,
    MetaGradient,
    Params,
    Problem,
    StepKeys,
    Task,
)
from gembml.gaussian import Gaussian, around, kl_divergence, perturb, standard_normal_like
from gembml.gaussian import sample as sample_gaussian
from gembml.particles import Particles, sample


class Platipus(NamedTuple):
    """The meta-parameters Theta of Algorithm 1."""

    prior: Gaussian
    """(mu_Theta, sigma_Theta): p(theta)."""
    query_log_std: Params
    """log v_q / 2: the spread of q(theta | D^val) in training."""
    multipliers: jax.Array
    """``[2]``: the rates gamma_p, gamma_q in units of the inner learning rate."""


def family(log_std_init: float | jax.Array) -> Family:
    """Both spreads start at exp(``log_std_init``), both rates at the inner learning rate."""

    def init(key: Key, init_params: Callable[[Key], Params]) -> Platipus:
        prior = around(init_params(key), log_std_init)
        return Platipus(prior, prior.log_std, jnp.ones(2))

    return Family(init=init, sample=sample)


def _ascend(
    log_likelihood: Callable[[Params, Data], jax.Array],
    params: Params,
    data: Data,
    rate: float | jax.Array,
) -> Params:
    gradient = jax.grad(log_likelihood)(params, data)
    return jax.tree.map(lambda p, g: p + rate * g, params, gradient)


def platipus_inference(
    log_likelihood: Callable[[Params, Data], jax.Array],
    learning_rate: float | jax.Array,
    num_particles: int,
) -> Inference:
    """Algorithm 2: theta ~ N(mu + gamma_p grad log P(D | mu), sigma^2), then SGD from each theta.

    The first step makes both the shift by gamma_p and an SGD step; before it, particles are draws
    from p(theta).
    """

    def init(key: Key, prior: Platipus) -> InferenceState:
        return InferenceState(
            Particles(sample_gaussian(key, prior.prior, num_particles)), jnp.zeros((), bool)
        )

    def step(
        keys: StepKeys, state: InferenceState, prior: Platipus, collect: Collect
    ) -> InferenceState:
        mean = prior.prior.mean
        data = collect(keys.data, mean)
        shifted = _ascend(log_likelihood, mean, data, prior.multipliers[0] * learning_rate)
        weights = jax.tree.map(
            lambda w, s, m: jnp.where(state.optimizer_state, w, w + (s - m)),
            state.posterior.weights,
            shifted,
            mean,
        )
        weights = jax.vmap(lambda w: _ascend(log_likelihood, w, data, learning_rate))(weights)
        return InferenceState(Particles(weights), jnp.ones((), bool))

    return Inference(init, step)


def platipus_gradient(
    problem: Problem,
    learning_rate: float | jax.Array,
    num_steps: int,
    *,
    kl_weight: float | jax.Array = 1.0,
) -> MetaGradient:
    """The gradient of Algorithm 1's bound, one sample per task:

        q(theta | D^val) = N(mu + gamma_q grad log P(D^val | mu), v_q),  theta ~ q
        p(theta | D^tr)  = N(mu + gamma_p grad log P(D^tr | mu), sigma^2)
        phi              = ``num_steps`` SGD steps on log P(D^tr | .) from theta
        bound            = log P(D^val | phi) - kl_weight KL(q || p)

    differentiated in (mu, sigma, v_q, gamma_p, gamma_q) through all of it.
    """

    def meta_gradient(key: Key, prior: Platipus, task: Task) -> Platipus:
        support_key, query_key, noise_key = jax.random.split(key, 3)
        support = problem.support(support_key, task, prior.prior.mean)
        query = problem.query(query_key, task, prior.prior.mean)
        ascend = lambda params, data, rate: _ascend(problem.log_likelihood, params, data, rate)  # noqa: E731

        def bound(prior: Platipus) -> jax.Array:
            mean, (prior_rate, query_rate) = prior.prior.mean, prior.multipliers * learning_rate
            q = Gaussian(ascend(mean, query, query_rate), prior.query_log_std)
            p = Gaussian(ascend(mean, support, prior_rate), prior.prior.log_std)
            params = perturb(q, standard_normal_like(noise_key, mean))
            params, _ = jax.lax.scan(
                lambda params, _: (ascend(params, support, learning_rate), None),
                params,
                length=num_steps,
            )
            return problem.log_likelihood(params, query) - kl_weight * kl_divergence(q, p)

        return jax.grad(bound)(prior)

    return meta_gradient
