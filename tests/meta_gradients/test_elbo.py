"""The ELBO gradient: exact where the posterior is, MAML where the posterior is a point."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta, Gaussian, Inference, OptionError, gaussian
from gembml.inference import point, variational, weight_samples
from gembml.meta_gradients import backprop, elbo_gradient, normal_gamma_log_hyperprior
from tests import conjugate, problems
from tests.conjugate import NOISE_STD, exact_inference, exact_posterior, union

pytestmark = pytest.mark.usefixtures("float64")
SEEDS = range(3)
KEY = jax.random.key(0)


def exact_expectation(key, posterior, data):
    """E log N(y | X theta, noise^2) = log N(y | X m, .) - tr(X diag(s^2) X^T) / (2 noise^2)."""
    del key
    spread = jnp.sum((data.x * jnp.exp(posterior.log_std)) ** 2) / (2 * NOISE_STD**2)
    return conjugate.log_likelihood(posterior.mean, data) - spread


def assert_close(left: Gaussian, right: Gaussian) -> None:
    # float64 rounding, which the 20 x 20 covariance of the exact evidence amplifies.
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(left.log_std, right.log_std, rtol=1e-8, atol=1e-10)


evidence_gradient = jax.jit(jax.grad(conjugate.log_evidence))
predictive_gradient = jax.jit(jax.grad(conjugate.log_predictive))


@functools.cache  # compiled once for all seeds
def with_exact_inference(objective: str, **options):
    return jax.jit(
        elbo_gradient(
            conjugate.PROBLEM,
            exact_inference(),
            exact_expectation,
            2,
            objective=objective,
            **options,
        )
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_l1_at_the_exact_posterior_is_the_gradient_of_the_evidence_of_all_data(seed):
    # The bound is tight there for every Theta, so that its gradient is the evidence's.
    prior, task = conjugate.make_prior(seed), conjugate.make_task(seed)
    expected = evidence_gradient(prior, union(*task))
    assert_close(with_exact_inference("L1")(KEY, prior, task), expected)


@pytest.mark.parametrize("objective", ["L2", "L2_difference"])
@pytest.mark.parametrize("seed", SEEDS)
def test_both_forms_of_l2_at_the_exact_posterior_are_the_gradient_of_the_predictive(
    seed, objective
):
    prior, task = conjugate.make_prior(seed), conjugate.make_task(seed)
    expected = predictive_gradient(prior, task)
    assert_close(with_exact_inference(objective)(KEY, prior, task), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_support_posterior_bounds_the_evidence_of_all_data_with_a_gap_of_one_kl(seed):
    # log P(D | Theta) - [E_q log P(D) - KL(q || Theta)] = KL(q || P(theta | D, Theta)), any q.
    prior, task = conjugate.make_prior(seed), conjugate.make_task(seed)

    def bound(prior):
        gap = gaussian.kl_divergence(
            exact_posterior(prior, task.support), exact_posterior(prior, union(*task))
        )
        return conjugate.log_evidence(prior, union(*task)) - gap

    assert_close(with_exact_inference("support")(KEY, prior, task), jax.jit(jax.grad(bound))(prior))


def test_a_kl_weight_below_one_weighs_the_kl_of_the_bound():
    prior, task, weight = conjugate.make_prior(0), conjugate.make_task(0), 0.3

    def bound(prior):
        posterior = exact_posterior(prior, union(*task))
        fit = exact_expectation(KEY, posterior, union(*task))
        return fit - weight * gaussian.kl_divergence(posterior, prior)

    gradient = with_exact_inference("L1", kl_weight=weight)(KEY, prior, task)
    assert_close(gradient, jax.jit(jax.grad(bound))(prior))


# The limit of a point: sigma = e^-10, so that what the variance adds is sigma^2 = 2e-9 times
# derivatives of order 10.
LOG_STD, ATOL, ALPHA = -10.0, 1e-7, 0.1


def sharp(rate: float) -> Inference:
    """Gradient steps on the expected log-likelihood alone, as a point takes them."""
    return variational(weight_samples(problems.log_likelihood), optax.sgd(rate), kl_weight=0.0)


def in_the_delta_limit(weights, task, query_rate: float, num_steps: int, kl_weight: float):
    estimate = elbo_gradient(
        problems.problem(),
        sharp(ALPHA),
        weight_samples(problems.log_likelihood),
        num_steps,
        objective="L2",
        query_inference=sharp(query_rate),
        kl_weight=kl_weight,
    )
    return jax.jit(estimate)(KEY, gaussian.around(weights, LOG_STD), task).mean


@pytest.mark.parametrize("query_rate", [ALPHA, 0.3 * ALPHA])
@pytest.mark.parametrize("num_steps", [2])
def test_pmaml_tends_to_the_query_likelihood_after_both_phases_as_the_variance_goes_to_zero(
    num_steps, query_rate
):
    task, weights = problems.make_task(0), problems.make_weights(0)

    def unrolled_by_hand(w):
        for data, rate in zip(task, (ALPHA, query_rate), strict=True):
            for _ in range(num_steps):
                w = w + rate * jax.grad(problems.log_likelihood)(w, data)
        return problems.log_likelihood(w, task.query)

    gradient = in_the_delta_limit(weights, task, query_rate, num_steps, kl_weight=0.0)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(unrolled_by_hand))(weights), atol=ATOL)


@pytest.mark.parametrize("num_steps", [2])
def test_pmaml_without_steps_on_the_query_tends_to_maml_as_the_variance_goes_to_zero(num_steps):
    # lambda_all = lambda_tr then, and their KL is zero for every Theta.
    task, weights = problems.make_task(1), problems.make_weights(1)
    inference = point(problems.log_likelihood, optax.sgd(ALPHA))
    maml = jax.jit(backprop(problems.problem(), inference, num_steps))(KEY, Delta(weights), task)
    gradient = in_the_delta_limit(weights, task, 0.0, num_steps, kl_weight=1.0)
    np.testing.assert_allclose(gradient, maml.mean, atol=ATOL)


@pytest.mark.parametrize(("shape", "rate"), [(1.0, 0.01), (2.5, 0.7)])
def test_the_hyperprior_is_normal_in_the_mean_and_gamma_in_the_precision(shape, rate):
    weight, prior = 0.2, conjugate.make_prior(0)
    tree = Gaussian({"a": prior.mean, "b": 2.0}, {"a": prior.log_std, "b": -1.0})

    def log_density(prior):
        leaves = zip(*map(jax.tree.leaves, prior), strict=True)
        return weight * sum(
            distrax.Normal(0.0, 1.0).log_prob(mean).sum()
            + distrax.Gamma(shape, rate).log_prob(jnp.exp(log_std) ** -2).sum()
            for mean, log_std in leaves
        )

    # Gradients, as densities agree up to a constant.
    gradient = jax.grad(normal_gamma_log_hyperprior(weight, shape=shape, rate=rate))(tree)
    expected = jax.grad(log_density)(tree)
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_the_hyperprior_s_gradient_is_added_to_the_bound_s():
    prior, task = conjugate.make_prior(0), conjugate.make_task(0)
    hyperprior = normal_gamma_log_hyperprior(0.5)
    with_it = with_exact_inference("L1", log_hyperprior=hyperprior)(KEY, prior, task)
    without = with_exact_inference("L1")(KEY, prior, task)
    assert_close(with_it, jax.tree.map(jnp.add, without, jax.grad(hyperprior)(prior)))


def test_an_unknown_objective_is_refused():
    with pytest.raises(OptionError, match="objective must be one of support, L1, L2, L2_diff"):
        elbo_gradient(conjugate.PROBLEM, exact_inference(), exact_expectation, 1, objective="L3")


@pytest.mark.parametrize("objective", ["support", "L1", "L2_difference"])
def test_data_that_are_drawn_are_others_for_support_and_query(objective):
    drawn = lambda key, task, params: jax.random.normal(key)  # noqa: E731
    problem = conjugate.PROBLEM._replace(support=drawn, query=drawn)
    still = Inference(exact_inference().init, lambda keys, state, prior, collect: state)
    seen = set()

    def expectation(key, posterior, data):
        del key
        seen.add(float(data))
        return jnp.sum(posterior.mean) * data

    estimate = elbo_gradient(problem, still, expectation, 1, objective=objective)
    estimate(KEY, conjugate.make_prior(0), conjugate.make_task(0))
    assert len(seen) == 2
