"""Measures of adapted predictions."""

from gembml.evaluation.calibration import (
    Bins,
    bin_predictions,
    expected_calibration_error,
    expected_calibration_error_ci95,
    maximum_calibration_error,
)
from gembml.evaluation.classification import ClassificationMetrics, classification_metrics
from gembml.evaluation.intervals import ci95, median_ci95
from gembml.evaluation.regression import RegressionMetrics, regression_metrics

__all__ = [
    "Bins",
    "ClassificationMetrics",
    "RegressionMetrics",
    "bin_predictions",
    "ci95",
    "classification_metrics",
    "expected_calibration_error",
    "expected_calibration_error_ci95",
    "maximum_calibration_error",
    "median_ci95",
    "regression_metrics",
]
