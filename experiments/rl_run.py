"""A reinforcement-learning run, from a config to ``results.json`` and figures."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import rl_figures as figures
from experiments import style
from experiments.checks import check_builds
from experiments.pooling import curve
from experiments.provenance import provenance
from experiments.rl_experiment import (
    TEST_SEED,
    VALIDATION_SEED,
    Returns,
    Setting,
    evaluator,
    held_out,
    make_experiment,
)
from experiments.rl_presets import RLConfig
from gembml import distributed
from gembml.base import Distribution, LearnerState
from gembml.evaluation import ci95
from gembml.runs import init_key
from gembml.training import lost_tasks, open_workdir, read_metrics, train, write_json


class Named(NamedTuple):
    """What a run is called in its results: ``{"experiment": ..., "task": ...}`` and so on."""

    experiment: str
    about: dict[str, Any]


def _by_update(values: np.ndarray) -> dict[str, float | None]:
    """Values by number of updates; None, JSON's null, where they are not finite."""
    return {
        str(update): round(float(value), 4) if np.isfinite(value) else None
        for update, value in enumerate(values)
    }


def measures(returns: Returns) -> dict[str, dict[str, float | None]]:
    """Mean returns over test tasks by number of updates, with 95% intervals."""
    of_mean = np.asarray(returns.mean_weights)
    measured = {
        "return": _by_update(of_mean.mean(axis=0)),
        "return_ci95": _by_update(ci95(of_mean)),
    }
    if returns.drawn_weights is not None:
        drawn = np.asarray(returns.drawn_weights)
        measured |= {
            "return_drawn": _by_update(drawn.mean(axis=(0, 2))),
            "return_drawn_std": _by_update(drawn.std(axis=2).mean(axis=0)),
        }
    return measured


def _validation(
    judge: Callable[[Distribution, int, int], Returns], config: RLConfig
) -> Callable[[LearnerState], dict[str, float]]:
    """What training logs of a state."""

    def validate(state: LearnerState) -> dict[str, float]:
        returns = judge(state.prior, VALIDATION_SEED, config.validation_tasks)
        means = np.asarray(returns.mean_weights).mean(axis=0)
        return {f"return_{update}": float(value) for update, value in enumerate(means)}

    return validate


def run_experiment(
    algorithm: str,
    setting: Setting,
    config: RLConfig,
    named: Named,
    *,
    seed: int,
    meta_steps: int,
    workdir: str,
    command: str,
    mesh: Mesh | None = None,
    references: dict[str, Any] | None = None,
    draw: Callable[[Distribution, pathlib.Path], None] | None = None,
) -> dict[str, Any]:
    """Train, evaluate, draw; returns what ``results.json`` holds.

    Args:
      algorithm: a row of the table.
      setting: the tasks.
      config: numbers and choices.
      named: what the results are called.
      seed: of the prior and of training.
      meta_steps: of the run.
      workdir: where to write, and to go on from.
      command: what to run to get the same.
      mesh: devices that share a meta-step's tasks.
      references: returns to print beside the results, by name.
      draw: ``(prior, directory)``, the figures of this kind of task.

    With several processes process 0 evaluates and draws, and the others return {}.
    """
    about = {
        "experiment": named.experiment,
        **named.about,
        "algorithm": algorithm,
        "seed": seed,
        "meta_steps": meta_steps,
        "config": dataclasses.asdict(config),
    }
    experiment = make_experiment(algorithm, config, setting, meta_steps, mesh)
    check_builds(experiment.learner, experiment.sample_tasks)
    directory = open_workdir(workdir, about)
    judge = evaluator(algorithm, config, setting)
    state, seconds = train(
        experiment.learner,
        experiment.sample_tasks,
        seed=seed,
        num_meta_steps=meta_steps,
        directory=directory,
        evaluate=_validation(judge, config),
        progress=f"return_{config.test_steps}",
        mesh=mesh,
        work=("env_steps", experiment.env_steps),
        **config.intervals(),
    )
    if not distributed.team().first:
        return {}

    def tested(prior: Distribution) -> dict[str, dict[str, float | None]]:
        return measures(judge(prior, TEST_SEED, config.test_tasks))

    trained = read_metrics(directory / "metrics.jsonl")
    start = jax.jit(experiment.learner.init)(init_key(jax.random.key(seed))).prior
    results = about | {
        "metrics": tested(state.prior),
        "references": {"random start": tested(start)["return"], **(references or {})},
        "test_tasks": config.test_tasks,
        "test_goals": np.asarray(held_out(setting, TEST_SEED, config.test_tasks)[1]).tolist(),
        "lost_tasks": lost_tasks(trained),
        "seconds": round(seconds, 2),
        "env_steps_per_second": round(experiment.env_steps * meta_steps / seconds),
        "devices": 1 if mesh is None else mesh.size,
        "command": command,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    figures.learning_curve(trained, directory / "learning_curve.png")
    figures.returns_against_updates(
        [figures.Line(algorithm, style.label(algorithm), curve(results["metrics"], "return"))],
        results["references"],
        directory / "return_against_updates.png",
    )
    if draw is not None:
        draw(state.prior, directory)
    return results


def summary(results: dict[str, Any]) -> str:
    """The results as a few lines for the terminal."""
    metrics = results["metrics"]
    lines = [f"{'updates':>18}" + "".join(f"{update:>10}" for update in metrics["return"])]
    for name, values in (*metrics.items(), ("random start", results["references"]["random start"])):
        cells = (f"{'diverged':>10}" if v is None else f"{v:>10.2f}" for v in values.values())
        lines.append(f"{name:>18}" + "".join(cells))
    for name, value in results["references"].items():
        if isinstance(value, float):
            lines.append(f"{name:>18}{value:>10.2f}")
    lines.append(f"{results['env_steps_per_second']:,} environment steps/s in training")
    return "\n".join(lines)
