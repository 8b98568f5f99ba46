"""Meta-SGD: a learned rate for each weight."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta
from gembml.inference import infer, learned_rates, point
from gembml.inference.learned_rates import LearnedRates, family
from gembml.meta_gradients import backprop
from tests.problems import log_likelihood, make_task, make_weights, problem

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
ALPHA = 0.1
RTOL = 1e-10  # float64 rounding over a few steps

meta_sgd = learned_rates(log_likelihood, ALPHA)
likelihood_gradient = jax.jit(jax.grad(log_likelihood))


@pytest.mark.parametrize("num_steps", [1, 3])
def test_with_multipliers_of_one_it_is_maml_in_the_mean(num_steps):
    task, weights = make_task(0), make_weights(0)
    maml = backprop(problem(), point(log_likelihood, optax.sgd(ALPHA)), num_steps)
    expected = jax.jit(maml)(KEY, Delta(weights), task)
    start = LearnedRates(weights, jnp.ones(3))
    gradient = jax.jit(backprop(problem(), meta_sgd, num_steps))(KEY, start, task)
    np.testing.assert_allclose(gradient.mean, expected.mean, rtol=RTOL)


def test_the_rate_s_gradient_is_the_product_of_both_data_sets_gradients():
    # theta' = theta + alpha m o g: d log P(D^val | theta') / dm = alpha g o grad at theta'.
    task, weights, multiplier = make_task(1), make_weights(1), jnp.array([0.5, 2.0, -1.0])
    support_gradient = likelihood_gradient(weights, task.support)
    end = weights + ALPHA * multiplier * support_gradient
    query_gradient = likelihood_gradient(end, task.query)
    start = LearnedRates(weights, multiplier)
    gradient = jax.jit(backprop(problem(), meta_sgd, 1))(KEY, start, task)
    np.testing.assert_allclose(
        gradient.multiplier, ALPHA * support_gradient * query_gradient, rtol=RTOL
    )
    # And in the mean (I + alpha H diag(m)) grad, H the Hessian of log P(D^tr | .).
    hessian = jax.jit(jax.hessian(log_likelihood))(weights, task.support)
    expected = query_gradient + ALPHA * hessian @ (multiplier * query_gradient)
    np.testing.assert_allclose(gradient.mean, expected, rtol=RTOL)


def test_the_multipliers_scale_each_weight_s_step():
    support, weights = make_task(2).support, make_weights(2)
    multiplier = jnp.array([0.0, 1.0, 3.0])
    end = infer(meta_sgd, KEY, LearnedRates(weights, multiplier), lambda *_: support, 1)
    moved = multiplier * ALPHA * likelihood_gradient(weights, support)
    np.testing.assert_allclose(end.mean, weights + moved, rtol=RTOL)


def test_the_family_starts_with_multipliers_of_one():
    prior = family().init(KEY, lambda key: {"w": jax.random.normal(key, (2, 3))})
    np.testing.assert_array_equal(prior.multiplier["w"], np.ones((2, 3)))
    draws = family().sample(KEY, prior, 4)
    np.testing.assert_array_equal(draws["w"], np.stack([prior.mean["w"]] * 4))
