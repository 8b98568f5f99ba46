"""The Laplace approximation: its curvature, and where it is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from gembml import Delta, gaussian
from gembml.inference import infer, laplace, point, trajectory
from gembml.inference.laplace import diagonal_fisher
from tests import conjugate, problems

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


def test_the_diagonal_fisher_is_the_diagonal_of_the_dense_one():
    keys = jax.random.split(KEY, 4)
    params = {
        "w": jax.random.normal(keys[0], (3, 4)),
        "v": jax.random.normal(keys[1], (4, 2)),
        "b": jax.random.normal(keys[2], (2,)),
    }
    x = jax.random.normal(keys[3], (5, 3))

    def outputs(params, x):
        return jnp.tanh(x @ params["w"]) @ params["v"] + params["b"]

    flat, unravel = ravel_pytree(params)
    jacobian = jax.jit(jax.jacfwd(lambda vector: outputs(unravel(vector), x).ravel()))(flat)
    dense = jacobian.T @ jacobian
    diagonal = jax.jit(lambda params: diagonal_fisher(outputs, params, x))(params)
    np.testing.assert_allclose(ravel_pytree(diagonal)[0], jnp.diag(dense), rtol=1e-10)


@pytest.mark.parametrize("prior_log_std", [-0.5, 0.4])
def test_it_is_the_exact_posterior_of_an_orthogonal_linear_regression(prior_log_std):
    # The likelihood is Gaussian in the weights, X^T X is diagonal, and a proximal term of weight
    # 1 / sigma^2 is the prior: the optimum is the mean, the curvature the precision.
    data, mean = conjugate.make_task(0).support, jnp.linspace(-1.0, 1.0, 5)
    map_estimate = point(
        conjugate.log_likelihood,
        optax.sgd(0.04),  # below 2 / (2^2 / 0.5^2 + e): it converges
        proximal_weight=float(np.exp(-2 * prior_log_std)),
    )
    inference = laplace(
        map_estimate,
        lambda weights, data: data.x @ weights / conjugate.NOISE_STD,
        prior_log_std=prior_log_std,
    )
    posterior = infer(inference, KEY, Delta(mean), lambda *_: data, 1000)
    exact = conjugate.exact_posterior(gaussian.around(mean, prior_log_std), data)
    np.testing.assert_allclose(posterior.mean, exact.mean, rtol=1e-9)
    np.testing.assert_allclose(posterior.log_std, exact.log_std, rtol=1e-9)


def test_the_path_is_the_point_s_and_starts_with_the_prior_s_spread():
    task, weights = problems.make_task(0), problems.make_weights(0)
    single = point(problems.log_likelihood, optax.adam(0.05))

    def outputs(w, data):
        return jnp.sqrt(2.0) * jnp.tanh(data.x @ w)

    inference = laplace(single, outputs, prior_log_std=0.2)
    path = trajectory(inference, KEY, Delta(weights), lambda *_: task.support, 4)
    expected = trajectory(single, KEY, Delta(weights), lambda *_: task.support, 4)
    np.testing.assert_allclose(path.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(path.log_std[0], 0.2)
    precision = diagonal_fisher(outputs, path.mean[3], task.support) + np.exp(-0.4)
    np.testing.assert_allclose(path.log_std[3], -0.5 * np.log(precision), rtol=1e-10)
    # Data only add to the prior's precision.
    assert bool((path.log_std[1:] < 0.2).all())
