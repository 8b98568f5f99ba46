"""The report's section of figure 2(b): time and memory of a meta-step against inner steps."""

import pathlib

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from experiments import style
from experiments.report_groups import generalised
from experiments.report_inputs import Results
from experiments.report_tables import table

_MEASURES = {
    "ms_per_meta_step": (1e-3, "seconds per meta-step"),
    "temporary_bytes": (2.0**-20, "temporary memory, MiB"),
}


def _by_algorithm(results: Results) -> dict[str, list[Results]]:
    """Rows of each algorithm by inner steps, algorithms in the order of tables."""
    rows = sorted(results["rows"], key=lambda row: row["inner_steps"])
    names = sorted({row["algorithm"] for row in rows}, key=style.place)
    return {name: [row for row in rows if row["algorithm"] == name] for name in names}


def _panel(axes: Axes, results: Results, measure: str) -> None:
    scale, label = _MEASURES[measure]
    for algorithm, rows in _by_algorithm(results).items():
        shown = [row for row in rows if row.get(measure) is not None]
        axes.plot(
            [row["inner_steps"] for row in shown],
            [scale * row[measure] for row in shown],
            **style.look(algorithm),
            markersize=5,
            label=style.label(algorithm),
            zorder=4 if algorithm == "gem_bml_plus" else 3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    steps = sorted({row["inner_steps"] for row in results["rows"]})
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axes.set_xlabel("inner steps")
    axes.set_ylabel(label)


def figure_2b(results: Results, path: pathlib.Path) -> None:
    """Figure 2(b): left seconds, right memory of a meta-step, each algorithm a curve."""
    with style.figure(path, 8.6, 3.3) as figure:
        panels = figure.subplots(1, len(_MEASURES))
        for axes, measure in zip(panels, _MEASURES, strict=True):
            _panel(axes, results, measure)
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5)


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return "–"
    number = scale * value
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _table(results: Results) -> str:
    steps = sorted({row["inner_steps"] for row in results["rows"]})
    header = ["algorithm", "measured"]
    header += [f"{step} inner step{'' if step == 1 else 's'}" for step in steps]
    measures = {
        "ms_per_meta_step": (1.0, "ms per meta-step"),
        "temporary_bytes": (2.0**-20, "temporary MiB"),
        "device_peak_bytes": (2.0**-20, "device peak MiB"),
    }
    cells = []
    for algorithm, rows in _by_algorithm(results).items():
        by_steps = {row["inner_steps"]: row for row in rows}
        for measure, (scale, name) in measures.items():
            values = [by_steps.get(step, {}).get(measure) for step in steps]
            if any(value is not None for value in values):
                label = style.label(algorithm)
                cells.append([label, name, *(_number(value, scale) for value in values)])
    return table(header, cells, left=2)


def _untimed(results: Results) -> str:
    """Which points have no time, by reason."""
    by_reason: dict[str, list[str]] = {}
    for algorithm, rows in _by_algorithm(results).items():
        for row in rows:
            if row.get("ms_per_meta_step") is None:
                name = f"{style.label(algorithm)} with {row['inner_steps']}"
                by_reason.setdefault(row.get("untimed") or "no reason given", []).append(name)
    lists = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
    return f"Not timed, by inner steps: {lists}." if lists else ""


def _query_phase(results: Results) -> str:
    """How many inner steps on the query set there are besides those on the support set."""
    by_number: dict[str, list[str]] = {}
    for algorithm, rows in _by_algorithm(results).items():
        numbers = {(row["inner_steps"], row.get("query_steps")) for row in rows}
        if all(query is None for _, query in numbers):
            continue
        as_many = all(query == steps for steps, query in numbers)
        number = "as many" if as_many else ", ".join(sorted({str(query) for _, query in numbers}))
        by_number.setdefault(number, []).append(style.label(algorithm))
    lists = "; ".join(f"{number}: {', '.join(names)}" for number, names in by_number.items())
    return f"Further inner steps on the query set: {lists}; the others take none." if lists else ""


def tradeoffs(results: list[Results], output: pathlib.Path) -> str:
    """Figure 2(b) and its numbers, for every device it was measured on."""
    parts = ["### Time and memory against inner steps (figure 2(b))"]
    for index, run in enumerate(results):
        name = f"figure_2b{f'_{index + 1}' if index else ''}.png"
        figure_2b(run, output / name)
        plural = "" if run["meta_batch"] == 1 else "s"
        parts += [
            f"![Time and memory of a meta-step against inner steps]({name})",
            f"One meta-step of {run['meta_batch']} task{plural}, {run['ways']}-way "
            f"{run['shots']}-shot, {run['queries']} queries per class, images of "
            f"{run['image_size']} × {run['image_size']}, {run['filters']} filters, "
            f"{run['device']}. "
            + ("Times are of the CPU's clock, one thread. " if run.get("clock") == "CPU" else "")
            + "Temporary memory is "
            "what the compiled program allocates beside its inputs and outputs, device peak what "
            "the device had in use at most. The paper gives a figure without numbers.",
            _table(run),
        ]
        parts += [text for text in (_query_phase(run), _untimed(run)) if text]
        if run.get("command"):
            parts.append(f"```sh\n{generalised(run['command'], workdir='DIR')}\n```")
    return "\n\n".join(parts)
