"""Gradient-EM with delta posteriors: Reptile, and first-order MAML up to the step size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta, Inference, OptionError, delta, gaussian
from gembml.base import InferenceState
from gembml.inference import point, variational, weight_samples
from gembml.meta_gradients import backprop, elbo_gradient, gem
from gembml.optimizers import scale_by_fisher
from tests.problems import log_likelihood, make_task, make_weights, problem

pytestmark = pytest.mark.usefixtures("float64")
ALPHA = 0.1
KEY = jax.random.key(0)
# float64 rounding over a few steps.
RTOL = 1e-10


def adapted(weights, data, num_steps: int):
    for _ in range(num_steps):
        weights = weights + ALPHA * jax.grad(log_likelihood)(weights, data)
    return weights


@pytest.mark.parametrize("num_steps", [1, 3, 7])
def test_delta_gem_l1_is_reptile(num_steps):
    task, weights = make_task(0), make_weights(0)
    end = adapted(adapted(weights, task.support, num_steps), task.query, num_steps)
    inference = point(log_likelihood, optax.sgd(ALPHA))
    gradient = gem(problem(), delta.family(), inference, num_steps, objective="L1")(
        KEY, Delta(weights), task
    )
    np.testing.assert_allclose(gradient.mean, end - weights, rtol=RTOL)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_delta_gem_l2_is_the_movement_on_the_query_alone(num_steps):
    task, weights = make_task(1), make_weights(1)
    middle = adapted(weights, task.support, num_steps)
    end = adapted(middle, task.query, num_steps)
    inference = point(log_likelihood, optax.sgd(ALPHA))
    gradient = gem(problem(), delta.family(), inference, num_steps, objective="L2")(
        KEY, Delta(weights), task
    )
    np.testing.assert_allclose(gradient.mean, end - middle, rtol=RTOL)


def test_delta_gem_l2_with_one_step_is_alpha_times_first_order_maml():
    task, prior = make_task(2), Delta(make_weights(2))
    inference = point(log_likelihood, optax.sgd(ALPHA), first_order=True)
    gem_l2 = gem(problem(), delta.family(), inference, 1, objective="L2")(KEY, prior, task)
    fomaml = backprop(problem(), inference, 1)(KEY, prior, task)
    np.testing.assert_allclose(gem_l2.mean, ALPHA * fomaml.mean, rtol=RTOL)


@pytest.mark.parametrize("objective", ["L1", "L2"])
def test_natural_gaussian_gem_without_kl_tends_to_delta_gem_as_the_variance_goes_to_zero(objective):
    # With plain SGD and no pull of the KL, m follows the delta's path up to O(sigma^2), and the
    # natural meta-gradient's mean is m - mu.
    task, weights = make_task(3), make_weights(3)
    prior = gaussian.around(weights, -10.0)
    inference = variational(weight_samples(log_likelihood), optax.sgd(ALPHA), kl_weight=0.0)
    raw = gem(problem(), gaussian.family(-10.0), inference, 3, objective=objective)(
        KEY, prior, task
    )
    natural, _ = scale_by_fisher().update(raw, optax.EmptyState(), prior)
    expected = gem(
        problem(), delta.family(), point(log_likelihood, optax.sgd(ALPHA)), 3, objective=objective
    )(KEY, Delta(weights), task)
    # sigma^2 = e^-20 = 2e-9, times derivatives of order 10.
    np.testing.assert_allclose(natural.mean, expected.mean, atol=1e-7)


def test_gem_differentiates_nothing_through_the_inner_loop():
    # A log-likelihood whose second derivative is an error.
    @jax.custom_vjp
    def first_derivative_only(weights, data):
        return log_likelihood(weights, data)

    def forward(weights, data):
        return log_likelihood(weights, data), (weights, data)

    @jax.custom_jvp
    def gradient_of(weights, data):
        return jax.grad(log_likelihood)(weights, data)

    @gradient_of.defjvp
    def _refuse(*_):
        raise AssertionError("a second derivative was asked for")

    first_derivative_only.defvjp(
        forward, lambda saved, g: (g * gradient_of(*saved), jax.tree.map(jnp.zeros_like, saved[1]))
    )
    task, weights = make_task(4), make_weights(4)
    inference = point(first_derivative_only, optax.sgd(ALPHA))
    single = problem(first_derivative_only)
    gem(single, delta.family(), inference, 2, objective="L2")(KEY, Delta(weights), task)
    with pytest.raises(AssertionError, match="second derivative"):
        backprop(single, inference, 2)(KEY, Delta(weights), task)


@pytest.mark.parametrize("moves_from", ["start", "prior"])
def test_the_support_posterior_is_the_query_phase_s_start_and_its_prior(moves_from):
    # An inner step that adds 1 to its current point, or to its prior: after one step per data set
    # lambda_tr = mu + 1 and lambda_all = mu + 2 either way.
    def step(keys, state, prior, collect):
        del keys, collect
        origin = state.posterior if moves_from == "start" else prior
        return InferenceState(Delta(origin.mean + 1.0), ())

    inference = Inference(lambda key, prior: InferenceState(prior, ()), step)
    for objective, expected in (("L1", 2.0), ("L2", 1.0)):
        estimate = gem(problem(), delta.family(), inference, 1, objective=objective)
        gradient = estimate(KEY, Delta(make_weights(5)), make_task(5))
        np.testing.assert_allclose(gradient.mean, expected, rtol=RTOL)


def test_an_unknown_objective_is_refused():
    with pytest.raises(OptionError, match="objective must be 'L1' or 'L2'"):
        gem(problem(), delta.family(), point(log_likelihood, optax.sgd(1.0)), 1, objective="L3")


def mean_log_likelihood(weights, data):
    return log_likelihood(weights, data) / len(data.y)


def plus(family, likelihood, num_steps: int, query_steps: int | None):
    """GEM-BML+ with one weight sample, SGD, and no pull of the KL."""
    expected = weight_samples(likelihood, num_samples=1, antithetic=False)
    inference = variational(expected, optax.sgd(ALPHA), kl_weight=0.0)
    return gem(
        problem(likelihood), family, inference, num_steps, query_steps=query_steps, objective="L2"
    )


@pytest.mark.parametrize("num_steps", [1, 3])
def test_gem_bml_plus_of_points_with_one_query_step_is_alpha_times_first_order_maml(num_steps):
    task, family = make_task(6), gaussian.family(-3.0, random=lambda name: False)
    prior = family.init(KEY, lambda key: make_weights(6))
    assert prior.log_std is None
    gradient = plus(family, mean_log_likelihood, num_steps, 1)(KEY, prior, task)
    first_order = point(mean_log_likelihood, optax.sgd(ALPHA), first_order=True)
    fomaml = backprop(problem(mean_log_likelihood), first_order, num_steps)
    assert gradient.log_std is None
    np.testing.assert_allclose(
        gradient.mean, ALPHA * fomaml(KEY, Delta(prior.mean), task).mean, rtol=RTOL
    )
    # The query's gradient at the weights adapted to the support.
    adapted_weights = prior.mean
    for _ in range(num_steps):
        step = jax.grad(mean_log_likelihood)(adapted_weights, task.support)
        adapted_weights = adapted_weights + ALPHA * step
    np.testing.assert_allclose(
        gradient.mean, ALPHA * jax.grad(mean_log_likelihood)(adapted_weights, task.query), rtol=RTOL
    )


@pytest.mark.parametrize("shared", [False, True])
def test_natural_gem_bml_plus_with_one_query_step_tends_to_first_order_maml(shared):
    task, family = make_task(7), gaussian.family(-10.0, shared=shared)
    prior = family.init(KEY, lambda key: make_weights(7))
    raw = plus(family, mean_log_likelihood, 3, 1)(KEY, prior, task)
    natural, _ = scale_by_fisher().update(raw, optax.EmptyState(), prior)
    first_order = point(mean_log_likelihood, optax.sgd(ALPHA), first_order=True)
    fomaml = backprop(problem(mean_log_likelihood), first_order, 3)
    expected = ALPHA * fomaml(KEY, Delta(prior.mean), task).mean
    # One sample has noise of sigma = e^-10 = 5e-5, times ALPHA and derivatives of order 1.
    np.testing.assert_allclose(natural.mean, expected, atol=1e-4)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize("estimator", ["gem", "elbo"])
def test_without_a_number_the_query_has_as_many_steps_as_the_support(estimator):
    task, prior = make_task(8), gaussian.around(make_weights(8), -1.0)
    expected = weight_samples(log_likelihood, num_samples=1, antithetic=False)
    inference = variational(expected, optax.sgd(ALPHA))

    def gradient(query_steps: int | None):
        if estimator == "gem":
            return plus(gaussian.family(-1.0), log_likelihood, 2, query_steps)(KEY, prior, task)
        estimate = elbo_gradient(
            problem(), inference, expected, 2, objective="L2", query_steps=query_steps
        )
        return estimate(KEY, prior, task)

    for unset, two, one in zip(*map(gradient, (None, 2, 1)), strict=True):
        np.testing.assert_allclose(unset, two, rtol=RTOL)
        assert np.abs(unset - one).max() > 1e-3
