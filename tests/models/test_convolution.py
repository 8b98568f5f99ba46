"""Convolutions as matrix products against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gembml.models.convolution import FORMS, PRECISIONS, convolve, matrix_product

pytestmark = pytest.mark.usefixtures("float64")
FEATURES, CHANNELS = 3, 2


def inputs(height: int, width: int) -> tuple[jax.Array, jax.Array]:
    x_key, kernel_key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(x_key, (2, height, width, CHANNELS), jnp.float64)
    return x, jax.random.normal(kernel_key, (FEATURES, 3, 3, CHANNELS), jnp.float64)


def xla(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    numbers = ("NHWC", "OHWI", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=numbers)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 5), (5, 6), (1, 2)], ids=str)
def test_values_and_gradients_equal_xla_s_convolution(form, stride, size):
    x, kernel = inputs(*size)

    def ours(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = convolve(x, kernel, stride=stride, form=form)
        return jnp.sum(jnp.sin(y)), y

    def expected(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = xla(x, kernel, stride)
        return jnp.sum(jnp.sin(y)), y

    differentiate = [
        jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True)) for f in (ours, expected)
    ]
    for a, b in zip(*(jax.tree.leaves(f(x, kernel)) for f in differentiate), strict=True):
        assert a.dtype == jnp.float64
        # Sums of 18 products in another order.
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_lower_precisions_are_those_of_the_factors_and_results_are_float32(form, precision):
    x, kernel = (a.astype(jnp.float32) for a in inputs(4, 4))
    y = convolve(x, kernel, form=form, precision=precision)
    assert y.dtype == jnp.float32
    # bfloat16 has 8 bits, so each of 18 products of order 1 is off by up to 2^-8.
    tolerance = 18 * 2.0**-8 if precision == "bfloat16" else 1e-5
    np.testing.assert_allclose(y, xla(x, kernel, 1), rtol=0, atol=tolerance)
    assert (np.abs(y - xla(x, kernel, 1)).max() > 1e-4) == (precision == "bfloat16")


def plain_product(x: jax.Array, weights: jax.Array) -> jax.Array:
    return lax.dot_general(x, weights, (((x.ndim - 1,), (1,)), ((), ())))


@pytest.mark.parametrize(("width", "features"), [(5, 9), (9, 5)], ids=["narrow", "wide"])
@pytest.mark.parametrize("batched", [False, True])
def test_the_product_s_derivatives_of_both_orders_are_the_plain_product_s(width, features, batched):
    x_key, w_key, v_key = jax.random.split(jax.random.key(1), 3)
    tasks = (3,) * batched
    x = jax.random.normal(x_key, (*tasks, 4, 2, width), jnp.float64)
    weights = jax.random.normal(w_key, (*tasks, features, width), jnp.float64)
    direction = jax.random.normal(v_key, weights.shape, jnp.float64)

    def derivatives(product):
        def loss(x, weights):
            return jnp.sum(jnp.sin(product(x, weights)) ** 3)

        gradient = jax.grad(loss, argnums=(0, 1))

        def second(x, weights, direction):
            return jnp.sum(jnp.cos(gradient(x, weights - 0.1 * direction)[1]) * direction)

        def both(x, weights, direction):
            return gradient(x, weights), jax.grad(second, argnums=(0, 1))(x, weights, direction)

        return jax.jit(jax.vmap(both) if batched else both)(x, weights, direction)

    ours, expected = (derivatives(product) for product in (matrix_product, plain_product))
    for a, b in zip(*map(jax.tree.leaves, (ours, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_the_product_of_no_rows_is_empty_and_forward_mode_is_refused():
    weights = jnp.ones((4, 7))
    assert matrix_product(jnp.ones((0, 3, 7)), weights).shape == (0, 3, 4)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda w: matrix_product(jnp.ones((2, 7)), w), (weights,), (weights,))
