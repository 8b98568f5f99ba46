"""A limit on what one task can do to the prior."""

import jax.numpy as jnp
import numpy as np
import pytest

from gembml import Delta
from gembml.meta_gradients import clipped


def gradient_of(task) -> Delta:
    return Delta({"a": task, "b": 2 * task})


@pytest.mark.parametrize("length", [0.1, 5.0])
def test_a_gradient_keeps_its_direction_and_is_never_longer_than_the_limit(length):
    free = gradient_of(jnp.array([length, 0.0]))
    limited, lost = clipped(free, 1.0)
    norm = np.sqrt(5) * length
    factor = min(1.0, 1.0 / norm)
    for name in free.mean:
        np.testing.assert_allclose(limited.mean[name], factor * free.mean[name], rtol=1e-6)
    assert lost == 0


@pytest.mark.parametrize("value", [jnp.inf, jnp.nan, 1e30])
def test_a_task_that_blew_up_counts_as_zero(value):
    # 1e30 is finite and its square is not.
    limited, lost = clipped(gradient_of(jnp.array([value, 1.0])), 1.0)
    np.testing.assert_array_equal(limited.mean["a"], 0.0)
    np.testing.assert_array_equal(limited.mean["b"], 0.0)
    assert lost == 1
