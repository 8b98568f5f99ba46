"""Runs that differ only in their seed, as one curve with an interval."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit


def student_ci95(values: np.ndarray) -> np.ndarray:
    """Half the width of the 95% interval of a mean over few values ``[n >= 2, ...]``.

    Student's t: t_{0.975, n-1} * std / sqrt(n), with the unbiased standard deviation.
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[0]
    return stdtrit(n - 1, 0.975) * values.std(axis=0, ddof=1) / math.sqrt(n)


class Curve(NamedTuple):
    """A measure against adaptation steps; all three fields are ``[steps]``."""

    steps: np.ndarray
    mean: np.ndarray
    half: np.ndarray
    """Half the width of the 95% interval; NaN where there is none."""

    def at(self, step: int) -> tuple[float, float] | None:
        """Mean and half width after ``step`` steps, or None if that was not measured."""
        found = np.flatnonzero(self.steps == step)
        return (float(self.mean[found[0]]), float(self.half[found[0]])) if found.size else None

    def by_step(self) -> tuple[dict[str, float], dict[str, float]]:
        """Mean and half width as ``results.json`` holds them, without steps that diverged."""
        kept = [
            i for i in range(len(self.steps)) if np.isfinite([self.mean[i], self.half[i]]).all()
        ]
        mean = {str(self.steps[i]): round(float(self.mean[i]), 6) for i in kept}
        return mean, {str(self.steps[i]): round(float(self.half[i]), 6) for i in kept}


def curve(metrics: dict[str, Any], name: str) -> Curve:
    """One run's measure, with its interval over test tasks where the run has it."""
    steps = sorted(int(step) for step in metrics[name])
    half = metrics.get(f"{name}_ci95", {})
    return Curve(
        np.array(steps),
        np.array([metrics[name][str(step)] for step in steps], dtype=np.float64),
        np.array([half.get(str(step), math.nan) for step in steps], dtype=np.float64),
    )


def pool(runs: Sequence[dict[str, Any]], name: str) -> Curve:
    """The mean over seeds of ``runs[i]["metrics"][name]`` at the steps that all runs have.

    The interval is over seeds by Student's t; with one seed it is the run's own, over test tasks.
    """
    curves = [curve(run["metrics"], name) for run in runs]
    if len(curves) == 1:
        return curves[0]
    steps = sorted(set.intersection(*(set(c.steps.tolist()) for c in curves)))
    values = np.stack([c.mean[np.isin(c.steps, steps)] for c in curves])
    return Curve(np.array(steps), values.mean(axis=0), student_ci95(values))
