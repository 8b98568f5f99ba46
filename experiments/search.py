"""The small search that chose each algorithm's learning rates on the sinusoid.

    python -m experiments.search --algorithm=maml --setting=default --workdir=DIR

Trains one run for each pair of an inner and a meta learning rate, all of them in one compiled
program, and ranks them by the error on validation tasks after 10 adaptation steps. Every algorithm
gets 3 x 3 rates and the same number of meta-steps; its other options are those of its preset.
"""

import dataclasses
import itertools
import pathlib
import time
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments import style
from experiments.provenance import provenance
from experiments.refusals import refuse
from experiments.report_tables import table
from experiments.search_grid import grid
from experiments.sinusoid_evaluation import (
    ADAPTED,
    VALIDATION_SEED,
    Experiment,
    adapted_metrics,
    make_experiment,
)
from experiments.sinusoid_presets import SinusoidConfig, preset
from gembml import ALGORITHMS
from gembml.base import Distribution
from gembml.runs import Hyperparameters, many_runs
from gembml.tasks.sinusoid import SETTINGS
from gembml.training import InputError, open_workdir, write_json


def _experiment(
    algorithm: str, setting: str, config: SinusoidConfig, numbers: Hyperparameters, meta_steps: int
) -> Experiment:
    config = dataclasses.replace(config, **numbers)  # type: ignore[arg-type]
    return make_experiment(algorithm, setting, config, meta_steps)


def train_grid(
    algorithm: str,
    setting: str,
    config: SinusoidConfig,
    numbers: Hyperparameters,
    seeds: list[int],
    meta_steps: int,
) -> Distribution:
    """The priors after ``meta_steps``, one for each entry of ``numbers``, ``[runs, ...]``."""

    def of(given: Hyperparameters) -> Experiment:
        return _experiment(algorithm, setting, config, given, meta_steps)

    sample_tasks = make_experiment(algorithm, setting, config, meta_steps).sample_tasks
    length = min(meta_steps, config.steps_per_dispatch)
    runs = many_runs(lambda given: of(given).learner, sample_tasks, length)
    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    states = jax.jit(runs.init)(keys, numbers)
    run = jax.jit(runs.run, donate_argnums=0)
    for step in range(0, meta_steps, length):
        states, _ = run(states, keys, numbers, jnp.int32(step))
    return states.prior


def validation_mse(
    algorithm: str,
    setting: str,
    config: SinusoidConfig,
    numbers: Hyperparameters,
    priors: Distribution,
    meta_steps: int,
) -> np.ndarray:
    """Mean squared error on validation tasks after 10 adaptation steps, ``[runs]``."""

    def of_run(given: Hyperparameters, prior: Distribution) -> jax.Array:
        experiment = _experiment(algorithm, setting, config, given, meta_steps)
        metrics = adapted_metrics(experiment, (ADAPTED,))
        tasks = experiment.held_out(VALIDATION_SEED, config.validation_tasks)
        keys = jax.random.split(jax.random.key(VALIDATION_SEED + 1), config.validation_tasks)
        errors = lax.map(
            lambda xs: metrics(prior, xs[0], xs[1], jnp.float32(1.0)).mse[0],
            (keys, tasks),
            batch_size=50,
        )
        return jnp.mean(errors)

    return np.asarray(jax.jit(jax.vmap(of_run))(numbers, priors))


