"""Preconditioning against the Fisher matrix itself, and the trust regions' bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from gembml import Delta, Gaussian, OptionError, gaussian, optimizers
from tests.strategies import gaussians, vectors

pytestmark = pytest.mark.usefixtures("float64")
gradients = st.builds(Gaussian, vectors(-100, 100), vectors(-100, 100))


def apply(transformation: optax.GradientTransformation, gradient, params):
    return transformation.update(gradient, transformation.init(params), params)[0]


@jax.jit
def fisher_matrix(q: Gaussian) -> jax.Array:
    """The Hessian of KL(q || q') in q' at q' = q, over (mean, log_std)."""
    flat, unravel = ravel_pytree(q)
    return jax.hessian(lambda other: gaussian.kl_divergence(q, unravel(other)))(flat)


@given(gaussians)
def test_fisher_matrix_is_diagonal_with_inverse_variance_and_two(q):
    diagonal = jnp.concatenate([jnp.exp(-2 * q.log_std), jnp.full(3, 2.0)])
    np.testing.assert_allclose(fisher_matrix(q), jnp.diag(diagonal), rtol=1e-10, atol=1e-10)


@given(gaussians, gradients)
def test_scale_by_fisher_solves_with_the_fisher_matrix(q, gradient):
    scaled = ravel_pytree(apply(optimizers.scale_by_fisher(), gradient, q))[0]
    expected = jnp.linalg.solve(fisher_matrix(q), ravel_pytree(gradient)[0])
    np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-9)


@given(gaussians, gaussians)
def test_natural_gem_gradient_has_no_division_by_the_variance_in_the_mean(prior, posterior):
    natural = apply(optimizers.scale_by_fisher(), gaussian.gem_gradient(prior, posterior), prior)
    np.testing.assert_allclose(natural.mean, posterior.mean - prior.mean, rtol=1e-9, atol=1e-9)


@given(gaussians, gradients, st.floats(0.01, 100))
def test_clip_mean_bounds_the_fisher_norm_and_keeps_the_direction(q, gradient, max_norm):
    clipped = apply(optimizers.clip_mean_in_fisher_norm(max_norm), gradient, q)
    std = jnp.exp(q.log_std)
    before, after = jnp.linalg.norm(std * gradient.mean), jnp.linalg.norm(std * clipped.mean)
    assert after <= max_norm * (1 + 1e-12)
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(before, 1e-12))
    np.testing.assert_allclose(clipped.mean, scale * gradient.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(clipped.log_std, gradient.log_std)


def test_clip_mean_counts_all_leaves_together():
    q = gaussian.around({"a": jnp.zeros(3), "b": jnp.zeros(1)}, 0.0)
    gradient = Gaussian({"a": jnp.zeros(3).at[0].set(3.0), "b": jnp.array([4.0])}, q.log_std)
    clipped = apply(optimizers.clip_mean_in_fisher_norm(1.0), gradient, q)
    np.testing.assert_allclose(clipped.mean["a"], [0.6, 0.0, 0.0])
    np.testing.assert_allclose(clipped.mean["b"], [0.8])


@given(gradients, st.floats(0.0, 10))
def test_scale_log_std_leaves_the_mean(gradient, multiplier):
    scaled = apply(optimizers.scale_log_std(multiplier), gradient, gradient)
    np.testing.assert_array_equal(scaled.mean, gradient.mean)
    np.testing.assert_allclose(scaled.log_std, multiplier * gradient.log_std)


@given(gradients, st.floats(0.01, 10))
def test_clip_log_std_bounds_each_entry_and_leaves_the_mean(gradient, max_step):
    clipped = apply(optimizers.clip_log_std(max_step), gradient, gradient)
    np.testing.assert_array_equal(clipped.mean, gradient.mean)
    np.testing.assert_array_equal(clipped.log_std, np.clip(gradient.log_std, -max_step, max_step))


@given(gaussians, gradients)
def test_natural_gradient_step_without_bounds_is_the_formula(q, gradient):
    optimizer = optimizers.natural_gradient(
        0.1, log_std_multiplier=3.0, max_mean_norm=1e9, max_log_std_step=1e9
    )
    step = apply(optimizer, gradient, q)
    np.testing.assert_allclose(
        step.mean, -0.1 * jnp.exp(2 * q.log_std) * gradient.mean, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        step.log_std, -0.1 * 3.0 * gradient.log_std / 2, rtol=1e-9, atol=1e-12
    )


@given(gaussians, gradients)
def test_natural_gradient_step_moves_the_mean_by_a_bounded_number_of_standard_deviations(
    q, gradient
):
    optimizer = optimizers.natural_gradient(0.1, max_mean_norm=2.0, max_log_std_step=0.3)
    step = apply(optimizer, gradient, q)
    assert jnp.linalg.norm(step.mean / jnp.exp(q.log_std)) <= 0.1 * 2.0 * (1 + 1e-12)
    assert jnp.abs(step.log_std).max() <= 0.3


@pytest.mark.parametrize(
    "transformation", [optimizers.scale_by_fisher(), optimizers.clip_mean_in_fisher_norm(1.0)]
)
def test_a_delta_posterior_is_refused(transformation):
    delta = Delta(jnp.zeros(3))
    with pytest.raises(OptionError, match="need a Gaussian as parameters, not Delta"):
        apply(transformation, delta, delta)
