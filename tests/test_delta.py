"""Point masses."""

import jax
import jax.numpy as jnp
import numpy as np

from gembml import Delta, delta, gaussian, gem_gradient


def test_samples_are_copies():
    point = Delta({"a": jnp.arange(3.0), "b": jnp.array(1.0)})
    draws = delta.sample(jax.random.key(0), point, 4)
    np.testing.assert_array_equal(draws["a"], np.tile(np.arange(3.0), (4, 1)))
    np.testing.assert_array_equal(draws["b"], np.ones(4))


def test_gem_gradient_is_the_gaussian_one_with_unit_prior_variance():
    mu, m = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.0, 3.0, 0.5])
    expected = gem_gradient(gaussian.around(mu, 0.0), gaussian.around(m, -1.0)).mean
    np.testing.assert_allclose(delta.gem_gradient(Delta(mu), Delta(m)).mean, expected)


def test_family_is_made_of_the_weights_themselves():
    family = delta.family()
    params = {"w": jnp.arange(3.0)}
    assert family.init(jax.random.key(0), lambda key: params).mean is params