def search(
    algorithm: str,
    setting: str,
    config: SinusoidConfig,
    *,
    seed: int,
    meta_steps: int,
    workdir: str,
    command: str,
) -> dict[str, Any]:
    """Train and rank the grid; returns what ``search.json`` holds."""
    inner, meta = grid(algorithm)
    identity = {
        "experiment": "search",
        "algorithm": algorithm,
        "setting": setting,
        "seed": seed,
        "meta_steps": meta_steps,
        "inner_learning_rate": list(inner),
        "meta_learning_rate": list(meta),
        "config": dataclasses.asdict(config),
    }
    directory = open_workdir(workdir, identity)
    pairs = list(itertools.product(inner, meta))
    numbers = {
        "inner_learning_rate": jnp.array([pair[0] for pair in pairs], jnp.float32),
        "meta_learning_rate": jnp.array([pair[1] for pair in pairs], jnp.float32),
    }
    began = time.perf_counter()
    priors = train_grid(algorithm, setting, config, numbers, [seed] * len(pairs), meta_steps)
    mse = validation_mse(algorithm, setting, config, numbers, priors, meta_steps)
    if not np.isfinite(mse).any():
        raise InputError(f"Every pair of learning rates diverged for {algorithm}: none is chosen.")
    best = int(np.nanargmin(np.where(np.isfinite(mse), mse, np.inf)))
    results = identity | {
        "validation_mse": [
            [None if not np.isfinite(value) else round(float(value), 6) for value in row]
            for row in mse.reshape(len(inner), len(meta))
        ],
        "chosen": {"inner_learning_rate": pairs[best][0], "meta_learning_rate": pairs[best][1]},
        "seconds": round(time.perf_counter() - began, 1),
        "command": command,
        **provenance(),
    }
    write_json(directory / "search.json", results)
    return results


def summary(results: dict[str, Any]) -> str:
    """The grid as a Markdown table, the chosen pair in bold."""
    rows = []
    for rate, errors in zip(results["inner_learning_rate"], results["validation_mse"], strict=True):
        cells = [f"{rate:g}"]
        for meta_rate, error in zip(results["meta_learning_rate"], errors, strict=True):
            text = "diverged" if error is None else f"{error:.3f}"
            chosen = results["chosen"].values()
            cells.append(f"**{text}**" if (rate, meta_rate) == tuple(chosen) else text)
        rows.append(cells)
    header = ["inner rate", *(f"meta rate {rate:g}" for rate in results["meta_learning_rate"])]
    label = style.label(results["algorithm"])
    title = f"{label}, {results['setting']} setting, {results['meta_steps']:,} meta-steps"
    return f"{title}: validation MSE after {ADAPTED} steps\n\n{table(header, rows)}"


_SEARCHED, _UNUSED = "is what is searched for", "has no effect on a search"
_REFUSED = {
    "inner_learning_rate": _SEARCHED,
    "meta_learning_rate": _SEARCHED,
    **dict.fromkeys(("test_tasks", "test_steps", "evaluate_every", "checkpoint_every"), _UNUSED),
}
_ALGORITHM = flags.DEFINE_string("algorithm", "gem_bml_plus", f"one of {', '.join(ALGORITHMS)}")
_SETTING = flags.DEFINE_string("setting", "default", f"one of {', '.join(SETTINGS)}")
_META_STEPS = flags.DEFINE_integer("meta_steps", 4_000, "meta-steps of each run")
_SEED = flags.DEFINE_integer("seed", 0, "seed of all runs")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory for search.json")


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    command_line.choose("algorithm", ALGORITHMS, _ALGORITHM.value)
    command_line.choose("setting", SETTINGS, _SETTING.value)
    refuse(_REFUSED)
    config = command_line.override(
        preset("tuned", _ALGORITHM.value, _SETTING.value), _ALGORITHM.value
    )
    meta_steps = command_line.in_range("meta_steps", _META_STEPS.value, 1)
    length = min(meta_steps, config.steps_per_dispatch)
    if meta_steps % length:
        raise InputError(f"--meta_steps must be a multiple of {length}, not {meta_steps}.")
    workdir = command_line.given("workdir", _WORKDIR.value)
    results = search(
        _ALGORITHM.value,
        _SETTING.value,
        config,
        seed=command_line.in_range("seed", _SEED.value, 0, 2**32 - 1),
        meta_steps=meta_steps,
        workdir=workdir,
        command=command_line.command("experiments.search"),
    )
    print(summary(results))
    print(f"\nChosen rates: {pathlib.Path(workdir) / 'search.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(SinusoidConfig)
    command_line.run(main)
