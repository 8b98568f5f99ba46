"""The paper's figures, drawn from results."""

import itertools
import pathlib
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments import style
from experiments.pooling import Curve, curve
from experiments.report_groups import Group, distance_to_preset
from experiments.report_inputs import Results
from gembml import ALGORITHMS

# The frame ends at this multiple of the usual error before adaptation.
_MOST = 1.6
# Drawn beside all others.
_REFERENCE = "gem_bml_plus"
_OWN = {"gem_bml", "gem_bml_plus"}
_MARKED_STEPS = (0, 1, 2, 5, 10, 15, 20)


def _draw(axes: Axes, drawn: Curve, *, shade: float = 0.18, **line: Any) -> None:
    """A curve with its shaded 95% interval and markers at a few steps."""
    marked = [i for i, step in enumerate(drawn.steps) if step in _MARKED_STEPS]
    (plotted,) = axes.plot(drawn.steps, drawn.mean, markersize=4, markevery=marked, **line)
    if np.isfinite(drawn.half).all():
        axes.fill_between(
            drawn.steps,
            drawn.mean - drawn.half,
            drawn.mean + drawn.half,
            color=plotted.get_color(),
            alpha=shade,
            linewidth=0,
        )


def _scales(axes: Axes) -> None:
    """Whole steps, and a logarithmic error with plain numbers, framed without the intervals."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    lines = [np.asarray(line.get_ydata(), float) for line in axes.get_lines()]
    values = np.concatenate(lines)
    # What diverges leaves the frame instead of stretching it.
    most = _MOST * float(np.median([line[0] for line in lines]))
    axes.set_yscale("log")
    axes.set_ylim(0.75 * np.nanmin(values), min(1.2 * np.nanmax(values), most))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    decades = 10.0 ** np.arange(-4, 5)
    ticks = np.concatenate([decades, 2 * decades, 5 * decades])
    low, high = axes.get_ylim()
    axes.set_yticks(sorted(tick for tick in ticks if low <= tick <= high))
    axes.minorticks_off()


def figure_2a(settings: dict[str, list[Group]], path: pathlib.Path) -> None:
    """Figure 2(a): test MSE against adaptation steps, one group of each algorithm.

    Of Gradient-EM's Bayesian rows it is the one nearest to the tuned preset; of any other the best
    on the test tasks, which favours it. A column for each setting. Where both are there, Bayesian
    posteriors are above and points below, with the same scale and GEM-BML+ in both.

    Args:
      settings: setting -> its groups, best first within an algorithm; at least one is not empty.
      path: the PNG to write.

    """
    best = {setting: _chosen(groups) for setting, groups in settings.items()}
    algorithms = {group.algorithm for groups in best.values() for group in groups}
    points = {name for name in algorithms if ALGORITHMS[name].family == "delta"}
    rows = {"Bayesian posteriors": algorithms - points, "points": points | {_REFERENCE}}
    if not points or points == algorithms:
        rows = {"": algorithms}
    with style.figure(path, 4.2 * len(settings), 2.9 * len(rows)) as figure:
        grid = figure.subplots(len(rows), len(settings), squeeze=False, sharey="col")
        for panels, (title, members) in zip(grid, rows.items(), strict=True):
            handles: dict[str, Artist] = {}
            for axes, (setting, groups) in zip(panels, best.items(), strict=True):
                axes.set_title(f"{setting} setting" + (f", {title}" if title else ""), fontsize=9)
                axes.set_xlabel("adaptation steps")
                shown = [group for group in groups if group.algorithm in members]
                if not shown:
                    axes.text(0.5, 0.5, "no runs", ha="center", transform=axes.transAxes)
                    axes.set(xticks=[], yticks=[])
                    continue
                usual = float(np.median([group.curve("mse").mean[0] for group in shown]))
                for group in shown:
                    _draw_group(axes, group, usual)
                _scales(axes)
                for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                    handles.setdefault(label, handle)
            panels[0].set_ylabel("test MSE")
            panels[-1].legend(
                list(handles.values()),
                list(handles),
                loc="center left",
                bbox_to_anchor=(1.0, 0.5),
                handlelength=2.4,
                fontsize=7.5,
            )


def _chosen(groups: list[Group]) -> list[Group]:
    """One group of each algorithm; the first of each is its best."""
    first: dict[str, Group] = {}
    for group in groups:
        if group.runs:
            first.setdefault(group.algorithm, group)
    for name in _OWN & set(first):
        own = [group for group in groups if group.runs and group.algorithm == name]
        first[name] = min(own, key=lambda group: distance_to_preset("tuned", group.runs[0]))
    return list(first.values())


def _draw_group(axes: Axes, group: Group, usual: float) -> None:
    """One group's curve; ``usual`` is the error that others have before adaptation."""
    drawn = group.curve("mse")
    label = style.label(group.algorithm)
    off_the_scale = np.nanmin(drawn.mean) > _MOST * usual
    if off_the_scale:
        label += " (off the scale)"
    _draw(
        axes,
        drawn,
        # The interval of what never learns may cross the frame.
        shade=0.0 if np.nanmin(drawn.mean) > usual else 0.12,
        **style.look(group.algorithm),
        label=label,
        zorder=4 if group.algorithm == _REFERENCE else 3,
    )


def appendix_figure_2(results: Results, path: pathlib.Path) -> None:
    """Appendix C.2: MAML trained with different numbers of inner steps."""
    with style.figure(path, 4.2, 3.2) as figure:
        axes = figure.subplots()
        looks = itertools.cycle(zip(style.SEQUENCE, "o^sDvP", strict=True))
        for number, (colour, marker) in zip(results["metrics"]["mse"], looks, strict=False):
            by_number = {name: values[number] for name, values in results["metrics"].items()}
            label = f"{number} inner step{'' if number == '1' else 's'}"
            _draw(axes, curve(by_number, "mse"), color=colour, marker=marker, label=label)
        _scales(axes)
        axes.set_xlabel("adaptation steps")
        axes.set_ylabel("test MSE")
        axes.set_title(f"MAML, {results['setting']}, {results['meta_steps']:,} meta-steps")
        axes.legend()


def appendix_figure_3(results: Results, path: pathlib.Path, shown: int = 5) -> None:
    """Appendix C.3: starting points inside the region A* that adapted weights span."""
    metrics = results["metrics"]
    looks: dict[str, dict[str, Any]] = {
        "trained": {"color": style.COLOURS["maml"], "marker": "^", "label": "trained start"},
        "untrained": {"color": "0.25", "linestyle": "--", "label": "untrained network"},
        "random_starts": {
            "color": style.COLOURS["gem_bml_plus"],
            "marker": "o",
            "label": f"mean of {results['starts']} random points of A*",
        },
    }
    with style.figure(path, 4.4, 3.3) as figure:
        axes = figure.subplots()
        for name, look in looks.items():
            drawn = {"mse": metrics["mse"][name], "mse_ci95": metrics["mse_ci95"][name]}
            _draw(axes, curve(drawn, "mse"), zorder=3, **look)
        for index, mse in enumerate(list(metrics["mse_single_starts"].values())[:shown]):
            label = f"{min(shown, results['starts'])} of them, one by one" if index == 0 else None
            single = curve({"mse": mse}, "mse")
            _draw(axes, single, color="#E69F00", linewidth=0.8, alpha=0.8, label=label)
        _scales(axes)
        axes.set_xlabel("adaptation steps")
        axes.set_ylabel("test MSE")
        axes.set_title(
            f"MAML, {results['setting']} setting, {results['combined']} weights combined"
        )
        axes.legend(fontsize=8)
