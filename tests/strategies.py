"""Random inputs for property tests."""

import jax
import jax.numpy as jnp
from hypothesis import strategies as st

from gembml import Gaussian


def vectors(low: float, high: float) -> st.SearchStrategy[jax.Array]:
    """Three float64 numbers in [low, high]."""
    numbers = st.floats(low, high, allow_subnormal=False)
    return st.lists(numbers, min_size=3, max_size=3).map(lambda v: jnp.array(v, jnp.float64))


gaussians = st.builds(Gaussian, vectors(-3, 3), vectors(-2, 1))
