"""Confidence intervals of means and medians."""

import numpy as np
import pytest

from gembml.evaluation import ci95, median_ci95


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


def test_the_median_s_interval_by_hand():
    # With 6 values P(B < 1) = 1/64 <= 0.025 < P(B < 2) = 7/64: the first and the last.
    assert median_ci95(np.array([3.0, 1.0, 2.0, 6.0, np.inf, 4.0])) == (1.0, np.inf)
    # With 9, P(B < 2) = 10/512 <= 0.025 < P(B < 3) = 46/512: the second and the last but one.
    assert median_ci95(np.arange(9.0)) == (1.0, 7.0)


def test_the_median_s_interval_covers_at_least_95_of_100_samples():
    draws = np.random.default_rng(0).exponential(1.0, (5000, 50))
    intervals = np.array([median_ci95(row) for row in draws])
    covered = np.mean((intervals[:, 0] <= np.log(2)) & (np.log(2) <= intervals[:, 1]))
    # Ranks are whole: 0.967 with 50 values.
    assert abs(covered - 0.967) < 5 * np.sqrt(0.967 * 0.033 / 5000)


def test_too_few_values_have_no_interval():
    with pytest.raises(ValueError, match="at least 6 values, not 5"):
        median_ci95(np.arange(5.0))
