"""The local reparameterisation: the same expectation as sampling weights, with less variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gembml
from gembml import gaussian
from gembml.inference import weight_samples
from gembml.models import MLP, local_reparameterization
from gembml.problem import Points, gaussian_log_likelihood

DRAWS = 5_000


@pytest.fixture(scope="module")
def problem():
    network = MLP((8,))
    likelihood = gaussian_log_likelihood(0.5)
    return gembml.supervised(network, jnp.zeros((1, 2)), likelihood, local_reparameterization)


@pytest.fixture(scope="module")
def posterior(problem):
    return gaussian.around(problem.init(jax.random.key(0)), -1.5)


@pytest.fixture(scope="module")
def data():
    x_key, y_key = jax.random.split(jax.random.key(1))
    return Points(jax.random.normal(x_key, (6, 2)), jax.random.normal(y_key, (6, 1)))


def draw(expectation, posterior, data):
    """Values and gradients of many independent estimates."""
    estimate = jax.value_and_grad(expectation, argnums=1)
    keys = jax.random.split(jax.random.key(2), DRAWS)
    return jax.jit(jax.vmap(estimate, in_axes=(0, None, None)))(keys, posterior, data)


def test_one_layer_has_the_moments_of_the_gaussian_weights():
    network = MLP(())
    weights = gaussian.around(network.init(jax.random.key(0), jnp.zeros((1, 3))), -0.5)
    x = jax.random.normal(jax.random.key(1), (4, 3))
    keys = jax.random.split(jax.random.key(2), DRAWS)
    outputs = jax.vmap(lambda key: local_reparameterization(key, weights, x))(keys)[..., 0]
    mean = network.apply(weights.mean, x)[:, 0]
    variance = np.exp(-1.0) * (np.sum(x**2, axis=1) + 1)  # Var[W] x^2 + Var[b]
    np.testing.assert_array_less(np.abs(outputs.mean(axis=0) - mean), 5 * np.sqrt(variance / DRAWS))
    # The standard error of a variance is sqrt(2 / n) of it.
    np.testing.assert_allclose(outputs.var(axis=0), variance, rtol=5 * np.sqrt(2 / DRAWS))


def test_expectation_and_gradient_equal_those_of_weight_samples(problem, posterior, data):
    weights = weight_samples(problem.log_likelihood, num_samples=1, antithetic=False)
    by_weights = draw(weights, posterior, data)
    by_outputs = draw(problem.local_log_likelihood, posterior, data)
    for a, b in zip(*map(jax.tree.leaves, (by_weights, by_outputs)), strict=True):
        standard_error = np.sqrt((np.var(a, axis=0) + np.var(b, axis=0)) / DRAWS)
        difference = np.abs(np.mean(a, axis=0) - np.mean(b, axis=0))
        assert np.all(difference <= 5 * standard_error)


def test_gradient_varies_less_than_with_one_weight_sample(problem, posterior, data):
    weights = weight_samples(problem.log_likelihood, num_samples=1, antithetic=False)
    variances = [
        sum(float(np.var(leaf, axis=0).sum()) for leaf in jax.tree.leaves(gradient.mean))
        for _, gradient in (
            draw(weights, posterior, data),
            draw(problem.local_log_likelihood, posterior, data),
        )
    ]
    assert variances[1] < variances[0]


def test_ravelled_problem_gives_the_same_value(problem, posterior, data):
    vector = gembml.ravel(problem)
    ravelled = gaussian.around(vector.init(jax.random.key(0)), -1.5)
    key = jax.random.key(3)
    np.testing.assert_allclose(
        vector.local_log_likelihood(key, ravelled, data),
        problem.local_log_likelihood(key, posterior, data),
        rtol=1e-6,
    )


def test_a_network_without_one_is_refused():
    problem = gembml.supervised(MLP((8,)), jnp.zeros((1, 2)), gaussian_log_likelihood(0.5))
    config = gembml.LearnerConfig(expectation="local")
    with pytest.raises(gembml.OptionError, match="choose weights"):
        gembml.make_learner("gem_bml", problem, config, 10)
