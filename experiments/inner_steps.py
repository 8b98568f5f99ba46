"""How many inner steps MAML needs: appendix C.2 of the paper and its figure 2.

    python -m experiments.inner_steps --workdir=DIR

Trains MAML with 1, 2 and 3 inner steps on sinusoids of the appendix's setting, over several seeds,
each run in ``DIR/steps_N/seed_S``, and gathers them in ``DIR/results.json`` and
``DIR/appendix_figure_2.png``. The same command goes on where it was stopped.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
from experiments.pooling import pool
from experiments.provenance import provenance
from experiments.report_figures import appendix_figure_2
from experiments.sinusoid_presets import SinusoidConfig, preset
from experiments.sinusoid_run import run_experiment
from gembml.training import InputError, open_workdir, write_json

_ALGORITHM, _SETTING = "maml", "appendix_c2"


def run_inner_steps(
    config: SinusoidConfig,
    *,
    inner_steps: list[int],
    seeds: list[int],
    meta_steps: int,
    workdir: str,
    command: str,
) -> dict[str, Any]:
    """Train with each number of inner steps and each seed; returns what ``results.json`` holds."""
    shared = {name: v for name, v in dataclasses.asdict(config).items() if name != "inner_steps"}
    identity = {
        "experiment": "inner_steps",
        "algorithm": _ALGORITHM,
        "setting": _SETTING,
        "meta_steps": meta_steps,
        "config": shared,
    }
    # Neither list is part of the identity: more numbers or seeds may join the same directory.
    directory = open_workdir(workdir, identity)
    mse, mse_ci95, seconds = {}, {}, {}
    for number in inner_steps:
        runs = []
        for seed in seeds:
            print(f"{number} inner step{'' if number == 1 else 's'}, seed {seed}", flush=True)
            run = run_experiment(
                _ALGORITHM,
                _SETTING,
                dataclasses.replace(config, inner_steps=number),
                seed=seed,
                meta_steps=meta_steps,
                workdir=str(directory / f"steps_{number}" / f"seed_{seed}"),
                command=command,
            )
            runs.append(run)
        mse[str(number)], mse_ci95[str(number)] = pool(runs, "mse").by_step()
        seconds[str(number)] = [run["seconds"] for run in runs]
    results = identity | {
        "inner_steps": inner_steps,
        "seeds": seeds,
        "metrics": {"mse": mse, "mse_ci95": mse_ci95},
        "seconds": seconds,
        "command": command,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    appendix_figure_2(results, directory / "appendix_figure_2.png")
    return results


def summary(results: dict[str, Any]) -> str:
    """The MSE as a few lines for the terminal."""
    steps = [0, 1, 5, 10, 20]
    lines = [f"{'adaptation steps':>18}" + "".join(f"{step:>10}" for step in steps)]
    for number, mse in results["metrics"]["mse"].items():
        row = "".join(f"{mse.get(str(step), float('nan')):>10.3f}" for step in steps)
        lines.append(f"{f'mse, trained on {number}':>18}{row}")
    return "\n".join(lines)


_WORKDIR = flags.DEFINE_string("workdir", None, "directory of all runs; resumed if it holds them")
_META_STEPS = flags.DEFINE_integer("meta_steps", 40_000, "meta-steps of each run")
_INNER_STEPS = flags.DEFINE_list("inner_steps", ["1", "2", "3"], "numbers of inner steps to train")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of the runs")


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    if flags.FLAGS["config.inner_steps"].present:
        raise InputError("--config.inner_steps is what is compared: write --inner_steps=1,2,3.")
    config = command_line.override(preset("tuned", _ALGORITHM, _SETTING), _ALGORITHM)
    workdir = command_line.given("workdir", _WORKDIR.value)
    results = run_inner_steps(
        config,
        inner_steps=command_line.whole_numbers("inner_steps", _INNER_STEPS.value, 1),
        seeds=command_line.whole_numbers("seeds", _SEEDS.value, 0),
        meta_steps=command_line.in_range("meta_steps", _META_STEPS.value, 1),
        workdir=workdir,
        command=command_line.command("experiments.inner_steps"),
    )
    print(summary(results))
    print(f"Results and figure: {pathlib.Path(workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(SinusoidConfig)
    command_line.run(main)
