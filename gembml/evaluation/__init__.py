"""Measures of adapted predictions."""

from gembml.evaluation.intervals import ci95, median_ci95
from gembml.evaluation.regression import RegressionMetrics, regression_metrics

__all__ = ["RegressionMetrics", "ci95", "median_ci95", "regression_metrics"]
