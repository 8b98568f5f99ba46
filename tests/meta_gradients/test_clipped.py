"""A limit on what one task can do to the prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import Delta
from gembml.meta_gradients import clipped

KEY = jax.random.key(0)


def of_task(key, prior, task):  # noqa: ARG001
    return Delta({"a": task, "b": 2 * task})


@pytest.mark.parametrize("length", [0.1, 5.0])
def test_a_gradient_keeps_its_direction_and_is_never_longer_than_the_limit(length):
    task = jnp.array([length, 0.0])
    free, limited = of_task(KEY, None, task).mean, clipped(of_task, 1.0)(KEY, None, task).mean
    norm = np.sqrt(5) * length
    factor = min(1.0, 1.0 / norm)
    for name in free:
        np.testing.assert_allclose(limited[name], factor * free[name], rtol=1e-6)


@pytest.mark.parametrize("value", [jnp.inf, jnp.nan, 1e30])
def test_a_task_that_blew_up_counts_as_zero(value):
    # 1e30 is finite and its square is not.
    limited = clipped(of_task, 1.0)(KEY, None, jnp.array([value, 1.0])).mean
    np.testing.assert_array_equal(limited["a"], 0.0)
    np.testing.assert_array_equal(limited["b"], 0.0)
