"""What the report needs inside the ``results.json`` of few-shot runs and of their costs."""

import math
from typing import Any

_CONFIG: dict[str, type] = {
    "ways": int,
    "shots": int,
    "filters": int,
    "inner_steps": int,
    "normalisation": str,
}
_COSTS = ("ms_per_meta_step", "temporary_bytes", "device_peak_bytes")
_BINS = ("count", "confidence", "accuracy")


def few_shot_complaint(results: dict[str, Any]) -> str | None:
    """What is wrong inside the fields of a few-shot run, if anything."""
    for name, kind in _CONFIG.items():
        if not isinstance(results["config"].get(name), kind):
            return f"its config has no {name!r}, or of another type"
    support = results.get("support_statistics")
    if support is not None and not (
        isinstance(support, dict) and all(map(_curve, support.values()))
    ):
        return "its 'support_statistics' are not measures keyed by numbers of steps"
    bins = results.get("reliability")
    if bins is not None and not (_by_steps(bins) and all(map(_reliability, bins.values()))):
        return "its 'reliability' is not count, confidence and accuracy of bins by numbers of steps"
    return None


def tradeoffs_complaint(results: dict[str, Any]) -> str | None:
    """What is wrong with the rows of costs, if anything."""
    rows = results["rows"]
    return None if rows and all(map(_cost, rows)) else "its 'rows' are not costs by inner steps"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _by_steps(measure: Any) -> bool:
    return isinstance(measure, dict) and bool(measure) and all(map(str.isdigit, measure))


def _curve(measure: Any) -> bool:
    return _by_steps(measure) and all(value is None or _number(value) for value in measure.values())


def _reliability(bins: Any) -> bool:
    """Whether lists of equal length, with numbers where a bin holds anything, and one does."""
    if not isinstance(bins, dict):
        return False
    lists: list[Any] = [bins.get(name) for name in _BINS]
    if not all(isinstance(values, list) for values in lists) or len(set(map(len, lists))) > 1:
        return False
    used = [row for row in zip(*lists, strict=True) if row[0]]
    return bool(used) and all(_number(value) for row in used for value in row)


def _cost(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("algorithm"), str)
        and isinstance(row.get("inner_steps"), int)
        and all(row.get(name) is None or _number(row[name]) for name in _COSTS)
        and isinstance(row.get("untimed"), str | None)
    )
