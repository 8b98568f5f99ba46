"""Batch and layer normalisation without running averages, with explicit statistics."""

import jax
import jax.numpy as jnp

from gembml.options import check_choice

MODES = ("transductive", "support", "layer", "none")
_EPSILON = 1e-3


def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, mode: str, num_reference: int = 0
) -> jax.Array:
    """``scale`` (x - mean) / sqrt(variance + 1e-3) + ``bias``, by channel.

    Args:
      x: ``[n, H, W, channels]``.
      scale: ``[channels]``.
      bias: ``[channels]``.
      mode: whose mean and variance:

        * ``transductive``: those of all of ``x``, so that a prediction depends on the images that
          it is asked for together with. Published numbers of the MAML family are of this kind.
        * ``support``: those of the first ``num_reference`` images (of all, if that is 0).
        * ``layer``: those of each image, over positions and channels (Ba, Kiros & Hinton 2016).
        * ``none``: no normalisation; ``scale`` and ``bias`` remain.
      num_reference: see ``support``.

    Raises:
      OptionError: there is no such mode.
    """
    check_choice("normalisation", mode, MODES)
    if mode == "none":
        return scale * x + bias
    axes = (1, 2, 3) if mode == "layer" else (0, 1, 2)
    reference = x[:num_reference] if mode == "support" and num_reference else x
    # E d^2 - (E d)^2 needs one pass over x, and its gradient none but that of x itself; d is the
    # distance to one pixel, so that a mean far above the deviation costs no digits.
    first = tuple(slice(None) if axis not in axes else slice(1) for axis in range(4))
    shift = jax.lax.stop_gradient(reference[first])
    moved = reference - shift
    offset = jnp.mean(moved, axes, keepdims=True)
    variance = jnp.mean(jnp.square(moved), axes, keepdims=True) - jnp.square(offset)
    scale = scale * jax.lax.rsqrt(jnp.maximum(variance, 0.0) + _EPSILON)
    return (x - shift) * scale + (bias - offset * scale)
