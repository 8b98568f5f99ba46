"""Gradient steps of any optax optimizer on the log-likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta
from gembml.inference import infer, point
from tests.problems import log_likelihood, make_task, make_weights

KEY = jax.random.key(0)
SUPPORT = make_task(0).support


def test_point_inference_is_the_optimizer_run_by_hand():
    optimizer = optax.adam(0.05)
    weights = make_weights(0)
    state = optimizer.init(weights)
    for _ in range(7):
        gradient = jax.grad(log_likelihood)(weights, SUPPORT)
        updates, state = optimizer.update(jax.tree.map(jnp.negative, gradient), state, weights)
        weights = optax.apply_updates(weights, updates)
    inference = point(log_likelihood, optimizer)
    end = infer(inference, KEY, Delta(make_weights(0)), lambda *_: SUPPORT, 7)
    # float32 rounding; Adam's division by the square root amplifies it.
    np.testing.assert_allclose(end.mean, weights, rtol=1e-4, atol=1e-5)


def test_first_order_takes_the_same_steps():
    ends = [
        infer(
            point(log_likelihood, optax.sgd(0.1), first_order=first_order),
            KEY,
            Delta(make_weights(0)),
            lambda *_: SUPPORT,
            3,
        ).mean
        for first_order in (False, True)
    ]
    np.testing.assert_array_equal(*ends)


def distance(weights: jax.Array, goal: jax.Array) -> jax.Array:
    return jnp.linalg.norm(weights - goal)


def test_polyak_s_step_ends_at_the_tip_of_a_cone():
    """Along the gradient gap / |gradient|^2 is how far the tip of a cone is, from anywhere."""
    goal = jnp.array([0.3, -2.0])
    inference = point(lambda w, goal: -distance(w, goal), optax.polyak_sgd(max_learning_rate=100.0))
    for start in ([4.0, 1.0], [0.31, -2.0]):
        end = infer(inference, KEY, Delta(jnp.array(start)), lambda *_: goal, 1)
        np.testing.assert_allclose(end.mean, goal, atol=1e-5)


@pytest.mark.parametrize("first_order", [False, True])
def test_an_objective_is_the_value_of_a_likelihood_that_has_only_its_gradient(first_order):
    """The likelihood has another value, and the step is as long as the objective says."""
    goal = jnp.array([0.3, -2.0])
    inference = point(
        lambda w, data: 7.0 - distance(w, data[0]),
        optax.polyak_sgd(max_learning_rate=100.0),
        first_order=first_order,
        objective=lambda data: -data[1],
    )

    prior = Delta(jnp.array([4.0, 1.0]))

    def collect(key, weights):
        del key
        return goal, distance(weights, goal)

    end = infer(inference, KEY, prior, collect, 1)
    np.testing.assert_allclose(end.mean, goal, atol=1e-5)
    # What data say of the objective is a constant, as they are: from another start the step would
    # be as long, in the direction from there.
    jacobian = jax.jacobian(lambda m: infer(inference, KEY, Delta(m), collect, 1).mean)(prior.mean)
    along = (prior.mean - goal) / distance(prior.mean, goal)
    expected = np.eye(2) if first_order else np.outer(along, along)
    np.testing.assert_allclose(jacobian, expected, atol=1e-5)


def test_inference_raises_the_likelihood():
    prior = Delta(make_weights(0))
    end = infer(point(log_likelihood, optax.sgd(0.1)), KEY, prior, lambda *_: SUPPORT, 20)
    assert log_likelihood(end.mean, SUPPORT) > log_likelihood(prior.mean, SUPPORT)
