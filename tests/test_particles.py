"""Sets of weights."""

import jax
import jax.numpy as jnp
import numpy as np

from gembml import particles
from gembml.particles import Particles

KEY = jax.random.key(0)
THREE = Particles({"w": jnp.arange(6.0).reshape(3, 2), "b": jnp.array([0.0, 10.0, 20.0])})


def test_samples_are_the_particles_in_turn():
    draws = particles.sample(KEY, THREE, 7)
    np.testing.assert_array_equal(draws["b"], [0.0, 10.0, 20.0, 0.0, 10.0, 20.0, 0.0])
    np.testing.assert_array_equal(draws["w"][4], THREE.weights["w"][1])


def test_an_average_over_a_multiple_of_the_particles_is_the_mixture_s():
    draws = particles.sample(KEY, THREE, 6)
    np.testing.assert_allclose(draws["w"].mean(axis=0), THREE.weights["w"].mean(axis=0))


def test_squared_distance_is_summed_over_particles_and_weights_and_leaves_out_precisions():
    left = THREE._replace(log_precision=jnp.zeros(3))
    moved = {"w": THREE.weights["w"].at[1, 0].add(3.0), "b": THREE.weights["b"].at[2].add(-4.0)}
    right = Particles(moved, jnp.ones(3))
    np.testing.assert_allclose(particles.squared_distance(left, right), 9.0 + 16.0)


def test_the_family_starts_at_independent_weights():
    def init(key):
        return {"w": jax.random.normal(key, (4,))}

    start = particles.family(5).init(KEY, init)
    assert len(np.unique(start.weights["w"])) == 20
    assert start.log_precision is None
    with_precision = particles.family(5, 1.5).init(KEY, init)
    np.testing.assert_array_equal(with_precision.log_precision, np.full(5, 1.5))
