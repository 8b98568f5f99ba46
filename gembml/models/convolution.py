"""3 x 3 convolutions as matrix products, and as XLA's own.

A task's inner loop has weights of its own, and ``vmap`` of XLA's convolution over weights is a
grouped convolution, which XLA runs slowly on a CPU. Nine shifted copies side by side and one matrix
product (im2col) are the same sum; its gradients are matrix products too.
"""

import functools
import math
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

from gembml.options import check_choice

FORMS = ("im2col", "direct")
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


def matrix_product(x: jax.Array, weights: jax.Array, precision: str = "float32") -> jax.Array:
    """``x [..., K]`` times ``weights [features, K]``, transposed: ``[..., features]``.

    Sums are in float32 whatever the ``precision`` (in float64 if ``x`` is, which only ``bfloat16``
    changes): ``float32`` of the factors, ``tensorfloat32``
    (the device's fast float32: 10 bits of mantissa on NVIDIA's tensor cores, the same as float32 on
    a CPU), or ``bfloat16``.

    Derivatives are in reverse mode only, of any order; ``jax.jvp`` is refused by JAX.

    Raises:
      OptionError: there is no such precision.
    """
    accuracy = _precision(precision)
    if precision == "bfloat16":
        x, weights = x.astype(jnp.bfloat16), weights.astype(jnp.bfloat16)
    *batch, width = x.shape
    rows = cast(jax.Array, _product(x.reshape(math.prod(batch), width), weights, accuracy))
    return rows.reshape(*batch, weights.shape[0])


def _contract(a: jax.Array, b: jax.Array, axes: tuple[int, int], precision: lax.Precision):
    """Sums over these axes of ``a`` and ``b``, in float32 at least."""
    dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    numbers = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(a, b, numbers, precision=precision, preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: jax.Array, weights: jax.Array, precision: lax.Precision) -> jax.Array:
    """``x [n, K]`` times ``weights [features, K]``, transposed."""
    return _contract(x, weights, (1, 1), precision)


def _forward(x: jax.Array, weights: jax.Array, precision: lax.Precision):
    return _product(x, weights, precision), (x, weights)


def _backward(precision: lax.Precision, operands: tuple[jax.Array, jax.Array], dy: jax.Array):
    """Gradients of x and of the weights; for the latter, whichever order transposes less.

    XLA on a CPU writes the transposed operand in a loop with all the elementwise work that made it,
    at a tenth of the usual speed. By JAX's own rule that operand is always ``dy``.
    """
    x, weights = operands
    if x.shape[1] < weights.shape[0]:
        dweights = _contract(x, dy, (0, 0), precision).T
    else:
        dweights = _contract(dy, x, (0, 0), precision)
    dx = _contract(dy, weights, (1, 0), precision)
    return dx.astype(x.dtype), dweights.astype(weights.dtype)


_product.defvjp(_forward, _backward)


def _precision(name: str) -> lax.Precision:
    check_choice("precision", name, PRECISIONS)
    return lax.Precision.HIGHEST if name == "float32" else lax.Precision.DEFAULT


def patches(x: jax.Array, stride: int) -> jax.Array:
    """All 3 x 3 windows of ``x [n, H, W, C]``, padded as SAME: ``[n, H', W', 9 C]``."""
    n, height, width, channels = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    spare_rows = max((rows - 1) * stride + 3 - height, 0)
    spare_columns = max((columns - 1) * stride + 3 - width, 0)
    x = jnp.pad(
        x,
        (
            (0, 0),
            (spare_rows // 2, spare_rows - spare_rows // 2),
            (spare_columns // 2, spare_columns - spare_columns // 2),
            (0, 0),
        ),
    )
    shifted = [
        lax.slice(
            x,
            (0, row, column, 0),
            (n, row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for row in range(3)
        for column in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    form: str = "im2col",
    precision: str = "float32",
) -> jax.Array:
    """A 3 x 3 convolution with padding SAME: ``x [n, H, W, C]`` -> ``[n, H', W', features]``.

    ``kernel`` is ``[features, 3, 3, C]``: its gradient is then a matrix product in the order that
    CPUs run at full speed, [features, n H' W'] times [n H' W', 9 C] (the other order: two thirds);
    where 9 C < features, as in a first layer, :func:`matrix_product` takes the other.

    Raises:
      OptionError: there is no such form or precision.
    """
    check_choice("convolution", form, FORMS)
    if form == "im2col":
        flat = kernel.reshape(kernel.shape[0], -1)
        return matrix_product(patches(x, stride), flat, precision)
    if precision == "bfloat16":
        x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "OHWI", "NHWC"),
        precision=_precision(precision),
    ).astype(jnp.promote_types(x.dtype, jnp.float32))
