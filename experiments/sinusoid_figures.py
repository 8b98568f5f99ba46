"""Figures of one sinusoid run."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from experiments import style


class PredictionExample(NamedTuple):
    """One test task: curves over ``x [points]``; row 0 before adaptation, row 1 after."""

    x: np.ndarray
    truth: np.ndarray
    support_x: np.ndarray
    support_y: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def learning_curve(rows: list[dict[str, float]], path: pathlib.Path) -> None:
    """Validation error after 0, 1 and 10 adaptation steps against meta-steps."""
    steps = [row["step"] for row in rows]
    with style.figure(path, 4.2, 3.0) as figure:
        axes = figure.subplots()
        for name, colour in (("mse_0", "0.6"), ("mse_1", "#56B4E9"), ("mse_10", "#D55E00")):
            number = name.removeprefix("mse_")
            label = f"{number} adaptation step{'' if number == '1' else 's'}"
            axes.plot(steps, [row[name] for row in rows], color=colour, label=label)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("meta-steps")
        axes.set_ylabel("validation MSE")
        axes.legend()


def error_against_steps(results: dict[str, Any], path: pathlib.Path) -> None:
    """Test error against adaptation steps, with the 95% interval over tasks."""
    metrics = results["metrics"]
    steps = sorted(int(step) for step in metrics["mse"])
    mse = np.array([metrics["mse"][str(step)] for step in steps], dtype=float)
    half = np.array([metrics["mse_ci95"][str(step)] for step in steps], dtype=float)
    algorithm = results["algorithm"]
    with style.figure(path, 4.2, 3.0) as figure:
        axes = figure.subplots()
        colour = style.look(algorithm)["color"]
        axes.plot(steps, mse, color=colour, label=style.label(algorithm))
        axes.fill_between(steps, mse - half, mse + half, color=colour, alpha=0.2, linewidth=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("adaptation steps")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_ylabel("test MSE")
        axes.set_title(f"{results['setting']} setting, {results['meta_steps']:,} meta-steps")
        axes.legend()


def predictions(examples: list[PredictionExample], noise_std: float, path: pathlib.Path) -> None:
    """True function, support points, predictive mean and +-2 std, before and after adaptation."""
    with style.figure(path, 2.3 * len(examples), 4.0) as figure:
        grid = figure.subplots(2, len(examples), sharex=True, sharey=True, squeeze=False)
        for column, example in enumerate(examples):
            for row, title in enumerate(("before adaptation", "after 10 steps")):
                axes = grid[row][column]
                mean, std = example.mean[row], example.std[row]
                axes.fill_between(
                    example.x,
                    mean - 2 * std,
                    mean + 2 * std,
                    color="#0072B2",
                    alpha=0.2,
                    linewidth=0,
                    label="±2 std",
                )
                axes.plot(example.x, mean, color="#0072B2", label="predictive mean")
                axes.plot(example.x, example.truth, "k--", linewidth=1, label="true function")
                axes.plot(
                    example.support_x,
                    example.support_y,
                    "o",
                    color="#D55E00",
                    markersize=4,
                    label="support",
                )
                if column == 0:
                    axes.set_ylabel(f"{title}\ny")
                if row == 1:
                    axes.set_xlabel("x")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
        figure.supxlabel(f"band: weights and noise of std {noise_std:.2f}", fontsize=7)
