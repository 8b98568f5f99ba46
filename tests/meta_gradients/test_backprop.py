"""MAML and first-order MAML against losses unrolled by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta
from gembml.base import MetaGradient
from gembml.inference import point
from gembml.meta_gradients import backprop
from tests.problems import (
    log_likelihood,
    make_task,
    make_weights,
    problem,
    quadratic_log_likelihood,
)

pytestmark = pytest.mark.usefixtures("float64")
ALPHA = 0.1
KEY = jax.random.key(0)
# float64 rounding over a few steps.
RTOL = 1e-10


def maml(likelihood, num_steps: int, *, first_order: bool = False) -> MetaGradient:
    inference = point(likelihood, optax.sgd(ALPHA), first_order=first_order)
    return backprop(problem(likelihood), inference, num_steps)


def adapted(weights, data, likelihood, num_steps: int):
    for _ in range(num_steps):
        weights = weights + ALPHA * jax.grad(likelihood)(weights, data)
    return weights


@pytest.mark.parametrize("num_steps", [1, 3, 7])
def test_maml_gradient_equals_autodiff_of_the_loss_unrolled_by_hand(num_steps):
    task, weights = make_task(0), make_weights(0)

    def query_log_likelihood(w):
        return log_likelihood(adapted(w, task.support, log_likelihood, num_steps), task.query)

    gradient = maml(log_likelihood, num_steps)(KEY, Delta(weights), task)
    np.testing.assert_allclose(gradient.mean, jax.grad(query_log_likelihood)(weights), rtol=RTOL)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_maml_gradient_on_a_quadratic_is_the_query_gradient_times_powers_of_identity_minus_alpha_h(
    num_steps,
):
    task, weights = make_task(1), make_weights(1)
    hessian = task.support.x.T @ task.support.x
    contraction = np.linalg.matrix_power(np.eye(3) - ALPHA * hessian, num_steps)
    end = adapted(weights, task.support, quadratic_log_likelihood, num_steps)
    query_gradient = task.query.x.T @ (task.query.y - task.query.x @ end)
    gradient = maml(quadratic_log_likelihood, num_steps)(KEY, Delta(weights), task)
    np.testing.assert_allclose(gradient.mean, contraction @ query_gradient, rtol=RTOL)


@pytest.mark.parametrize("num_steps", [1, 3, 7])
def test_first_order_maml_gradient_is_maml_without_the_hessian(num_steps):
    # Every factor (I - alpha H) becomes I: what is left is the query's gradient at the end.
    task, weights = make_task(2), make_weights(2)
    end = adapted(weights, task.support, log_likelihood, num_steps)
    gradient = maml(log_likelihood, num_steps, first_order=True)(KEY, Delta(weights), task)
    np.testing.assert_allclose(gradient.mean, jax.grad(log_likelihood)(end, task.query), rtol=RTOL)
    second_order = maml(log_likelihood, num_steps)(KEY, Delta(weights), task)
    assert jnp.abs(second_order.mean - gradient.mean).max() > 1e-3


def test_query_data_are_collected_with_the_adapted_weights_and_are_constants():
    task, weights = make_task(3), make_weights(3)
    # The query "data" are the weights that they were collected with, as rollouts depend on the
    # policy: d/dTheta of <theta', stop_gradient(theta')> is half that of |theta'|^2.
    from_weights = problem()._replace(
        log_likelihood=lambda w, data: (
            log_likelihood(w, task.support) if data is task.support else jnp.vdot(w, data)
        ),
        support=lambda key, _, params: task.support,
        query=lambda key, _, params: params,
    )
    inference = point(log_likelihood, optax.sgd(ALPHA))
    gradient = backprop(from_weights, inference, 2)(KEY, Delta(weights), task)
    adapt = lambda w: adapted(w, task.support, log_likelihood, 2)  # noqa: E731
    expected = jax.grad(lambda w: 0.5 * jnp.sum(adapt(w) ** 2))(weights)
    np.testing.assert_allclose(gradient.mean, expected, rtol=RTOL)
