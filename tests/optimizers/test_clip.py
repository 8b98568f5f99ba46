"""The cap of a gradient: lengths, particles apart, and a derivative everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gembml.optimizers.clip import clip_norm

GRADIENT = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}  # of length 5


def shortened(gradient, max_norm: float, **options):
    clip = clip_norm(max_norm, **options)
    return clip.update(gradient, clip.init(gradient))[0]


def test_a_longer_gradient_is_shortened_as_optax_does_and_a_shorter_one_kept():
    for max_norm in (2.0, 10.0):
        theirs = optax.clip_by_global_norm(max_norm)
        expected, _ = theirs.update(GRADIENT, theirs.init(GRADIENT))
        mine = shortened(GRADIENT, max_norm)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), mine, expected)


def test_each_particle_has_its_own_cap():
    particles = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.1 * leaf]), GRADIENT)
    mine = shortened(particles, 1.0, per_particle=True)
    np.testing.assert_allclose(mine["a"], [[0.6, 0.0], [0.3, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(mine["b"], [[[0.8]], [[0.4]]], rtol=1e-6)


def test_it_can_be_differentiated_where_the_gradient_is_zero():
    derivative = jax.jacobian(lambda g: shortened(g, 1.0))(jnp.zeros(2))
    np.testing.assert_array_equal(derivative, jnp.eye(2))


def test_a_norm_that_overflows_makes_no_step():
    assert shortened(jnp.full(2, 1e30), 1.0).tolist() == [0.0, 0.0]
