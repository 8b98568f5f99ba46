"""LLAMA's meta-gradient: fit and log determinant, through the inner loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta
from gembml.inference import point
from gembml.meta_gradients import backprop, laplace_evidence
from tests.problems import log_likelihood, make_task, make_weights, problem

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
ALPHA, PRIOR_LOG_STD = 0.1, 0.3


def whitened_outputs(weights, data):
    # -log P = (tanh(x w) - y)^2 is a Gaussian of variance 1/2.
    return jnp.sqrt(2.0) * jnp.tanh(data.x @ weights)


def llama(num_steps: int, curvature_weight: float):
    return jax.jit(
        laplace_evidence(
            problem(),
            point(log_likelihood, optax.sgd(ALPHA)),
            whitened_outputs,
            num_steps,
            prior_log_std=PRIOR_LOG_STD,
            curvature_weight=curvature_weight,
        )
    )


def evidence(weights, task, num_steps: int, curvature_weight: float):
    """By hand: d tanh(x w) / dw = (1 - tanh^2) x."""
    for _ in range(num_steps):
        weights = weights + ALPHA * jax.grad(log_likelihood)(weights, task.support)
    jacobian = (1 - jnp.tanh(task.query.x @ weights) ** 2)[:, None] * task.query.x
    fisher = 2 * jnp.sum(jacobian**2, axis=0)
    log_determinant = jnp.log(fisher + jnp.exp(-2 * PRIOR_LOG_STD)).sum()
    return log_likelihood(weights, task.query) - curvature_weight * log_determinant


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("curvature_weight", [0.5, 100.0])
def test_llama_s_gradient_agrees_with_finite_differences(num_steps, curvature_weight):
    # With weight 100 nearly all of it is the log determinant's.
    task, weights = make_task(0), make_weights(0)
    gradient = llama(num_steps, curvature_weight)(KEY, Delta(weights), task).mean
    value = jax.jit(lambda w: evidence(w, task, num_steps, curvature_weight))
    step = 1e-5
    differences = [
        (value(weights + step * unit) - value(weights - step * unit)) / (2 * step)
        for unit in jnp.eye(3)
    ]
    # Central differences: step^2 = 1e-10 times a third derivative, and rounding 1e-16 / step, both
    # times up to 100.
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-7)


def test_llama_without_curvature_is_maml():
    task, prior = make_task(1), Delta(make_weights(1))
    maml = backprop(problem(), point(log_likelihood, optax.sgd(ALPHA)), 2)(KEY, prior, task)
    np.testing.assert_allclose(llama(2, 0.0)(KEY, prior, task).mean, maml.mean, rtol=1e-10)
