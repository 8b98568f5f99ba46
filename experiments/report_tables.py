"""The report's sections: a function per experiment, from its results to Markdown and figures."""

import json
import math
import pathlib
from collections.abc import Callable, Sequence

from experiments import report_figures as figures
from experiments.pooling import Curve, curve
from experiments.published import GEM_BML_PAPER, sinusoid_mse
from experiments.report_groups import Group, generalised, group_runs
from experiments.report_inputs import Results

Section = Callable[[list[Results], pathlib.Path], str]
"""``(results of one experiment, directory for figures)`` -> Markdown; links are file names."""

_STEPS = (0, 1, 5, 10, 20)
_ADAPTED = 10
_FIGURE_SETTINGS = ("default", "challenging")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; columns after the first ``left`` are right-aligned."""
    rules = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rules, *rows])


def _cell(pooled: Curve, step: int, digits: int = 3, interval: bool = True) -> str:
    found = pooled.at(step)
    if found is None:
        return "–"
    mean, half = found
    if not math.isfinite(mean):
        return "diverged"
    shown = f"{mean:.{digits}f}"
    return f"{shown} ± {half:.{digits}f}" if interval and math.isfinite(half) else shown


def _mse_cell(group: Group, step: int) -> str:
    """The mean error, or where adaptation blew up on some tasks the median over tasks."""
    cell = _cell(group.curve("mse"), step)
    if cell != "diverged" or not all("mse_median" in run["metrics"] for run in group.runs):
        return cell
    medians = [run["metrics"]["mse_median"][str(step)] for run in group.runs]
    known = [median for median in medians if median is not None]
    return f"diverged; median {sum(known) / len(known):.3f}" if known else cell


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


Costs = dict[tuple[str, int], tuple[float, float]]
"""(algorithm, inner steps) -> milliseconds and temporary KiB of a meta-step, by the benchmark."""


def _costs(directory: pathlib.Path) -> tuple[Costs, str]:
    """What the benchmark beside the figures measured, and where; nothing if there is none."""
    path = directory / "benchmark.json"
    if not path.exists():
        return {}, ""
    measured = json.loads(path.read_text(encoding="utf-8"))
    costs = {
        (row["algorithm"], row["inner_steps"]): (
            1e3 / row["best"],
            row["temp_size_in_bytes"] / 1024,
        )
        for row in measured.get("throughput", [])
        if "temp_size_in_bytes" in row
    }
    return costs, measured["device"]


def _sinusoid_row(group: Group, setting: str, costs: Costs) -> list[str]:
    steps = group.inner_steps
    seeds = str(len(group.runs)) + (f" ({len(group.diverged)} diverged)" if group.diverged else "")
    cost = costs.get((group.algorithm, steps))
    measured = ["–", "–"] if cost is None else [f"{cost[0]:.2f}", f"{cost[1]:,.0f}"]
    published = sinusoid_mse(group.algorithm, setting)
    if not group.runs:
        curves = ["diverged"] * len(_STEPS)
        return [group.label, str(steps), seeds, *curves, published, "–", "–", "–", *measured]
    nll, coverage = group.curve("nll"), group.curve("coverage90")
    return [
        group.label,
        str(steps),
        seeds,
        *(_mse_cell(group, step) for step in _STEPS),
        published,
        _cell(nll, _ADAPTED, 2, interval=False),
        _cell(coverage, _ADAPTED, 2, interval=False),
        _number(group.mean("predictive_noise_std"), ".2f"),
        *measured,
    ]


def _commands(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        many = "s" if len(group.seeds) > 1 else ""
        seeds = ", ".join(map(str, group.seeds))
        lines.append(f"# {group.label}: seed{many} {seeds}")
        lines += group.commands or ["# (its command was not recorded)"]
    return "\n".join(["```sh", *lines, "```"])


def sinusoid(results: list[Results], output: pathlib.Path) -> str:
    """Section 5.1: figure 2(a), and a table per setting."""
    others = sorted({run["setting"] for run in results} - set(_FIGURE_SETTINGS))
    settings = {
        setting: group_runs([run for run in results if run["setting"] == setting])
        for setting in (*_FIGURE_SETTINGS, *others)
    }
    parts = ["### Sinusoid regression (Section 5.1)"]
    drawn = {setting: settings[setting] for setting in _FIGURE_SETTINGS}
    if any(drawn.values()):
        figures.figure_2a(drawn, output / "figure_2a.png")
        parts += [
            "![Test MSE against adaptation steps](figure_2a.png)",
            "One row of each algorithm: of GEM-BML(+) the one nearest to the tuned preset, of any "
            "other the best on these test tasks, which favours it.",
        ]
    header = ["algorithm", "inner steps", "seeds"]
    header += [f"MSE after {step} step{'' if step == 1 else 's'}" for step in _STEPS]
    header += [
        "published MSE¹",
        f"NLL after {_ADAPTED}",
        f"90% coverage after {_ADAPTED}",
    ]
    header += ["noise std", "ms per meta-step²", "temporary KiB²"]
    costs, device = _costs(output)
    for setting, groups in settings.items():
        if not groups:
            continue
        lengths = sorted({group.meta_steps for group in groups})
        trained = " or ".join(f"{length:,}" for length in lengths)
        parts += [
            f"#### {setting.capitalize()} setting, {trained} meta-steps",
            table(header, [_sinusoid_row(group, setting, costs) for group in groups]),
            _commands(groups),
        ]
    parts.append(
        "MSE: of the predictive mean to noise-free targets, over the test tasks, mean over seeds ± "
        "half the 95% interval (over seeds by Student's t; with one seed over test tasks). NLL "
        "(nats per point) and coverage: of noisy held-out targets. Noise std: the predictive's, "
        "fitted on validation tasks. Rows with diverged seeds are means over the others. "
        "“Diverged” in a cell: adaptation blew up on a test task or more; the median is over tasks."
    )
    parts.append(
        f"¹ {GEM_BML_PAPER}, gives the sinusoid results only as the curves of its "
        "figure 2(a), without numbers; “–” where the figure has no such curve."
    )
    if costs:
        parts.append(
            "² Of the default setting's preset with this number of inner steps; rates do not "
            "change it, and the caps that rows of the challenging setting have, hardly. "
            f"By `python -m experiments.benchmark`, {device}."
        )
    return "\n\n".join(parts)


def _curves_table(first: str, rows: dict[str, Curve]) -> str:
    header = [first, *(f"MSE after {step} step{'' if step == 1 else 's'}" for step in _STEPS)]
    cells = [[name, *(_cell(row, step) for step in _STEPS)] for name, row in rows.items()]
    return table(header, cells)


def _curves(results: Results) -> dict[str, Curve]:
    metrics = results["metrics"]
    return {
        name: curve({"mse": mse, "mse_ci95": metrics["mse_ci95"][name]}, "mse")
        for name, mse in metrics["mse"].items()
    }


def _command(results: Results) -> str:
    command = results.get("command")
    return f"```sh\n{generalised(command, workdir='DIR')}\n```" if command else ""


def inner_steps(results: list[Results], output: pathlib.Path) -> str:
    """Appendix C.2: how many inner steps MAML needs."""
    parts = ["### How many inner steps MAML needs (appendix C.2)"]
    for index, run in enumerate(results):
        name = f"appendix_figure_2{f'_{index + 1}' if index else ''}.png"
        figures.appendix_figure_2(run, output / name)
        seeds = ", ".join(map(str, run["seeds"]))
        parts += [
            f"![MAML with different numbers of inner steps]({name})",
            f"{run['meta_steps']:,} meta-steps, seeds {seeds}, {run['device']}. "
            "The paper gives a figure without numbers.",
            _curves_table("inner steps in training", _curves(run)),
            _command(run),
        ]
    return "\n\n".join(part for part in parts if part)


def convex_combinations(results: list[Results], output: pathlib.Path) -> str:
    """Appendix C.3: random points of the region that adapted weights span."""
    parts = ["### Starting points inside the region of adapted weights (appendix C.3)"]
    for index, run in enumerate(results):
        name = f"appendix_figure_3{f'_{index + 1}' if index else ''}.png"
        figures.appendix_figure_3(run, output / name)
        parts += [
            f"![Random starting points of A*]({name})",
            f"{run['starts']} random convex combinations of {run['combined']} adapted weights "
            f"each, {run['meta_steps']:,} meta-steps, {run['device']}. The paper gives a figure "
            "without numbers.",
            _curves_table(
                "starting point",
                {name.replace("_", " "): row for name, row in _curves(run).items()},
            ),
            _command(run),
        ]
    return "\n\n".join(part for part in parts if part)


# A new experiment is a row here, and its fields in report_inputs.
SECTIONS: dict[str, Section] = {
    "sinusoid": sinusoid,
    "inner_steps": inner_steps,
    "convex_combinations": convex_combinations,
}
