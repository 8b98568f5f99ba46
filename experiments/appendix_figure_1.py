"""Appendix C.1: the error of estimated meta-gradients, the bound of A.3 and the ratio of A.2."""

import math
import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from experiments import style
from experiments.report_inputs import Results

_GEM, _ELBO, _DIFFERENCE = "#D55E00", "#0072B2", "#56B4E9"
_LOOKS: dict[str, dict[str, Any]] = {
    "gem": {"color": _GEM, "marker": "o", "label": "Gradient-EM"},
    "elbo": {"color": _ELBO, "marker": "^", "label": "ELBO gradient"},
    "elbo_difference": {"color": _DIFFERENCE, "marker": "v", "label": "ELBO gradient, L1 − L1"},
}
_REGIMES = {
    "exact": "exact expectations",
    "antithetic_pair": "an antithetic pair per step",
    "one_sample": "one sample per step",
}
_OBJECTIVES = {
    "L1": r"L1 = $\log P(D^{tr} \cup D^{val} \mid \Theta)$",
    "L2": r"L2 = $\log P(D^{val} \mid D^{tr}, \Theta)$",
}


def _line(by_steps: dict[str, Any], name: str) -> np.ndarray:
    """One statistic at all steps; NaN where it is infinite, which leaves a gap."""
    values = [by_steps[step][name] for step in by_steps]
    return np.array([math.nan if value is None else value for value in values])


def _steps(by_steps: dict[str, Any]) -> list[int]:
    return [int(step) for step in by_steps]


def _step_axis(axes: Axes, steps: list[int]) -> None:
    axes.set(xscale="log", yscale="log", xlabel="inner steps")
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _errors(axes: Axes, by_name: dict[str, Any], objective: str) -> None:
    """Medians with their 95% intervals as bars, and the middle half of the problems shaded."""
    for name, by_steps in by_name.items():
        if not name.startswith(objective):
            continue
        look = _LOOKS[name.removeprefix(f"{objective}_")]
        steps, median = _steps(by_steps), _line(by_steps, "median")
        spread = [median - _line(by_steps, "low"), _line(by_steps, "high") - median]
        axes.errorbar(steps, median, spread, markersize=4, capsize=2, **look)
        quartiles = (_line(by_steps, "q25"), _line(by_steps, "q75"))
        axes.fill_between(steps, *quartiles, color=look["color"], alpha=0.13, linewidth=0)


def _decaying(axes: Axes, by_name: dict[str, Any], objective: str) -> None:
    """The medians alone, for a rate that decays to 0."""
    for name, by_steps in by_name.items():
        if name.startswith(objective):
            look = _LOOKS[name.removeprefix(f"{objective}_")]
            axes.plot(
                _steps(by_steps),
                _line(by_steps, "median"),
                color=look["color"],
                linestyle=(0, (4, 2)),
                linewidth=1.1,
            )


def _bounds(axes: Axes, bound: dict[str, Any]) -> None:
    """The bounds of A.3 above the error they are for; 0 steps do not fit a logarithmic axis."""
    by_steps = {step: found for step, found in bound.items() if step != "0"}
    steps = _steps(by_steps)
    valid = r"valid bound $M\,\chi^2(Q \| P)^{1/2}$"
    printed = r"printed bound $M\,(2\,KL(Q \| P))^{1/2}$"
    axes.plot(steps, _line(by_steps, "valid"), color="0.2", marker="s", markersize=4, label=valid)
    axes.plot(steps, _line(by_steps, "printed"), color="#CC79A7", linestyle="--", label=printed)
    axes.plot(
        steps,
        _line(by_steps, "error"),
        color=_GEM,
        marker="o",
        markersize=4,
        label="error of Gradient-EM",
    )
    infinite = [step for step in steps if by_steps[str(step)]["valid"] is None]
    if infinite:
        axes.axvspan(min(steps) * 0.8, max(infinite) * 1.2, color="0.5", alpha=0.12, linewidth=0)
        axes.text(
            (min(steps) * max(infinite)) ** 0.5,
            0.45,
            r"$\chi^2$ infinite",
            ha="center",
            color="0.3",
            transform=axes.get_xaxis_transform(),
        )


def _variance_ratios(axes: Axes, results: Results) -> None:
    """Simulated points on the exact curves; the printed ratio knows neither the model nor k's."""
    ratios = results["metrics"]["variance_ratio"]
    looks = {"mean": ("o", "-", "mean"), "variance": ("s", ":", "variance")}
    for colour, (variance, by_parameter) in zip(style.SEQUENCE, ratios.items(), strict=False):
        for parameter, by_split in by_parameter.items():
            marker, dashes, name = looks[parameter]
            splits = _steps(by_split)
            axes.plot(splits, _line(by_split, "exact"), color=colour, linestyle=dashes, linewidth=1)
            simulated = _line(by_split, "simulated")
            spread = [simulated - _line(by_split, "low"), _line(by_split, "high") - simulated]
            axes.errorbar(
                splits,
                simulated,
                spread,
                color=colour,
                marker=marker,
                markersize=4,
                linestyle="none",
                capsize=2,
                label=rf"{name}, $\sigma^2$ = {variance}",
            )
    by_split = next(iter(next(iter(ratios.values())).values()))
    splits = _steps(by_split)
    axes.plot(
        splits, _line(by_split, "printed"), color="0.1", linestyle="--", label="printed: m/(m − k)"
    )
    axes.set(yscale="log", xlabel=f"support's data k, of m = {results['data_per_task']} per task")
    axes.xaxis.set_major_locator(FixedLocator(splits))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks([1, 2, 5, 10, 20, 50])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("variance of L2's estimate / L1's")


def appendix_figure_1(results: Results, path: pathlib.Path) -> None:
    """Errors for L1 above and L2 below; right the bound of A.3 and the variance ratio of A.2."""
    errors = results["metrics"]["error"]
    with style.figure(path, 13.6, 6.2) as figure:
        panels = figure.subplots(2, 4)
        for row, (objective, title) in enumerate(_OBJECTIVES.items()):
            for axes, regime in zip(panels[row], _REGIMES, strict=False):
                _errors(axes, errors[regime], objective)
            _decaying(panels[row, 2], errors["one_sample_decaying"], objective)
            panels[row, 0].set_ylabel(f"relative error, {title}")
            for axes in panels[row, :3]:
                _step_axis(axes, results["inner_steps"])
                axes.legend(fontsize=8)
        look = {"color": "0.3", "linestyle": (0, (4, 2)), "linewidth": 1.1}
        sampled = panels[0, 2]
        (decaying,) = sampled.plot([], [], **look)
        handles, labels = sampled.get_legend_handles_labels()
        sampled.legend([*handles, decaying], [*labels, "the same, rate decaying to 0"], fontsize=8)
        for axes, name in zip(panels[0], _REGIMES.values(), strict=False):
            axes.set_title(name)
        _bounds(panels[0, 3], results["metrics"]["bound"])
        _step_axis(panels[0, 3], results["inner_steps"])
        panels[0, 3].set_title("bound of A.3, exact expectations")
        panels[0, 3].set_ylabel("relative to |g*|, L1")
        panels[0, 3].legend(fontsize=8, loc="lower left")
        _variance_ratios(panels[1, 3], results)
        panels[1, 3].set_title("variance of the L2 estimator (A.2)")
        panels[1, 3].legend(fontsize=7)
