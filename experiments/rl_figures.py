"""Figures of reinforcement-learning runs: figure 3 of the paper, and learning curves."""

import pathlib
from typing import Any

import numpy as np

from experiments import style

_UPDATE_COLOURS = ("0.6", "#56B4E9", "#0072B2", "#D55E00")


def learning_curve(rows: list[dict[str, float]], path: pathlib.Path) -> None:
    """Validation return after each number of updates against meta-steps."""
    updates = sorted(int(n.removeprefix("return_")) for n in rows[0] if n.startswith("return_"))
    with style.figure(path, 4.2, 3.0) as figure:
        axes = figure.subplots()
        for update in updates:
            colour = _UPDATE_COLOURS[min(update, len(_UPDATE_COLOURS) - 1)]
            axes.plot(
                [row["step"] for row in rows],
                [row[f"return_{update}"] for row in rows],
                color=colour,
                label=f"{update} update{'' if update == 1 else 's'}",
            )
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("meta-steps")
        axes.set_ylabel("validation return")
        axes.legend()


def returns_against_updates(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Test return against updates: one line per algorithm, the mean of its runs.

    Bars are 95% intervals over test tasks of one run, or the range over the seeds of several.
    Lines for references are those of the first result.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["algorithm"], []).append(result)
    with style.figure(path, 4.4, 3.2) as figure:
        axes = figure.subplots()
        for position, algorithm in enumerate(a for a in style.COLOURS if a in groups):
            runs = groups[algorithm]
            updates = [int(update) for update in runs[0]["metrics"]["return"]]
            returns = _array(runs, "return")
            mean = returns.mean(axis=0)
            if len(runs) == 1:
                bars = np.tile(_array(runs, "return_ci95")[0], (2, 1))
            else:
                bars = np.stack([mean - returns.min(axis=0), returns.max(axis=0) - mean])
            axes.errorbar(
                np.array(updates) + 0.03 * (position - len(groups) / 2),
                mean,
                bars,
                color=style.COLOURS[algorithm],
                marker=style.MARKERS[algorithm],
                markersize=4,
                capsize=2,
                label=style.LABELS[algorithm],
            )
        _references(axes, results[0]["references"])
        axes.set_xticks(updates)
        axes.set_xlabel("updates on a new task")
        axes.set_ylabel("return")
        figure.legend(loc="outside right upper", fontsize=7)


def _array(runs: list[dict[str, Any]], name: str) -> np.ndarray:
    """``[runs, updates + 1]``; not a number where a run has diverged."""
    return np.array([list(run["metrics"][name].values()) for run in runs], dtype=float)


def _references(axes: Any, references: dict[str, Any]) -> None:
    for name, value in references.items():
        if isinstance(value, dict):
            updates = [int(update) for update in value]
            returns = np.array(list(value.values()), dtype=float)
            axes.plot(updates, returns, color="0.5", linestyle=":", label=f"{name} start")
        else:
            axes.axhline(value, color="k", linewidth=0.8, linestyle="--", label=name)
