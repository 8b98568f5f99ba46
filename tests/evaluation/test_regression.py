"""Regression measures by hand, and on predictions known to be calibrated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.evaluation import regression_metrics


def test_metrics_of_one_component_by_hand():
    predictions = jnp.array([[[1.0], [2.0]]])
    targets, clean = jnp.array([[1.5], [2.0]]), jnp.array([[1.4], [1.8]])
    metrics = regression_metrics(predictions, targets, clean, 0.5)
    np.testing.assert_allclose(metrics.mse, (0.4**2 + 0.2**2) / 2, rtol=1e-5)
    log_normaliser = np.log(0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(metrics.nll, (0.5 + 0.0) / 2 + log_normaliser, rtol=1e-5)
    # Central 90%: within 1.645 standard deviations, and both targets are within one.
    assert metrics.coverage90 == 1.0


def test_metrics_of_a_mixture_by_hand():
    # Components at -1 and 1: the mixture's mean is 0, its density at 0 that of one component.
    predictions = jnp.array([[[-1.0]], [[1.0]]])
    metrics = regression_metrics(predictions, jnp.zeros((1, 1)), jnp.full((1, 1), 0.3), 1.0)
    np.testing.assert_allclose(metrics.mse, 0.09, rtol=1e-5)
    np.testing.assert_allclose(metrics.nll, 0.5 + 0.5 * np.log(2 * np.pi), rtol=1e-5)
    assert metrics.coverage90 == 1.0


@pytest.mark.parametrize(("target", "inside"), [(1.64, 1.0), (1.65, 0.0), (-1.65, 0.0)])
def test_the_interval_ends_at_the_5th_and_95th_percentile(target, inside):
    # The normal's 95th percentile is 1.6449.
    one = jnp.zeros((1, 1, 1))
    metrics = regression_metrics(one, jnp.full((1, 1), target), jnp.zeros((1, 1)), 1.0)
    assert metrics.coverage90 == inside


@pytest.mark.parametrize("samples", [1, 400])
def test_a_calibrated_predictive_covers_nine_in_ten(samples):
    # y = f + noise with f ~ N(0, 1) and noise of std 0.5: the right predictive is the same f's
    # distribution, or with one component f itself.
    keys = jax.random.split(jax.random.key(0), 3)
    points = 5000
    f = jax.random.normal(keys[0], (points, 1))
    y = f + 0.5 * jax.random.normal(keys[1], (points, 1))
    predictions = f[None] if samples == 1 else jax.random.normal(keys[2], (samples, points, 1))
    metrics = regression_metrics(predictions, y, f, 0.5)
    # 5 standard errors of a share, and 0.005 that 400 samples of the mixture leave.
    assert abs(metrics.coverage90 - 0.9) < 5 * np.sqrt(0.09 / points) + 0.005
    variance = 0.25 if samples == 1 else 1.25
    entropy = 0.5 * np.log(2 * np.pi * np.e * variance)
    np.testing.assert_allclose(metrics.nll, entropy, atol=0.05)


def test_overconfident_predictions_cover_less():
    keys = jax.random.split(jax.random.key(0), 2)
    y = jax.random.normal(keys[0], (5000, 1))
    metrics = regression_metrics(jnp.zeros((1, 5000, 1)), y, y, 0.5)
    # P(|y| < 1.645 / 2) = 0.589.
    assert abs(metrics.coverage90 - 0.589) < 5 * np.sqrt(0.25 / 5000)
