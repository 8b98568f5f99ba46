"""PLATIPUS: its bound by hand, its limits, and its meta-test."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta, gaussian
from gembml.gaussian import Gaussian, standard_normal_like
from gembml.inference import point, trajectory
from gembml.inference.platipus import platipus_inference
from gembml.meta_gradients import backprop
from gembml.meta_gradients.platipus import platipus_gradient
from gembml.platipus import Platipus, family
from tests.problems import log_likelihood, make_task, make_weights, problem

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
ALPHA = 0.1
RTOL = 1e-9  # float64 rounding over a few steps

slope = jax.jit(jax.grad(log_likelihood))


def make_prior(seed: int) -> Platipus:
    keys = jax.random.split(jax.random.key(seed), 4)
    prior = Gaussian(make_weights(seed), jax.random.uniform(keys[0], (3,), minval=-1.5, maxval=0.0))
    return Platipus(
        prior,
        jax.random.uniform(keys[1], (3,), minval=-2.0, maxval=-0.5),
        jax.random.uniform(keys[2], (3,), minval=0.5, maxval=1.0),
        jax.random.uniform(keys[3], (3,), minval=1.0, maxval=1.6),
    )


def estimator(num_steps: int, kl_weight: float = 1.0):
    return jax.jit(platipus_gradient(problem(), ALPHA, num_steps, kl_weight=kl_weight))


@pytest.mark.parametrize(("num_steps", "kl_weight"), [(1, 1.0), (3, 0.2)])
def test_the_gradient_is_that_of_algorithm_1_s_bound_by_hand(num_steps, kl_weight):
    task, prior = make_task(0), make_prior(0)
    # The third key draws the noise: the test needs the same.
    noise = standard_normal_like(jax.random.split(KEY, 3)[2], prior.prior.mean)

    def bound(prior: Platipus):
        mu, sigma = prior.prior.mean, jnp.exp(prior.prior.log_std)
        v_q = jnp.exp(2 * prior.query_log_std)
        gamma_p, gamma_q = ALPHA * prior.prior_multiplier, ALPHA * prior.query_multiplier
        q_mean = mu + gamma_q * jax.grad(log_likelihood)(mu, task.query)
        p_mean = mu + gamma_p * jax.grad(log_likelihood)(mu, task.support)
        phi = q_mean + jnp.sqrt(v_q) * noise
        for _ in range(num_steps):
            phi = phi + ALPHA * jax.grad(log_likelihood)(phi, task.support)
        ratio = v_q / sigma**2
        kl = 0.5 * jnp.sum(ratio + ((q_mean - p_mean) / sigma) ** 2 - 1 - jnp.log(ratio))
        return log_likelihood(phi, task.query) - kl_weight * kl

    gradient = estimator(num_steps, kl_weight)(KEY, prior, task)
    expected = jax.jit(jax.grad(bound))(prior)
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=RTOL)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_without_spread_and_with_rates_of_zero_it_is_maml(num_steps):
    # q = p then, for every mu: their KL is zero and pulls nothing. e^-12 = 6e-6 of noise in the
    # weights, times derivatives of order 10.
    task, weights = make_task(1), make_weights(1)
    spread = gaussian.around(weights, -12.0)
    prior = Platipus(spread, spread.log_std, jnp.zeros(3), jnp.zeros(3))
    gradient = estimator(num_steps)(KEY, prior, task)
    maml = backprop(problem(), point(log_likelihood, optax.sgd(ALPHA)), num_steps)
    expected = jax.jit(maml)(KEY, Delta(weights), task).mean
    np.testing.assert_allclose(gradient.prior.mean, expected, atol=1e-4)
    # The rates' gradients there: gamma_q moves theta along the query's gradient at mu, gamma_p only
    # enters the KL, which is flat.
    by_hand = ALPHA * expected_of_theta(weights, task, num_steps) * slope(weights, task.query)
    np.testing.assert_allclose(gradient.prior_multiplier, 0.0, atol=1e-4)
    np.testing.assert_allclose(gradient.query_multiplier, by_hand, atol=1e-4)


def expected_of_theta(weights, task, num_steps: int):
    """The gradient of log P(D^val | phi) in theta."""

    def fit(theta):
        for _ in range(num_steps):
            theta = theta + ALPHA * jax.grad(log_likelihood)(theta, task.support)
        return log_likelihood(theta, task.query)

    return jax.jit(jax.grad(fit))(weights)


def test_a_weight_of_zero_leaves_nothing_of_the_prior_s_spread_and_rate():
    gradient = estimator(2, kl_weight=0.0)(KEY, make_prior(2), make_task(2))
    np.testing.assert_array_equal(gradient.prior.log_std, 0.0)
    np.testing.assert_array_equal(gradient.prior_multiplier, 0.0)


def test_meta_test_shifts_draws_of_the_prior_by_gamma_p_and_descends_from_each():
    support, prior = make_task(3).support, make_prior(3)
    inference = platipus_inference(log_likelihood, ALPHA, 4)
    path = trajectory(inference, KEY, prior, lambda *_: support, 3).weights
    assert path.shape == (4, 4, 3)
    shift = ALPHA * prior.prior_multiplier * slope(prior.prior.mean, support)
    step = jax.vmap(lambda w: w + ALPHA * jax.grad(log_likelihood)(w, support))
    np.testing.assert_allclose(path[1], step(path[0] + shift), rtol=RTOL)
    np.testing.assert_allclose(path[2], step(path[1]), rtol=RTOL)
    np.testing.assert_allclose(path[3], step(path[2]), rtol=RTOL)


def test_before_any_data_the_particles_are_draws_of_the_prior():
    prior, number = make_prior(4), 20_000
    start = platipus_inference(log_likelihood, ALPHA, number).init(KEY, prior).posterior.weights
    whitened = (start - prior.prior.mean) / jnp.exp(prior.prior.log_std)
    # Mean and variance within five standard errors, 1 / sqrt(n) and sqrt(2 / n).
    np.testing.assert_allclose(whitened.mean(axis=0), 0.0, atol=5 / np.sqrt(number))
    np.testing.assert_allclose(whitened.var(axis=0), 1.0, atol=5 * np.sqrt(2 / number))


def test_the_family_starts_with_equal_spreads_and_rates_of_one():
    prior = family(-2.0).init(KEY, lambda key: {"w": jax.random.normal(key, (2, 3))})
    np.testing.assert_array_equal(prior.prior.log_std["w"], np.full((2, 3), -2.0))
    np.testing.assert_array_equal(prior.query_log_std["w"], np.full((2, 3), -2.0))
    for multiplier in (prior.prior_multiplier, prior.query_multiplier):
        np.testing.assert_array_equal(multiplier["w"], np.ones((2, 3)))
