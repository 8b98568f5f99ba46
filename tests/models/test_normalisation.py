"""Which images a normalised image depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.models.normalisation import MODES, normalise

X = np.asarray(2 + 3 * jax.random.normal(jax.random.key(0), (5, 3, 3, 2)))
SCALE, BIAS = jnp.array([1.0, 2.0]), jnp.array([0.0, -1.0])
# Image: the images that a change of it changes too, with the first two as the support.
REACH = {
    "transductive": {0: {0, 1, 2, 3, 4}, 4: {0, 1, 2, 3, 4}},
    "support": {0: {0, 1, 2, 3, 4}, 4: {4}},
    "layer": {0: {0}, 4: {4}},
    "none": {0: {0}, 4: {4}},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("changed", [0, 4])
def test_who_depends_on_whom(mode, changed):
    other = X.copy()
    other[changed, 0] += 1.0
    before, after = (normalise(x, SCALE, BIAS, mode=mode, num_reference=2) for x in (X, other))
    reached = np.flatnonzero(np.any(before != after, axis=(1, 2, 3)))
    assert set(reached.tolist()) == REACH[mode][changed]


@pytest.mark.parametrize(
    ("mode", "axes", "images"),
    [("transductive", (0, 1, 2), 5), ("support", (0, 1, 2), 2), ("layer", (1, 2, 3), 5)],
)
def test_the_reference_has_mean_zero_and_variance_one(mode, axes, images):
    y = normalise(X, jnp.ones(2), jnp.zeros(2), mode=mode, num_reference=2)[:images]
    np.testing.assert_allclose(np.mean(y, axes), 0, atol=1e-5)
    # Of a variance of about 9 the added 1e-3 takes 1e-4.
    np.testing.assert_allclose(np.var(y, axes), 1, rtol=1e-3)


def test_scale_and_bias_come_after_and_support_without_a_number_is_transductive():
    plain = normalise(X, jnp.ones(2), jnp.zeros(2), mode="transductive")
    scaled = normalise(X, SCALE, BIAS, mode="support")
    np.testing.assert_allclose(scaled, SCALE * plain + BIAS, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(normalise(X, SCALE, BIAS, mode="none"), SCALE * X + BIAS)


@pytest.mark.parametrize("mode", ["transductive", "support", "layer"])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_a_mean_far_above_the_deviation_costs_no_digits(mode, mean):
    x = np.float32(mean) + np.float32(0.1) * np.asarray(X, np.float32)

    def of(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(normalise(x, SCALE, BIAS, mode=mode, num_reference=2)))

    axes = (1, 2, 3) if mode == "layer" else (0, 1, 2)
    reference = x[:2] if mode == "support" else x
    wide = np.asarray(reference, np.float64)
    variance = wide.var(axes, keepdims=True) + 1e-3
    expected = (x - wide.mean(axes, keepdims=True)) / np.sqrt(variance) * SCALE + BIAS
    y = normalise(x, SCALE, BIAS, mode=mode, num_reference=2)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    # As of numbers around 0, which lose nothing; but the rounding of x itself, 1e-7 of 100.
    near = np.asarray(x - np.float32(mean), np.float32)
    np.testing.assert_allclose(jax.grad(of)(x), jax.grad(of)(near), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("mode", ["transductive", "support", "layer"])
@pytest.mark.parametrize("value", [0.0, 1000.3])
def test_constant_images_are_their_bias_and_their_gradient_is_centred(mode, value):
    def of(x: jax.Array) -> jax.Array:
        return normalise(x, jnp.ones(2), BIAS, mode=mode, num_reference=1)

    x = jnp.full((3, 2, 2, 2), value)
    np.testing.assert_array_equal(of(x), np.broadcast_to(BIAS, x.shape))
    cotangent = jax.random.normal(jax.random.key(1), x.shape)
    found = jax.vjp(of, x)[1](cotangent)[0]
    # The variance is at its minimum: what is left is x less its mean, over sqrt(1e-3).
    axes = (1, 2, 3) if mode == "layer" else (0, 1, 2)
    images = 1 if mode == "support" else 3
    reference = jnp.arange(3)[:, None, None, None] < images
    per_value = np.sum(cotangent, axes, keepdims=True) / np.prod(
        [images if axis == 0 else x.shape[axis] for axis in axes]
    )
    expected = (cotangent - per_value * (1 if mode == "layer" else reference)) / np.sqrt(1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
