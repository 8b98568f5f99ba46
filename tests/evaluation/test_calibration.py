"""Calibration errors by hand, and the laws of binning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gembml.evaluation import (
    Bins,
    bin_predictions,
    ci95,
    expected_calibration_error,
    expected_calibration_error_ci95,
    maximum_calibration_error,
)


def _two_classes(confidences):
    """Predictions of class 0 with these confidences."""
    first = jnp.array(confidences)
    return jnp.stack([first, 1 - first], axis=-1)


def _random(seed, n=40, ways=4):
    keys = jax.random.split(jax.random.key(seed), 2)
    probabilities = jax.nn.softmax(2.0 * jax.random.normal(keys[0], (n, ways)))
    return probabilities, jax.random.randint(keys[1], (n,), 0, ways)


def test_both_errors_by_hand():
    # Bin (0.6, 0.8]: 0.7 right, 0.8 wrong; bin (0.8, 1]: 0.9 right, 0.95 right.
    bins = bin_predictions(_two_classes([0.7, 0.8, 0.9, 0.95]), jnp.array([0, 1, 0, 0]), 5)
    np.testing.assert_allclose(bins.count, [0, 0, 0, 2, 2])
    np.testing.assert_allclose(bins.confidence, [0, 0, 0, 1.5, 1.85], rtol=1e-6)
    np.testing.assert_allclose(bins.correct, [0, 0, 0, 1, 2])
    # |1/2 - 0.75| = 0.25 and |1 - 0.925| = 0.075, half of the predictions each.
    np.testing.assert_allclose(expected_calibration_error(bins), 0.1625, rtol=1e-5)
    np.testing.assert_allclose(maximum_calibration_error(bins), 0.25, rtol=1e-5)


def test_the_interval_over_tasks_is_that_of_a_mean_where_no_gaps_cancel():
    # Every task too sure in both bins: the ECE is the mean over tasks of their gaps.
    generator = np.random.default_rng(1)
    gaps = generator.uniform(0.1, 0.9, (400, 3, 2))  # tasks, steps, bins
    bins = Bins(np.full(gaps.shape, 5.0), 5.0 * gaps, np.zeros(gaps.shape))
    half = expected_calibration_error_ci95(bins)
    assert half.shape == (3,)
    np.testing.assert_allclose(half, ci95(gaps.mean(axis=-1)), rtol=0.1)
    alike = jax.tree.map(lambda a: np.broadcast_to(a[:1], a.shape), bins)
    np.testing.assert_allclose(expected_calibration_error_ci95(alike), 0.0, atol=1e-12)


@pytest.mark.parametrize("num_bins", [2, 10, 15, 20])
def test_bins_are_closed_on_the_right(num_bins):
    # The predicted class of two has a confidence of 1/2 at least.
    edges = [m for m in range(1, num_bins + 1) if 2 * m >= num_bins]
    exact = np.array([m / num_bins for m in edges], dtype=np.float32)
    above = np.nextafter(exact[:-1], np.float32(2))
    for confidences, shift in ((exact, 0), (above, 1)):
        for edge, confidence in zip(edges, confidences, strict=False):
            bins = bin_predictions(_two_classes([confidence]), jnp.array([0]), num_bins)
            assert np.flatnonzero(bins.count).tolist() == [edge - 1 + shift]


@given(seed=st.integers(0, 1000), num_bins=st.sampled_from([1, 10, 15]))
def test_bins_hold_every_prediction_once(seed, num_bins):
    probabilities, labels = _random(seed)
    bins = bin_predictions(probabilities, labels, num_bins)
    assert bins.count.shape == (num_bins,)
    assert jnp.sum(bins.count) == len(labels)
    np.testing.assert_allclose(jnp.sum(bins.confidence), probabilities.max(-1).sum(), rtol=1e-5)
    assert jnp.sum(bins.correct) == jnp.sum(probabilities.argmax(-1) == labels)
    top = np.arange(1, num_bins + 1) / num_bins
    assert np.all(bins.confidence <= bins.count * top + 1e-4)
    assert np.all(bins.confidence >= bins.count * (top - 1 / num_bins) - 1e-4)


@given(seed=st.integers(0, 1000), split=st.sampled_from([1, 15, 39]))
def test_bins_of_tasks_add_up(seed, split):
    probabilities, labels = _random(seed)
    whole = bin_predictions(probabilities, labels, 15)
    first = bin_predictions(probabilities[:split], labels[:split], 15)
    second = bin_predictions(probabilities[split:], labels[split:], 15)
    for total, a, b in zip(whole, first, second, strict=True):
        np.testing.assert_allclose(total, a + b, rtol=1e-5)


@given(seed=st.integers(0, 1000))
def test_expected_is_at_most_maximum_and_both_are_shares(seed):
    bins = bin_predictions(*_random(seed), 15)
    expected, maximum = expected_calibration_error(bins), maximum_calibration_error(bins)
    assert 0 <= expected <= maximum + 1e-6
    assert maximum <= 1


@given(seed=st.integers(0, 1000))
def test_merging_bins_never_raises_the_expected_error(seed):
    # The triangle inequality: |a + b| <= |a| + |b|.
    probabilities, labels = _random(seed)
    fine = expected_calibration_error(bin_predictions(probabilities, labels, 20))
    coarse = expected_calibration_error(bin_predictions(probabilities, labels, 10))
    assert coarse <= fine + 1e-6


def test_a_calibrated_classifier_has_almost_no_error():
    keys = jax.random.split(jax.random.key(0), 2)
    probabilities = jax.nn.softmax(2.0 * jax.random.normal(keys[0], (50_000, 5)))
    labels = jax.random.categorical(keys[1], jnp.log(probabilities))
    bins = bin_predictions(probabilities, labels, 15)
    # A bin's share of right answers has a standard error of at most sqrt(0.25 / n_m), and the mean
    # of |gap| over bins is below sqrt(bins) / 2 / sqrt(n) = 0.0087.
    assert expected_calibration_error(bins) < 0.0087
    overconfident = bin_predictions(jax.nn.softmax(3 * jnp.log(probabilities)), labels, 15)
    assert expected_calibration_error(overconfident) > 0.1


def test_tasks_are_an_axis_of_vmap():
    tasks = [_random(seed) for seed in range(3)]
    probabilities, labels = (jnp.stack(part) for part in zip(*tasks, strict=True))
    many = jax.jit(jax.vmap(lambda p, y: bin_predictions(p, y, 15)))(probabilities, labels)
    errors = expected_calibration_error(many)
    for index, (p, y) in enumerate(tasks):
        one = bin_predictions(p, y, 15)
        np.testing.assert_allclose(many.confidence[index], one.confidence, rtol=1e-5)
        np.testing.assert_allclose(errors[index], expected_calibration_error(one), rtol=1e-4)


def test_empty_bins_do_not_count():
    bins = Bins(jnp.array([0.0, 4.0]), jnp.array([0.0, 3.0]), jnp.array([0.0, 2.0]))
    assert expected_calibration_error(bins) == maximum_calibration_error(bins) == 0.25


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins must be at least 1, not 0"):
        bin_predictions(*_random(0), 0)
