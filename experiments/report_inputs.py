"""Find the ``results.json`` files of a report, and say why one is left out."""

import json
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from experiments.few_shot_inputs import few_shot_complaint, tradeoffs_complaint
from gembml.training import InputError

Results = dict[str, Any]


class Inputs(NamedTuple):
    """What was found below the directories."""

    results: list[Results]
    skipped: list[str]
    """One line per file that is left out: where, and why."""


_RUN_FIELDS: dict[str, type | tuple[type, ...]] = {
    "algorithm": str,
    "setting": str,
    "seed": int,
    "meta_steps": int,
    "config": dict,
    "seconds": (int, float),
    "device": str,
    "versions": dict,
}
_FEW_SHOT_FIELDS: dict[str, type | tuple[type, ...]] = {
    name: kind for name, kind in _RUN_FIELDS.items() if name != "setting"
} | {"dataset": str, "split": str, "test_tasks": int}
_RL_FIELDS: dict[str, type | tuple[type, ...]] = {
    name: kind for name, kind in _RUN_FIELDS.items() if name != "setting"
} | {"references": dict, "test_tasks": int, "command": str}
# Experiment -> its fields, and those of its measures that the report needs.
_FIELDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "sinusoid": (_RUN_FIELDS, ("mse", "mse_ci95", "nll", "coverage90")),
    "inner_steps": ({"seeds": list, "meta_steps": int, "device": str}, ("mse", "mse_ci95")),
    "convex_combinations": (
        {"starts": int, "combined": int, "meta_steps": int, "device": str},
        ("mse", "mse_ci95"),
    ),
    "meta_gradient_error": (
        {
            "runs": int,
            "problems": int,
            "inner_steps": list,
            "learning_rate": (int, float),
            "tasks": int,
            "repeats": int,
            "data_per_task": int,
            "cpu_seconds": (int, float),
            "device": str,
        },
        ("error", "bound", "worst_start", "variance_ratio"),
    ),
    "few_shot": (
        _FEW_SHOT_FIELDS,
        ("accuracy", "accuracy_ci95", "nll", "ece", "mce", "ece_10_bins", "mce_10_bins"),
    ),
    "navigation": (_RL_FIELDS, ("return", "return_ci95")),
    "half_cheetah": (
        _RL_FIELDS | dict.fromkeys(("task", "backend", "timing"), str),
        ("return", "return_ci95"),
    ),
    "tradeoffs": (
        {
            "rows": list,
            "device": str,
            **dict.fromkeys(
                ("ways", "shots", "queries", "filters", "image_size", "meta_batch"), int
            ),
        },
        (),
    ),
}
# Experiment -> what else is looked at: the complaint, or None.
_MORE: dict[str, Callable[[Results], str | None]] = {
    "few_shot": few_shot_complaint,
    "tradeoffs": tradeoffs_complaint,
}
# Programs whose runs have one algorithm, seed and config, and may have diverged.
_SINGLE_RUNS = ("sinusoid", "few_shot", "navigation", "half_cheetah")
_IDENTITY = (
    "experiment",
    "algorithm",
    "setting",
    "dataset",
    "split",
    "data_sha256",
    "task",
    "backend",
    "timing",
    "goal",
    "seed",
    "meta_steps",
    "config",
)


def _finite(measure: Any) -> bool:
    """Whether all leaves are finite numbers, below keys that name steps or curves.

    None stands for a number of steps after which adaptation had diverged.
    """
    if isinstance(measure, dict):
        return bool(measure) and all(_finite(value) for value in measure.values())
    return measure is None or (isinstance(measure, int | float) and math.isfinite(measure))


def _complaint(results: Any) -> str | None:
    """What is wrong with the content of a file, if anything."""
    if not isinstance(results, dict) or "experiment" not in results:
        return "it has no field 'experiment'"
    if results["experiment"] not in _FIELDS:
        return f"there is no table for the experiment {results['experiment']!r}"
    fields, measures = _FIELDS[results["experiment"]]
    for name, kind in fields.items():
        if not isinstance(results.get(name), kind):
            return f"its field {name!r} is missing or of another type"
    # Where training diverged there is nothing to measure, and yet a seed to count.
    diverged = isinstance(results.get("diverged"), str) and results["experiment"] in _SINGLE_RUNS
    complaint = _MORE.get(results["experiment"], lambda _: None)(results)
    return complaint if complaint or diverged else _measures_complaint(results, measures)


def _measures_complaint(results: Results, measures: tuple[str, ...]) -> str | None:
    metrics = results.get("metrics")
    for name in measures:
        measure = metrics.get(name) if isinstance(metrics, dict) else None
        if not isinstance(measure, dict) or not _finite(measure):
            return f"its measure {name!r} is missing or not finite"
    if results["experiment"] in _SINGLE_RUNS:
        for name in measures:
            if not all(step.isdigit() for step in results["metrics"][name]):
                return f"its measure {name!r} is not keyed by numbers of steps"
    return None


def _load(path: pathlib.Path) -> tuple[Results | None, str]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, f"{path}: it cannot be read as JSON ({error})."
    complaint = _complaint(results)
    return (None, f"{path}: {complaint}.") if complaint else (results, "")


def find_results(directories: Iterable[str]) -> Inputs:
    """All results below ``directories``.

    The runs below an experiment that gathers several (appendix C.2, C.3) are that experiment's and
    do not count again; neither does a second run that equals another in all but its place.

    Raises:
      InputError: for a path that is no directory, or when nothing is found.

    """
    paths: list[pathlib.Path] = []
    for directory in directories:
        if not pathlib.Path(directory).is_dir():
            raise InputError(f"{directory} is not a directory: name directories that hold runs.")
        paths += sorted(pathlib.Path(directory).rglob("results.json"))
    loaded: dict[pathlib.Path, Results] = {}
    skipped, seen = [], {}
    for path in {path.resolve(): path for path in paths}.values():
        results, complaint = _load(path)
        if results is None:
            skipped.append(complaint)
            continue
        identity = json.dumps(
            [results.get(name) for name in _IDENTITY],
            sort_keys=True,
        )
        if results["experiment"] == "sinusoid" and _gathered(path):
            continue
        if results["experiment"] in _SINGLE_RUNS and identity in seen:
            skipped.append(f"{path}: it is the same run as {seen[identity]}.")
            continue
        seen[identity] = path
        loaded[path] = results
    if not loaded:
        reasons = " ".join(skipped) or "there is none."
        raise InputError(f"No usable results.json below the given directories: {reasons}")
    return Inputs(list(loaded.values()), skipped)


def _gathered(path: pathlib.Path) -> bool:
    """Whether a directory above the run's holds the results that gather it."""
    for parent in path.resolve().parents[1:4]:
        above = parent / "results.json"
        if above.exists() and _load(above)[0] is not None:
            return True
    return False
