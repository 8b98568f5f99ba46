"""Confidence intervals of means."""

import numpy as np

from gembml.evaluation import ci95


def test_ci95_by_hand():
    # The unbiased std of 1, 2, 3, 4 is sqrt(5 / 3).
    np.testing.assert_allclose(ci95(np.array([1.0, 2.0, 3.0, 4.0])), 1.96 * np.sqrt(5 / 3) / 2)


def test_ci95_is_taken_over_the_axis():
    values = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(ci95(values), [ci95(column) for column in values.T])
    np.testing.assert_allclose(ci95(values, axis=1), [ci95(row) for row in values])


def test_ci95_covers_the_mean_in_95_of_100_samples():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (200, 5000))
    covered = np.mean(np.abs(draws.mean(axis=0) - 3.0) <= ci95(draws))
    # 5 standard errors of a share over 5000, and 0.003 that the normal approximation lacks at 200.
    assert abs(covered - 0.95) < 5 * np.sqrt(0.95 * 0.05 / 5000) + 0.003
