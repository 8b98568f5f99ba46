"""What a second pass over the support set gives of MAML's meta-gradient, from values alone.

    python -m experiments.second_pass_study --run=DIR --run=DIR --data_dir=DIR --workdir=DIR

At the trained prior's mean of each ``experiments.few_shot`` run on Omniglot, one of an activation,
in the point limit, with one gradient step on the support set at the run's inner rate: the cosines,
with MAML's meta-gradient, of first-order MAML's and of Gradient-EM's with ``second_pass`` from 1 to
0.001 (``gembml.meta_gradients.gem``), means over the same training episodes, and of single ones.
Printed as Markdown and written to ``second_pass_study.json``, with a figure.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax

from experiments import style
from experiments.few_shot_presets import FewShotConfig
from experiments.few_shot_problem import make_experiment
from experiments.few_shot_run import fingerprint
from experiments.output_directory import make_directory
from experiments.provenance import provenance
from experiments.report_tables import table
from experiments.second_pass_cosines import SHARES, cosines
from experiments.trained_run import read_run, trained_prior
from gembml import ALGORITHMS
from gembml.base import Params
from gembml.tasks import omniglot
from gembml.tasks.data_dirs import default_data_dir
from gembml.tasks.images import ImageClasses
from gembml.training import InputError, write_json


def report(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    cells = [
        [
            row["activation"],
            "first order" if row["second_pass"] is None else f"{row['second_pass']:g}",
            f"{row['cosine_of_mean']:.3f}",
            f"{row['mean_cosine']:.3f}",
        ]
        for row in rows
    ]
    return table(["activation", "second pass", "cosine of means", "of one episode"], cells)


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """The cosine of the mean meta-gradients against the share, by activation."""
    with style.figure(path, 3.6, 2.8) as figure:
        axes = figure.subplots()
        names = {"relu": "ReLU", "silu": "SiLU"}
        for colour, marker, activation in zip(style.SEQUENCE, "os", names, strict=False):
            mine = [row for row in rows if row["activation"] == activation]
            if not mine:
                continue
            values = [row["cosine_of_mean"] for row in mine]
            name = names[activation]
            label = f"{name}, second pass"
            axes.plot(SHARES, values[1:], color=colour, marker=marker, markersize=4, label=label)
            axes.axhline(values[0], color=colour, linestyle=":", label=f"{name}, first order")
        axes.set_xscale("log")
        axes.set_ylim(min(0.0, *(row["cosine_of_mean"] for row in rows)) - 0.05, 1.05)
        axes.set_xlabel("share of the query set's step")
        axes.set_ylabel("cosine with MAML's\nmeta-gradient")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)


_RUN = flags.DEFINE_multi_string("run", [], "work directory of a finished run on Omniglot")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "as in experiments.few_shot")
_EPISODES = flags.DEFINE_integer("episodes", 40, "training episodes")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory to write to")


def main(argv: list[str]) -> None:
    """Run the study that the flags describe."""
    command_line.no_arguments(argv)
    episodes = command_line.in_range("episodes", _EPISODES.value, 2, 10_000)
    directories: list[str] = _RUN.value
    command_line.given("run", directories[0] if directories else None, "a finished run's")
    folder = pathlib.Path(_DATA_DIR.value).expanduser() if _DATA_DIR.value else default_data_dir()
    workdir = command_line.given("workdir", _WORKDIR.value)
    runs: list[dict[str, Any]] = []
    trained: list[tuple[FewShotConfig, ImageClasses, Params]] = []
    for directory in map(pathlib.Path, directories):
        about, config = read_run(
            directory,
            "few_shot",
            FewShotConfig,
            lambda about, config: (
                about["dataset"] == "omniglot"
                and config.inner_optimizer == "sgd"
                and about["algorithm"] != "meta_sgd"
                and ALGORITHMS[about["algorithm"]].family in ("delta", "gaussian")
            ),
            "a few-shot run on Omniglot with SGD and a delta or Gaussian prior",
        )
        if config.activation in (other.activation for other, *_ in trained):
            raise InputError(
                f"--run must name runs of different activations, and two have {config.activation}."
            )
        splits = omniglot.load(folder, split=about["split"])
        if about.get("data_sha256") not in (None, fingerprint(splits)):
            raise InputError(
                f"--run={directory} was trained on other images than --data_dir holds."
            )
        data = jax.device_put(splits.train)
        learner = make_experiment(about["algorithm"], config, data, about["meta_steps"]).learner
        runs.append(about)
        trained.append((config, data, trained_prior(directory, about["meta_steps"], learner).mean))
    output = make_directory("workdir", workdir)
    rows = [row for run in trained for row in cosines(*run, episodes)]
    print(report(rows))
    content = {"runs": runs, "episodes": episodes, "rows": rows}
    content |= {"command": command_line.command("experiments.second_pass_study"), **provenance()}
    write_json(output / "second_pass_study.json", content)
    draw(rows, output / "second_pass_study.png")


if __name__ == "__main__":
    command_line.run(main)
