"""Appendix A.3: the constants by quadrature, the valid bound, and the gap of the printed one."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from gembml import Gaussian, gaussian, gem_gradient
from gembml.meta_gradients.error_bound import chi_squared, score_norm

pytestmark = pytest.mark.usefixtures("float64")


def one_weight(mean: float, std: float) -> Gaussian:
    return Gaussian(jnp.array([mean]), jnp.log(jnp.array([std])))


def log_density(distribution: Gaussian, x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.vmap(lambda v: gaussian.log_prob(distribution, v[None]))(jnp.asarray(x)))


# Near twice the variance q^2 / p is far wider than q and p.
GRID = np.linspace(-200.0, 200.0, 100_001)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-1.0, 1.3), (0.2, 1.41)])
def test_chi_squared_by_quadrature(mean, std):
    approximation, exact = one_weight(mean, std), one_weight(0.1, 1.0)
    log_integrand = 2 * log_density(approximation, GRID) - log_density(exact, GRID)
    integral = np.trapezoid(np.exp(log_integrand), GRID)
    np.testing.assert_allclose(chi_squared(approximation, exact), integral - 1, 1e-6, 1e-9)


@pytest.mark.parametrize("std", [np.sqrt(2) * 1.0001, 2.0, 10.0])
def test_chi_squared_is_infinite_from_twice_the_variance_on(std):
    assert chi_squared(one_weight(0.0, std), one_weight(0.0, 1.0)) == jnp.inf


def test_the_score_norm_by_quadrature():
    prior, posterior = one_weight(0.4, 1.5), one_weight(-0.3, 0.6)
    z = (GRID - 0.4) / 1.5
    squared = (z / 1.5) ** 2 + (z**2 - 1) ** 2
    expected = np.trapezoid(np.exp(log_density(posterior, GRID)) * squared, GRID)
    np.testing.assert_allclose(score_norm(prior, posterior) ** 2, expected, rtol=1e-8)


def error(prior: Gaussian, approximation: Gaussian, exact: Gaussian) -> jax.Array:
    of_both = (gem_gradient(prior, approximation), gem_gradient(prior, exact))
    leaves = jax.tree.leaves(jax.tree.map(jnp.subtract, *of_both))
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))


gaussians = st.tuples(
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.lists(st.floats(-1.5, 1.0), min_size=3, max_size=3),
).map(lambda pair: Gaussian(*map(jnp.array, pair)))


@hypothesis.given(prior=gaussians, approximation=gaussians, exact=gaussians)
def test_the_valid_bound_holds_for_all_gaussians(prior, approximation, exact):
    bound = score_norm(prior, exact) * jnp.sqrt(chi_squared(approximation, exact))
    assert error(prior, approximation, exact) <= bound * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("v", [0.8, 0.9, 0.95])
def test_the_printed_bound_fails_for_a_weak_likelihood_before_the_first_step(v):
    prior, exact = one_weight(0.0, 100.0), one_weight(0.0, 100.0 * np.sqrt(v))
    squared_bound = score_norm(prior, exact) ** 2 * 2 * gaussian.kl_divergence(prior, exact)
    squared_error = error(prior, prior, exact) ** 2
    assert squared_bound < squared_error
    # The docstring's expansion, whose rest is of second order in e = 1 - v.
    e = 1 - v
    np.testing.assert_allclose(squared_bound / squared_error, 1 - 2 * e / 3, atol=e**2)


def test_nothing_bounds_the_error_over_the_printed_bound_of_a_wide_approximation():
    prior, exact = one_weight(0.0, 100.0), one_weight(0.0, 50.0)
    quotients = []
    for r in (10.0, 100.0, 1000.0):
        wide = one_weight(0.0, 50.0 * np.sqrt(r))
        divergence = gaussian.kl_divergence(wide, exact)
        printed = score_norm(prior, exact) * jnp.sqrt(2 * divergence)
        quotients.append(float(error(prior, wide, exact) / printed))
        assert chi_squared(wide, exact) == jnp.inf
    assert 1 < 2 * quotients[0] < quotients[1] < quotients[2] / 2
