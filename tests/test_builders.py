"""The inner loop's optimizer as options describe it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gembml import LearnerConfig, OptionError
from gembml.builders import inner_optimizer


def test_a_cap_of_the_gradient_would_lengthen_polyak_s_steps_and_is_refused():
    config = LearnerConfig(inner_optimizer="polyak_sgd(eps=1.0)", max_inner_gradient_norm=5.0)
    with pytest.raises(OptionError, match="the longer the shorter the gradient"):
        inner_optimizer(config)


@pytest.mark.parametrize("name", ["sgd", "trpo", "polyak_sgd(max_learning_rate=1e-3)"])
@pytest.mark.parametrize(("later", "lengths"), [(False, (1.0, 0.5, 0.25)), (True, (0.5, 0.25))])
def test_each_step_is_a_share_of_the_one_before(name, later, lengths):
    config = LearnerConfig(inner_optimizer=name, inner_learning_rate=0.1, max_kl=0.02)

    def steps(share: float) -> list[np.ndarray]:
        optimizer = inner_optimizer(dataclasses.replace(config, later_rate=share), later=later)
        weights, slope = jnp.zeros(2), jnp.array([3.0, 4.0])
        state, taken = optimizer.init(weights), []
        for _ in lengths:
            step, state = optimizer.update(
                slope,
                state,
                weights,
                value=jnp.float32(1.0),
                value_fn=lambda w: slope @ w,
                divergence_fn=lambda w: 0.5 * w @ w,
            )
            taken.append(np.asarray(step))
        return taken

    for whole, part, length in zip(steps(1.0), steps(0.5), lengths, strict=True):
        np.testing.assert_allclose(part, length * whole, rtol=1e-6)
