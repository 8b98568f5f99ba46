"""Likelihoods, and weights as one vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gembml import OptionError, ravel, supervised
from gembml.models import MLP
from gembml.problem import (
    Points,
    SupervisedTask,
    gaussian_log_likelihood,
    negative_mean_squared_error,
    outputs,
    unraveler,
)

KEY = jax.random.key(0)
NETWORK = MLP((5,))
PROBLEM = supervised(NETWORK, jnp.zeros((1, 1)), gaussian_log_likelihood(0.3))
POINTS = Points(jnp.linspace(-1, 1, 4)[:, None], jnp.arange(4.0)[:, None])


def test_gaussian_log_likelihood_is_summed_over_the_data():
    prediction, y = jnp.zeros((3, 1)), jnp.array([[0.0], [1.0], [2.0]])
    by_hand = -(0 + 1 + 4) / (2 * 0.3**2) - 3 * np.log(0.3 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(gaussian_log_likelihood(0.3)(prediction, y), by_hand, rtol=1e-6)


def test_mean_squared_error_is_averaged_over_the_data():
    prediction, y = jnp.zeros((3, 1)), jnp.array([[0.0], [1.0], [2.0]])
    np.testing.assert_allclose(negative_mean_squared_error(prediction, y), -5 / 3, rtol=1e-6)


def test_mean_squared_error_is_the_gaussian_likelihood_of_variance_half_the_number_of_data():
    prediction, y = jnp.array([[0.5], [0.1]]), jnp.array([[1.0], [-1.0]])
    gaussian = jax.grad(gaussian_log_likelihood(np.sqrt(2 / 2)))(prediction, y)
    np.testing.assert_allclose(jax.grad(negative_mean_squared_error)(prediction, y), gaussian)


def test_supervised_data_are_the_task_s_own():
    task = SupervisedTask(POINTS, jax.tree.map(jnp.negative, POINTS))
    params = PROBLEM.init(KEY)
    assert PROBLEM.support(KEY, task, params) is task.support
    assert PROBLEM.query(KEY, task, params) is task.query
    predictions = outputs(NETWORK, params, POINTS.x)
    np.testing.assert_allclose(
        PROBLEM.log_likelihood(params, POINTS),
        gaussian_log_likelihood(0.3)(predictions, POINTS.y),
        rtol=1e-6,
    )


@pytest.mark.parametrize("likelihood", [gaussian_log_likelihood(0.3), negative_mean_squared_error])
@pytest.mark.parametrize("y", [jnp.zeros(4), jnp.zeros((1, 1)), jnp.zeros(4, int)])
def test_targets_that_would_be_broadcast_are_refused(likelihood, y):
    with pytest.raises(OptionError, match=r"shape of the network's predictions, \(4, 1\), not"):
        likelihood(jnp.zeros((4, 1)), y)


@pytest.mark.parametrize("axes", [1, 3])
def test_a_task_without_its_axis_and_a_batch_in_its_place_are_refused(axes):
    points = Points(jnp.zeros((1,) * axes), jnp.zeros((1,) * axes))
    with pytest.raises(OptionError, match=f"must have 2 axes, .* and have {axes}"):
        jax.eval_shape(PROBLEM.log_likelihood, PROBLEM.init(KEY), points)


def test_ravel_changes_the_shape_of_the_weights_and_nothing_else():
    flat = ravel(PROBLEM)
    vector, params = flat.init(KEY), PROBLEM.init(KEY)
    assert vector.shape == (1 * 5 + 5 + 5 * 1 + 1,)
    np.testing.assert_array_equal(vector, ravel_pytree(params)[0])
    np.testing.assert_array_equal(
        flat.log_likelihood(vector, POINTS), PROBLEM.log_likelihood(params, POINTS)
    )
    for a, b in zip(*map(jax.tree.leaves, (unraveler(PROBLEM)(vector), params)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ravel_keeps_what_takes_no_weights():
    objective = lambda data: 0.0  # noqa: E731
    flat = ravel(PROBLEM._replace(objective=objective, is_surrogate=True))
    assert flat.objective is objective
    assert flat.is_surrogate


def test_ravel_hands_the_weights_to_the_data_as_a_pytree():
    from_weights = PROBLEM._replace(support=lambda key, task, params: params)
    support = ravel(from_weights).support(KEY, None, ravel(PROBLEM).init(KEY))
    assert jax.tree.structure(support) == jax.tree.structure(PROBLEM.init(KEY))
