"""Measures the errors of estimated meta-gradients, and gathers them (appendix C.1, A.2, A.3)."""

import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import variance_ratio as ratios
from experiments.appendix_figure_1 import appendix_figure_1
from experiments.gradient_errors import (
    Bounds,
    error_bounds,
    estimation_errors,
    sample_instances,
    worst_start,
)
from experiments.provenance import provenance
from experiments.report_meta_gradient import tables
from gembml.evaluation import median_ci95
from gembml.training import open_workdir, write_json

# Appendix A.2: data per task, D^tr's share of them, and prior variances per noise variance.
_DATA, _SPLITS, _VARIANCES = 10, [1, 2, 5, 8], [0.01, 0.1, 1.0]


class Options(NamedTuple):
    """What the flags of the same names say."""

    seed: int
    runs: int
    problems: int
    inner_steps: list[int]
    learning_rate: float
    tasks: int
    repeats: int


def _number(value: float) -> float | None:
    """To 4 digits; None for an infinite one."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def _statistics(errors: np.ndarray, runs: int) -> dict[str, float | None]:
    """Of errors ``[instances]``: the median with its interval, quantiles, and each run's median."""
    low, high = median_ci95(errors)
    by_run = np.median(errors.reshape(runs, -1), axis=1)
    quantile = functools.partial(np.quantile, errors, method="higher")  # no inf - inf between two
    return {
        "median": _number(float(np.median(errors))),
        "low": _number(low),
        "high": _number(high),
        "q25": _number(float(quantile(0.25))),
        "q75": _number(float(quantile(0.75))),
        "q90": _number(float(quantile(0.9))),
        "run_low": _number(float(by_run.min())),
        "run_high": _number(float(by_run.max())),
        "diverged": _number(float(np.mean(np.isinf(errors)))),
    }


def _bound_statistics(bounds: Bounds) -> dict[str, float | None]:
    # A bound that rounding alone puts below the error is not violated.
    violated = functools.partial(np.greater, bounds.error * (1 - 1e-9))
    return {
        "error": _number(float(np.median(bounds.error))),
        "printed": _number(float(np.median(bounds.printed))),
        "valid": _number(float(np.median(bounds.valid))),
        "infinite": _number(float(np.mean(np.isinf(bounds.valid)))),
        "printed_violated": _number(float(np.mean(violated(bounds.printed)))),
        "valid_violated": _number(float(np.mean(violated(bounds.valid)))),
        "largest_error_over_printed": _number(float(np.max(bounds.error / bounds.printed))),
    }


def _variance_ratios(seed: int, tasks: int, repeats: int) -> dict[str, Any]:
    """Prior variance -> parameter -> k -> simulated, exact and printed ratio."""
    found: dict[str, Any] = {}
    for index, variance in enumerate(_VARIANCES):
        random = np.random.default_rng([seed, index])
        moments = ratios.simulate(random, tasks, repeats, _DATA, _SPLITS, variance)
        l1 = ratios.maximise_l1(moments[_DATA])
        by_parameter: dict[str, Any] = {name: {} for name in ratios.PARAMETERS}
        for k in _SPLITS:
            l2 = ratios.maximise_l2(moments[_DATA], moments[k])
            kept = l2.converged
            for name in ratios.PARAMETERS:
                pair = (getattr(l1, name)[kept], getattr(l2, name)[kept])
                simulated = ratios.variance_ratio(*pair)
                by_parameter[name][str(k)] = {
                    "simulated": _number(simulated.ratio),
                    "low": _number(simulated.low),
                    "high": _number(simulated.high),
                    "exact": _number(ratios.exact_ratio(name, _DATA, k, variance)),
                    "printed": _number(ratios.printed_ratio(_DATA, k)),
                    "converged": _number(float(np.mean(kept))),
                }
        found[f"{variance:g}"] = by_parameter
    return found


def run_meta_gradient_error(options: Options, *, workdir: str, command: str) -> dict[str, Any]:
    """Measure everything; returns what ``results.json`` holds. Meant for float64."""
    identity = {"experiment": "meta_gradient_error", **options._asdict()}
    directory = open_workdir(workdir, identity)
    start, cpu_start = time.perf_counter(), time.process_time()
    key = jax.random.key(options.seed)
    instances = sample_instances(key, options.runs * options.problems)
    errors = estimation_errors(
        instances,
        options.inner_steps,
        options.learning_rate,
        progress=lambda line: print(line, flush=True),
    )
    bounds = error_bounds(instances, [0, *options.inner_steps], options.learning_rate)
    results = identity | {
        "data_per_task": _DATA,
        "metrics": {
            "error": {
                regime: {
                    name: {
                        str(steps): _statistics(values, options.runs)
                        for steps, values in by_steps.items()
                    }
                    for name, by_steps in by_name.items()
                }
                for regime, by_name in errors.items()
            },
            "bound": {str(steps): _bound_statistics(found) for steps, found in bounds.items()},
            "worst_start": {name: _number(value) for name, value in worst_start().items()},
            "variance_ratio": _variance_ratios(options.seed, options.tasks, options.repeats),
        },
        "seconds": round(time.perf_counter() - start, 2),
        # What it costs when other programs use the machine too.
        "cpu_seconds": round(time.process_time() - cpu_start, 2),
        "command": command,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    (directory / "table.md").write_text(tables(results) + "\n", encoding="utf-8")
    appendix_figure_1(results, directory / "appendix_figure_1.png")
    return results
