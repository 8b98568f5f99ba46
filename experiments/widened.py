"""A Gaussian with another width, for studies of what its variance does."""

import jax
import jax.numpy as jnp

from gembml.gaussian import Gaussian


def widened(gaussian: Gaussian, multiplier: float | jax.Array) -> Gaussian:
    """The same means, the standard deviations multiplied; 0 leaves the mean; points stay points."""
    return gaussian._replace(
        log_std=jax.tree.map(lambda ls: ls + jnp.log(multiplier), gaussian.log_std)
    )
