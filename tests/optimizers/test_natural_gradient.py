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


def test_steps_have_a_finite_derivative_where_the_gradient_is_zero():
    # As where a network is saturated and the posterior still at the prior.
    q = Gaussian(jnp.zeros(3), jnp.zeros(3))
    step = optimizers.natural_gradient(0.1)
    derivative = jax.jacobian(lambda mean: apply(step, Gaussian(mean, jnp.zeros(3)), q).mean)
    np.testing.assert_allclose(derivative(jnp.zeros(3)), -0.1 * jnp.eye(3))


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


def shared(q: Gaussian) -> Gaussian:
    """Three weights with one standard deviation, and three points."""
    return Gaussian({"w": q.mean, "p": q.mean}, {"w": q.log_std[0], "p": None})


@given(gaussians, gradients)
def test_scale_by_fisher_solves_with_the_fisher_matrix_of_a_shared_std(q, gradient):
    q, gradient = shared(q), shared(gradient)
    scaled = apply(optimizers.scale_by_fisher(), gradient, q)
    diagonal = jnp.diag(fisher_matrix(Gaussian(q.mean["w"], q.log_std["w"])))
    flat = jnp.append(gradient.mean["w"], gradient.log_std["w"])
    np.testing.assert_allclose(diagonal[3], 2 * 3, rtol=1e-9)  # of three weights
    np.testing.assert_allclose(
        jnp.append(scaled.mean["w"], scaled.log_std["w"]), flat / diagonal, rtol=1e-9, atol=1e-9
    )
    assert scaled.log_std["p"] is None
    np.testing.assert_array_equal(scaled.mean["p"], gradient.mean["p"])


@given(gaussians, gradients)
def test_natural_gradient_steps_take_shared_stds_and_points(q, gradient):
    q, gradient = shared(q), shared(gradient)
    step = apply(optimizers.natural_gradient(0.1, max_mean_norm=2.0), gradient, q)
    assert step.log_std["p"] is None
    lengths = jnp.append(step.mean["w"] / jnp.exp(q.log_std["w"]), step.mean["p"])
    assert jnp.linalg.norm(lengths) <= 0.1 * 2.0 * (1 + 1e-12)
    assert abs(step.log_std["w"]) <= 0.3


def test_cap_log_std_rise_counts_from_the_start_and_lets_it_fall():
    cap = optimizers.cap_log_std_rise(1.2)
    start = Gaussian({"w": jnp.zeros(3), "p": jnp.ones(2)}, {"w": jnp.array(-3.0), "p": None})
    state, params = cap.init(start), start
    reached = []
    for wish in (1.0, 1.0, 5.0, -2.0, 0.5):
        updates = Gaussian(jax.tree.map(jnp.ones_like, params.mean), {"w": wish, "p": None})
        step, state = cap.update(updates, state, params)
        params = optax.apply_updates(params, step)
        reached.append(float(params.log_std["w"]))
    np.testing.assert_allclose(reached, [-2.0, -1.8, -1.8, -3.8, -3.3])
    np.testing.assert_array_equal(params.mean["w"], np.full(3, 5.0))
    assert params.log_std["p"] is None
