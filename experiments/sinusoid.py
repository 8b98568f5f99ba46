"""Sinusoid regression: Section 5.1 and figure 2(a) of the paper.

    python -m experiments.sinusoid --algorithm=gem_bml_plus --setting=default --workdir=DIR

Trains on the sinusoids of ``--setting``, evaluates on 600 test tasks, and writes into ``--workdir``
``results.json``, figures, metrics (JSON lines and TensorBoard) and checkpoints. The same command
goes on where it was stopped. ``--seeds=8`` trains eight seeds in one compiled program;
``--devices=8`` spreads the seeds, or the tasks of a meta-step, over eight devices, and
``--coordinator`` over several processes.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
from experiments import devices
from experiments.sinusoid_presets import PRESETS, SinusoidConfig, preset
from experiments.sinusoid_run import run_seeds
from experiments.training_flags import training_flags
from gembml import distributed
from gembml.tasks.sinusoid import SETTINGS
from gembml.training import DivergedError


def _cell(value: float | None) -> str:
    return f"{'diverged':>10}" if value is None else f"{value:>10.3f}"


def summary(results: dict[str, Any]) -> str:
    """The results as a few lines for the terminal."""
    metrics = results["metrics"]
    steps = [step for step in (0, 1, 5, 10, 20) if str(step) in metrics["mse"]]
    lines = [f"{'adaptation steps':>18}" + "".join(f"{step:>10}" for step in steps)]
    for name in ("mse", "mse_ci95", "nll", "coverage90"):
        row = "".join(f"{_cell(metrics[name][str(step)])}" for step in steps)
        lines.append(f"{name:>18}{row}")
    return "\n".join(lines)


_read = training_flags(PRESETS, meta_steps=40_000)
_SETTING = flags.DEFINE_string("setting", "default", f"one of {', '.join(SETTINGS)}")
_SEEDS = flags.DEFINE_integer("seeds", 1, "how many seeds, from --seed on, in one program")


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    number = command_line.in_range("seeds", _SEEDS.value, 1, 10_000)
    if (run := _read(number)) is None:
        return
    setting = _SETTING.value
    command_line.choose("setting", SETTINGS, setting)
    config = command_line.override(preset(run.preset, run.algorithm, setting), run.algorithm)
    results = run_seeds(
        run.algorithm,
        setting,
        config,
        seeds=tuple(range(run.seed, run.seed + number)),
        meta_steps=run.meta_steps,
        workdir=run.workdir,
        command=command_line.command("experiments.sinusoid"),
        mesh=devices.run_mesh(config.meta_batch, number),
    )
    if distributed.team().first:
        tell(results, pathlib.Path(run.workdir))


def tell(results: dict[int, dict[str, Any]], workdir: pathlib.Path) -> None:
    """Print the results of each seed.

    Raises:
      DivergedError: if a run has none.
    """
    diverged = [seed for seed, result in results.items() if "diverged" in result]
    for seed, result in results.items():
        if len(results) > 1:
            print(f"seed {seed}")
        print(result["diverged"] if seed in diverged else summary(result))
    where = "results.json" if len(results) == 1 else "seed_*/results.json"
    print(f"Results and figures: {workdir / where}")
    if len(diverged) == len(results):
        raise DivergedError("All runs diverged; the results of each say where.")
    if diverged:
        raise DivergedError(
            f"{len(diverged)} of {len(results)} runs diverged, of seed "
            f"{', '.join(map(str, diverged))}; the results of the others are written."
        )


if __name__ == "__main__":
    command_line.define_config_flags(SinusoidConfig)
    command_line.run(main)
