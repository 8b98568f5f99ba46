"""The paper's figures, drawn from results."""

import collections
import itertools
import pathlib
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments import style
from experiments.pooling import Curve, curve
from experiments.report_groups import Group
from experiments.report_inputs import Results

# The look of an algorithm's configs: its best is solid, with markers and a stronger line.
_DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
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
    # A start from which adaptation diverges leaves the frame instead of stretching it.
    most = 1.2 * max(line[0] for line in lines)
    axes.set_yscale("log")
    axes.set_ylim(0.75 * np.nanmin(values), 1.2 * min(np.nanmax(values), most))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    decades = 10.0 ** np.arange(-4, 5)
    ticks = np.concatenate([decades, 2 * decades, 5 * decades])
    low, high = axes.get_ylim()
    axes.set_yticks(sorted(tick for tick in ticks if low <= tick <= high))
    axes.minorticks_off()


def figure_2a(settings: dict[str, list[Group]], path: pathlib.Path) -> None:
    """Figure 2(a): test MSE against adaptation steps, one panel per setting.

    Args:
      settings: setting -> its groups, best first within an algorithm; at least one is not empty.
      path: the PNG to write.

    """
    # One look per label in all panels: its rank in the first panel that has it.
    ranks: dict[str, int] = {}
    members = collections.Counter[str]()
    for group in itertools.chain.from_iterable(settings.values()):
        if group.label not in ranks:
            ranks[group.label] = members[group.algorithm]
            members[group.algorithm] += 1
    rows = -(-len(ranks) // 2)
    with style.figure(path, 3.6 * len(settings), 2.9 + 0.17 * rows) as figure:
        panels = figure.subplots(1, len(settings), squeeze=False)[0]
        handles: dict[str, Artist] = {}
        for axes, (setting, groups) in zip(panels, settings.items(), strict=True):
            axes.set_title(f"{setting} setting")
            axes.set_xlabel("adaptation steps")
            if not groups:
                axes.text(0.5, 0.5, "no runs", ha="center", transform=axes.transAxes)
                axes.set(xticks=[], yticks=[])
                continue
            for group in groups:
                _draw_group(axes, group, ranks[group.label])
            _scales(axes)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        panels[0].set_ylabel("test MSE")
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=2,
            handlelength=2.8,
            fontsize=7.5,
        )


def _draw_group(axes: Axes, group: Group, rank: int) -> None:
    """One group's curve; ``rank`` is 0 for the algorithm's best."""
    best = rank == 0
    _draw(
        axes,
        group.curve("mse"),
        shade=0.15 if best else 0.0,
        color=style.COLOURS.get(group.algorithm, "0.4"),
        linestyle="-" if best else _DASHES[(rank - 1) % len(_DASHES)],
        linewidth=1.6 if best else 1.0,
        marker=style.MARKERS.get(group.algorithm, "x") if best else None,
        label=group.label,
        zorder=3 if best else 2,
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
