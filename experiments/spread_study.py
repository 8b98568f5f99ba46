"""Does the spread of adapted returns tell where adaptation fell short? 2D navigation, Section 5.3.

    python -m experiments.spread_study --run=DIR [--run=DIR ...] --workdir=DIR

Takes the trained priors of finished ``experiments.navigation`` runs. After each update on a test
task three batches of ``config.test_rollouts`` episodes. One gives the task's regret, its optimal
return less that of the posterior's mean. The others give what could tell it: the standard deviation
of the returns of policies drawn from the posterior, one for each episode, which holds the noise of
actions too; and, of one batch of the mean, that of the returns, which the noise of actions alone
makes, and their average, which is seen in any case. Prints Spearman's rank correlations with the
regret over tasks, with intervals over tasks, as Markdown; writes ``spread_study.json`` and a
figure. All runs see the same tasks.
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
from gembml.training import InputError, write_json


def report(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    shown = {**SIGNS, "action_std_more": "mean's episodes less drawn policies"}
    header = ["seed", "updates", "regret", *shown.values()]
    cells = [
        [
            str(row["seed"]),
            str(row["updates"]),
            f"{row['regret']:.2f}",
            *(f"{row[name]:.2f} ± {row[f'{name}_ci95']:.2f}" for name in shown),
        ]
        for row in rows
    ]
    return table(header, cells)


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Rank correlation with the regret against updates, by sign; a point for each run."""
    # The runs' points side by side, by sign, around the number of updates.
    runs = max(row["run"] for row in rows) + 1
    width = 0.14 / max(runs, 4)
    places = {
        (name, run): 0.14 * (sign - 1) + width * (run - (runs - 1) / 2)
        for sign, name in enumerate(SIGNS)
        for run in range(runs)
    }
    with style.figure(path, 5.6, 2.8) as figure:
        axes = figure.subplots()
        axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        for name, colour, marker in zip(SIGNS, style.SEQUENCE, "os^", strict=False):
            axes.errorbar(
                [row["updates"] + places[name, row["run"]] for row in rows],
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
    tasks = command_line.in_range("tasks", _TASKS.value, 20, 1_000_000)
    workdir = command_line.given("workdir", _WORKDIR.value)
    if len({pathlib.Path(directory).resolve() for directory in directories}) < len(directories):
        raise InputError("--run must name each run once.")
    trained = [
        navigation_prior(
            pathlib.Path(directory),
            lambda config: config.test_rollouts > 1,
            "config.test_rollouts of at least 2",
        )
        for directory in directories
    ]
    if len({(run.config.reward, run.config.goals, run.config.horizon) for run in trained}) > 1:
        raise InputError("--run must name runs of the same config.reward, .goals and .horizon.")
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
