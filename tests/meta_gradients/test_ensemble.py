"""EMAML: an ensemble of independent MAMLs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta
from gembml.inference import point
from gembml.meta_gradients import backprop, ensemble
from gembml.particles import Particles
from tests.problems import log_likelihood, make_task, make_weights, problem

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_emaml_is_one_maml_per_particle(num_steps):
    task = make_task(0)
    weights = jnp.stack([make_weights(seed) for seed in range(4)])
    maml = jax.jit(backprop(problem(), point(log_likelihood, optax.sgd(0.1)), num_steps))
    together = jax.jit(ensemble(maml))(KEY, Particles(weights), task)
    for particle, gradient in zip(weights, together.weights, strict=True):
        alone = maml(KEY, Delta(particle), task)
        np.testing.assert_allclose(gradient, alone.mean, rtol=1e-10)
    assert together.log_precision is None
