"""Figures of reinforcement-learning runs: figure 3 of the paper, and learning curves."""

import pathlib
import textwrap
from typing import Any, NamedTuple

import numpy as np

from experiments import style
from experiments.pooling import Curve

_LABEL_WIDTH = 34
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


class Line(NamedTuple):
    """An algorithm's returns by number of updates."""

    algorithm: str
    label: str
    returns: Curve


def returns_against_updates(
    lines: list[Line], references: dict[str, Any], path: pathlib.Path
) -> None:
    """Test return against updates with 95% intervals; ``references`` are lines without.

    A reference is a number, or returns by number of updates.
    """
    with style.figure(path, 5.0, 4.2) as figure:
        axes = figure.subplots()
        for position, line in enumerate(lines):
            # Bars beside each other, not above.
            shift = 0.04 * (position - (len(lines) - 1) / 2)
            axes.errorbar(
                line.returns.steps + shift,
                line.returns.mean,
                np.nan_to_num(line.returns.half),
                **style.look(line.algorithm),
                markersize=4,
                capsize=2,
                label=textwrap.fill(line.label, _LABEL_WIDTH),
            )
        _references(axes, references)
        axes.set_xticks(sorted({int(step) for line in lines for step in line.returns.steps}))
        axes.set_xlabel("updates on a new task")
        axes.set_ylabel("return")
        # What an untrained policy does may lie far below all that is compared.
        means = np.concatenate([line.returns.mean for line in lines])
        finite = means[np.isfinite(means)] if np.isfinite(means).any() else np.zeros(1)
        lowest, highest = float(finite.min()), float(finite.max())
        levels = [value for value in references.values() if not isinstance(value, dict)]
        margin = 0.5 * (highest - lowest) or 1.0
        # Nor may the interval of two seeds, which is many times their distance, flatten the rest.
        top = max([highest, *levels])
        if top < 0 and lowest < 10 * highest:
            # Losses that fall to a tenth and less: as a logarithm, or the last would look alike.
            axes.set_yscale("symlog", linthresh=-0.1 * top, subs=(3,))
            axes.set_ylim(2 * lowest, 0.5 * top)
            axes.yaxis.set_major_formatter(_number)
            axes.yaxis.set_minor_formatter(_number)
        else:
            curves = [value for value in references.values() if isinstance(value, dict)]
            below = min((min(curve.values()) for curve in curves), default=lowest)
            # The untrained policy is shown if that leaves the others two fifths of the height.
            if lowest - 1.5 * (top - lowest) <= below < lowest:
                lowest = below
            axes.set_ylim(lowest - margin, top + 0.4 * margin)
        figure.legend(loc="outside lower center", ncols=2, fontsize=7, handlelength=3.6)


def _number(value: float, position: float) -> str:
    del position
    return f"{value:g}".replace("-", "−")


def _references(axes: Any, references: dict[str, Any]) -> None:
    for name, value in references.items():
        if isinstance(value, dict):
            updates = [int(update) for update in value]
            returns = np.array(list(value.values()), dtype=float)
            axes.plot(updates, returns, color="0.5", linestyle=":", label=name)
        else:
            axes.axhline(value, color="k", linewidth=0.8, linestyle="--", label=name)
