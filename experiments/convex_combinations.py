"""Starting points inside the region A* of adapted weights: appendix C.3 of the paper, its figure 3.

    python -m experiments.convex_combinations --workdir=DIR

Trains MAML on the default sinusoids (``DIR/maml``, resumed if it is there), adapts it to 300 tasks,
and starts adaptation to the 600 test tasks from random convex combinations of the adapted weights.
Beside them: the trained starting point, and the untrained network it was trained from.

The paper combines "any point within the convex combination" of all adapted weights without saying
how it is drawn. A uniform draw over 300 of them is nearly their mean every time (region.py has the
formula), so by default each point combines 5 of them, drawn anew; ``--combined=300`` is the other
reading. Omniglot, which the paper shows too, is not part of this program.
"""

import dataclasses
import functools
import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import numpy as np

from experiments import region
from experiments.pooling import Curve, student_ci95
from experiments.provenance import provenance
from experiments.report_figures import appendix_figure_3
from experiments.sinusoid_evaluation import TEST_SEED, make_experiment
from experiments.sinusoid_presets import SinusoidConfig, preset
from experiments.sinusoid_run import run_experiment
from experiments.trained_run import trained_prior
from gembml.evaluation import ci95
from gembml.runs import init_key
from gembml.training import InputError, open_workdir, write_json

_ALGORITHM, _SETTING = "maml", "default"
# The tasks whose adapted weights span the region: apart from training, validation and test tasks.
_REGION_SEED, _REGION_TASKS = 3_000_003, 300
_ADAPTED = 10
_STARTS_SHOWN = 5


def run_convex_combinations(
    config: SinusoidConfig,
    *,
    starts: int,
    combined: int,
    concentration: float,
    seed: int,
    meta_steps: int,
    workdir: str,
    command: str,
) -> dict[str, Any]:
    """Train, draw starting points, evaluate; returns what ``results.json`` holds."""
    identity = {
        "experiment": "convex_combinations",
        "algorithm": _ALGORITHM,
        "setting": _SETTING,
        "seed": seed,
        "meta_steps": meta_steps,
        "config": dataclasses.asdict(config),
        "starts": starts,
        "combined": combined,
        "concentration": concentration,
    }
    directory = open_workdir(workdir, identity)
    training = run_experiment(
        _ALGORITHM,
        _SETTING,
        config,
        seed=seed,
        meta_steps=meta_steps,
        workdir=str(directory / "maml"),
        command=command,
    )
    experiment = make_experiment(_ALGORITHM, _SETTING, config, meta_steps)
    untrained = jax.jit(experiment.learner.init)(init_key(jax.random.key(seed))).prior
    trained = trained_prior(directory / "maml", meta_steps, experiment.learner)

    @jax.jit
    def drawn(prior: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        adapt_key, point_key = jax.random.split(key)
        tasks = experiment.held_out(_REGION_SEED, _REGION_TASKS)
        weights = region.adapted_weights(experiment, prior, adapt_key, tasks, _ADAPTED)
        points = region.random_points(point_key, weights, starts, combined, concentration)
        return points, region.relative_spread(points, weights)

    points, spread = drawn(trained, jax.random.key(seed + _REGION_SEED))
    steps = tuple(int(step) for step in training["metrics"]["mse"])

    @jax.jit
    def errors(all_starts: jax.Array) -> jax.Array:
        tasks = experiment.held_out(TEST_SEED, config.test_tasks)
        key = jax.random.key(TEST_SEED + 1)
        return region.errors(experiment, all_starts, key, tasks, steps)

    ends = np.stack([trained.mean, untrained.mean])
    mse = np.asarray(errors(np.concatenate([ends, np.asarray(points)])), np.float64)
    of_starts = mse[2:].mean(axis=1)
    curve = functools.partial(Curve, np.array(steps))
    curves = {
        "trained": curve(mse[0].mean(axis=0), ci95(mse[0])).by_step(),
        "random_starts": curve(of_starts.mean(axis=0), student_ci95(of_starts)).by_step(),
        "untrained": curve(mse[1].mean(axis=0), ci95(mse[1])).by_step(),
    }
    results = identity | {
        "metrics": {
            "mse": {name: mean for name, (mean, _) in curves.items()},
            # Over test tasks; of random_starts over starts.
            "mse_ci95": {name: half for name, (_, half) in curves.items()},
            "mse_single_starts": {
                str(i): curve(of_starts[i], of_starts[i]).by_step()[0]
                for i in range(min(starts, _STARTS_SHOWN))
            },
        },
        "relative_spread": round(float(spread), 4),
        "seconds": training["seconds"],
        "command": command,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    appendix_figure_3(results, directory / "appendix_figure_3.png")
    return results


def summary(results: dict[str, Any]) -> str:
    """The MSE as a few lines for the terminal."""
    steps = [0, 1, 5, 10, 20]
    lines = [f"{'adaptation steps':>18}" + "".join(f"{step:>10}" for step in steps)]
    for name, mse in results["metrics"]["mse"].items():
        row = "".join(f"{mse.get(str(step), float('nan')):>10.3f}" for step in steps)
        lines.append(f"{name.replace('_', ' '):>18}{row}")
    return "\n".join(lines)


_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run; resumed if it holds it")
_META_STEPS = flags.DEFINE_integer("meta_steps", 40_000, "meta-steps in all")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the training and of the random points")
_STARTS = flags.DEFINE_integer("starts", 100, "random starting points, at least 2")
_COMBINED = flags.DEFINE_integer(
    "combined", 5, f"adapted weights in each convex combination, 1 to {_REGION_TASKS}"
)
_CONCENTRATION = flags.DEFINE_float(
    "concentration", 1.0, "concentration of the Dirichlet distribution of the combination's weights"
)


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    config = command_line.override(preset("tuned", _ALGORITHM, _SETTING), _ALGORITHM)
    workdir = command_line.given("workdir", _WORKDIR.value)
    if not 1 <= _COMBINED.value <= _REGION_TASKS:
        raise InputError(f"--combined must be 1 to {_REGION_TASKS}, not {_COMBINED.value}.")
    if not 0 < _CONCENTRATION.value < float("inf"):
        raise InputError(f"--concentration must be above 0, not {_CONCENTRATION.value}.")
    results = run_convex_combinations(
        config,
        starts=command_line.in_range("starts", _STARTS.value, 2),
        combined=_COMBINED.value,
        concentration=_CONCENTRATION.value,
        seed=command_line.in_range("seed", _SEED.value, 0, 2**32 - 1),
        meta_steps=command_line.in_range("meta_steps", _META_STEPS.value, 1),
        workdir=workdir,
        command=command_line.command("experiments.convex_combinations"),
    )
    print(summary(results))
    print(f"Results and figure: {pathlib.Path(workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(SinusoidConfig)
    command_line.run(main)
