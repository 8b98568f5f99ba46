"""Figures of one few-shot run, and how calibrated several are."""

import pathlib
import re
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator, NullLocator

from experiments import style

DATASETS = {"omniglot": "Omniglot", "mini_imagenet": "miniImageNet"}
_OVER, _UNDER, _ACCURACY = "#D55E00", "#009E73", "#7FB2D9"
_COLUMNS = 4  # panels of a reliability diagram in a row
_TITLE_WIDTH = 24  # characters above one


def learning_curve(
    rows: list[dict[str, float]], path: pathlib.Path, classes: str = "validation"
) -> None:
    """Accuracy on episodes of ``classes`` against meta-steps, by number of adaptation steps.

    Not for none, which is chance where labels are shuffled.

    Args:
      rows: what ``metrics.jsonl`` holds: ``step`` and ``accuracy_K`` after K adaptation steps.
      path: the PNG to write.

    """
    names = {name for row in rows for name in row if re.fullmatch(r"accuracy_\d+", name)}
    looks = {1: "#56B4E9", 10: "#D55E00"}
    rest = iter(["#0072B2", "#009E73", "#CC79A7", "#E69F00", "#332288", "#999933"] * len(names))
    with style.figure(path, 4.2, 3.0) as figure:
        axes = figure.subplots()
        for number in sorted(int(name.removeprefix("accuracy_")) for name in names):
            if number == 0:
                continue
            shown = [row for row in rows if f"accuracy_{number}" in row]
            axes.plot(
                [row["step"] for row in shown],
                [100 * row[f"accuracy_{number}"] for row in shown],
                color=looks.get(number) or next(rest),
                label=f"{number} adaptation step{'' if number == 1 else 's'}",
            )
        axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("meta-steps")
        axes.set_ylabel(f"accuracy on {classes} classes, %")
        axes.legend()


def accuracy_against_steps(results: dict[str, Any], path: pathlib.Path) -> None:
    """Test accuracy against adaptation steps from 1 on, with the 95% interval over tasks.

    Before adaptation it is chance. Dashed: with batch-norm statistics of the support set only,
    where that was measured.
    """
    config, algorithm = results["config"], results["algorithm"]
    kinds = {
        "metrics": (config["normalisation"], "-"),
        "support_statistics": ("support only", "--"),
    }
    with style.figure(path, 4.2, 3.0) as figure:
        axes = figure.subplots()
        for kind, (mode, line) in kinds.items():
            if not results.get(kind):
                continue
            accuracy, half = (results[kind][name] for name in ("accuracy", "accuracy_ci95"))
            steps = sorted(int(step) for step in accuracy if step != "0")
            mean = 100 * np.array([accuracy[str(step)] for step in steps], float)
            band = 100 * np.array([half[str(step)] for step in steps], float)
            label = f"{style.label(algorithm)}, {mode} batch norm"
            look = style.look(algorithm)
            axes.plot(steps, mean, line, **look, markersize=4, label=label)
            axes.fill_between(
                steps, mean - band, mean + band, color=look["color"], alpha=0.2, linewidth=0
            )
        axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("adaptation steps")
        axes.set_ylabel("test accuracy, %")
        task = f"{config['ways']}-way {config['shots']}-shot"
        dataset = DATASETS.get(results["dataset"], results["dataset"])
        axes.set_title(f"{dataset}, {task}, {results['meta_steps']:,} meta-steps")
        axes.legend(fontsize=8)


def reliability_diagram(
    reliabilities: dict[str, dict[str, list[float | None]]], path: pathlib.Path
) -> None:
    """Accuracy against confidence in bins, the gap to the diagonal, and how many are in each bin.

    Args:
      reliabilities: label -> ``count``, mean ``confidence`` and ``accuracy`` of each of its bins,
        which are of equal width; a bin that is empty may have None.
      path: the PNG to write.

    """
    columns = min(_COLUMNS, len(reliabilities))
    rows = -(-len(reliabilities) // columns)
    with style.figure(path, max(1.9 * columns + 0.4, 3.4), 2.9 * rows + 0.5) as figure:
        grid = figure.subplots(
            2 * rows, columns, squeeze=False, sharex=True, height_ratios=[3, 1] * rows
        )
        most = max(np.max(_numbers(bins["count"])) for bins in reliabilities.values())
        handles: dict[str, Any] = {}
        for index in range(rows * columns):
            row, column = divmod(index, columns)
            upper, lower = grid[2 * row][column], grid[2 * row + 1][column]
            if index >= len(reliabilities):
                upper.remove()
                lower.remove()
                continue
            label, bins = list(reliabilities.items())[index]
            _diagram(upper, label, bins)
            _histogram(lower, _numbers(bins["count"]), most)
            if column == 0:
                upper.set_ylabel("accuracy")
                lower.set_ylabel("queries")
            else:
                upper.tick_params(labelleft=False)
                lower.tick_params(labelleft=False)
            for handle, name in zip(*upper.get_legend_handles_labels(), strict=True):
                handles.setdefault(name, handle)
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=4 if columns > 2 else 2,
            fontsize=8,
        )


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _diagram(axes: Axes, label: str, bins: dict[str, list[float | None]]) -> None:
    used = _numbers(bins["count"]) > 0
    count, confidence, accuracy = (
        _numbers(bins[name])[used] for name in ("count", "confidence", "accuracy")
    )
    width = 1 / len(used)
    centres = (np.flatnonzero(used) + 0.5) * width
    gaps = np.abs(accuracy - confidence)
    axes.bar(centres, accuracy, 0.96 * width, color=_ACCURACY, label="accuracy")
    for name, colour, hatch, where in (
        ("confidence above accuracy", _OVER, "////", confidence >= accuracy),
        ("confidence below accuracy", _UNDER, "....", confidence < accuracy),
    ):
        # Bins of the other kind keep an invisible bar, so that the legend has one to show.
        axes.bar(
            centres,
            np.where(where, gaps, np.nan),
            0.96 * width,
            bottom=np.minimum(accuracy, confidence),
            facecolor=tuple(0.8 + 0.2 * np.array(to_rgb(colour))),
            edgecolor=colour,
            hatch=hatch,
            linewidth=0.8,
            label=name,
        )
    axes.plot([0, 1], [0, 1], "k--", linewidth=0.9, label="calibrated")
    expected = float(np.sum(count * gaps) / np.sum(count))
    axes.text(
        0.04,
        0.96,
        f"ECE {expected:.4f}\nMCE {np.max(gaps):.4f}",
        transform=axes.transAxes,
        va="top",
        fontsize=7.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )
    lines = [textwrap.fill(line, _TITLE_WIDTH) for line in label.splitlines()]
    axes.set_title("\n".join(lines), fontsize=9)
    axes.set(xlim=(0, 1), ylim=(0, 1), yticks=[0, 0.5, 1])


def _histogram(axes: Axes, count: np.ndarray, most: float) -> None:
    """How many predictions each bin holds; ``most`` is the largest number in any panel."""
    width = 1 / len(count)
    axes.bar((np.arange(len(count)) + 0.5) * width, count, 0.96 * width, color="0.55")
    axes.set_yscale("log")
    axes.set_ylim(0.7, 2 * most)
    axes.set_yticks(10.0 ** np.arange(0, np.log10(most) + 0.01, 2))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("confidence")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.tick_params(labelbottom=True)
