"""Does the spread of adapted returns tell where adaptation fell short? 2D navigation, Section 5.3.

    python -m experiments.spread_study --run=DIR [--run=DIR ...] --workdir=DIR

Takes the trained priors of finished ``experiments.navigation`` runs. After each update on a test
task some batches of ``config.test_rollouts`` episodes: one gives the task's regret, its optimal
return less that of the posterior's mean; others give what could tell it, namely the standard
deviation of the returns of policies drawn from the posterior, one for each episode, that of the
mean's own returns, which the noise of actions alone makes, and the mean's return, which is seen in
any case. Prints Spearman's rank correlations with the regret over tasks, as Markdown; writes
``spread_study.json`` and a figure.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
from experiments import style
from experiments.navigation_prior import navigation_prior
from experiments.output_directory import make_directory
from experiments.provenance import provenance
from experiments.regret_signs import SIGNS, correlations, returns
from experiments.report_tables import table
from gembml.training import write_json


def report(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    header = ["seed", "updates", "regret", *SIGNS.values()]
    cells = [
        [
            str(row["seed"]),
            str(row["updates"]),
            f"{row['regret']:.2f}",
            *(f"{row[name]:.2f} ± {row[f'{name}_ci95']:.2f}" for name in SIGNS),
        ]
        for row in rows
    ]
    return table(header, cells)


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Rank correlation with the regret against updates, by sign; a point for each run."""
    middle = max(row["run"] for row in rows) / 2
    with style.figure(path, 5.6, 2.8) as figure:
        axes = figure.subplots()
        axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        for place, (name, colour, marker) in enumerate(
            zip(SIGNS, style.SEQUENCE, "os^", strict=False)
        ):
            axes.errorbar(
                [
                    row["updates"] + 0.14 * (place - 1) + 0.03 * (row["run"] - middle)
                    for row in rows
                ],
                [row[name] for row in rows],
                [row[f"{name}_ci95"] for row in rows],
                color=colour,
                marker=marker,
                markersize=4,
                linestyle="none",
                label=SIGNS[name],
            )
        axes.set_xticks(sorted({row["updates"] for row in rows}))
        axes.set_xlabel("updates")
        axes.set_ylabel("rank correlation with regret")
        figure.legend(loc="outside right upper", fontsize=7)


_RUN = flags.DEFINE_multi_string("run", [], "work directory of a finished navigation run")
_TASKS = flags.DEFINE_integer("tasks", 400, "test tasks")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory to write to")


def main(argv: list[str]) -> None:
    """Run the study that the flags describe."""
    command_line.no_arguments(argv)
    directories: list[str] = _RUN.value
    command_line.given("run", directories[0] if directories else None, "a finished run's")
    tasks = command_line.in_range("tasks", _TASKS.value, 3, 1_000_000)
    workdir = command_line.given("workdir", _WORKDIR.value)
    trained = [navigation_prior(pathlib.Path(directory)) for directory in directories]
    output = make_directory("workdir", workdir)
    rows = [
        {"run": number, "seed": run.about["seed"], **row}
        for number, run in enumerate(trained)
        for row in correlations(*returns(run, tasks))
    ]
    print(report(rows))
    content = {"runs": [run.about for run in trained], "tasks": tasks, "rows": rows}
    content |= {"command": command_line.command("experiments.spread_study"), **provenance()}
    write_json(output / "spread_study.json", content)
    draw(rows, output / "spread_study.png")


if __name__ == "__main__":
    command_line.run(main)
