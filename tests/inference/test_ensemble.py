"""Independent copies of a point inference."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta
from gembml.inference import ensemble, infer, point, trajectory
from gembml.particles import Particles
from tests.problems import log_likelihood, make_task, make_weights

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
SEEDS = range(3)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.adam(0.05)], ids=["sgd", "adam"])
def test_every_particle_goes_its_own_way(optimizer):
    # Adam shows that each has an optimizer state of its own.
    support = make_task(0).support
    single = point(log_likelihood, optimizer)
    start = Particles(jnp.stack([make_weights(seed) for seed in SEEDS]))
    together = infer(ensemble(single), KEY, start, lambda *_: support, 5)
    alone = jax.jit(lambda w: infer(single, KEY, Delta(w), lambda *_: support, 5).mean)
    for seed in SEEDS:
        np.testing.assert_allclose(together.weights[seed], alone(make_weights(seed)), rtol=1e-10)


def test_the_pull_of_the_prior_is_that_of_the_particle_s_own():
    # Without data, a proximal term holds each particle where it started.
    single = point(lambda w, _: 0.0 * w.sum(), optax.sgd(0.1), proximal_weight=1.0)
    start = Particles(jnp.stack([make_weights(seed) for seed in SEEDS]))
    path = trajectory(ensemble(single), KEY, start, lambda *_: None, 3)
    np.testing.assert_allclose(path.weights[-1], start.weights, rtol=1e-12)
