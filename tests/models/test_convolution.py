"""Convolutions as matrix products against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gembml.models.convolution import FORMS, PRECISIONS, convolve

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
