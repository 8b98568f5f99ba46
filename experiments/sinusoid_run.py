"""Runs of the sinusoid experiment, from a config to ``results.json`` and figures."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import sinusoid_figures as figures
from experiments.checks import check_builds
from experiments.provenance import provenance
from experiments.sinusoid_evaluation import (
    ADAPTED,
    TEST_SEED,
    VALIDATION_SEED,
    Experiment,
    evaluate,
    fit_noise_std,
    make_experiment,
    prediction_examples,
)
from experiments.sinusoid_presets import SinusoidConfig
from gembml import distributed
from gembml.base import Distribution, LearnerState
from gembml.evaluation import ci95
from gembml.training import (
    DivergedError,
    SeedRun,
    lost_tasks,
    open_workdir,
    read_metrics,
    train,
    train_seeds,
    write_json,
)


def _by_step(steps: tuple[int, ...], values: np.ndarray) -> dict[str, float | None]:
    """Values by number of steps; None, JSON's null, where adaptation diverged."""
    return {
        str(step): round(float(value), 6) if np.isfinite(value) else None
        for step, value in zip(steps, values, strict=True)
    }


def _identity(
    algorithm: str, setting: str, config: SinusoidConfig, seed: int, meta_steps: int
) -> dict[str, Any]:
    """Everything that defines a run."""
    return {
        "experiment": "sinusoid",
        "algorithm": algorithm,
        "setting": setting,
        "seed": seed,
        "meta_steps": meta_steps,
        "config": dataclasses.asdict(config),
    }


def _validation(
    experiment: Experiment, config: SinusoidConfig
) -> Callable[[LearnerState], dict[str, float]]:
    """What training logs of a state."""

    def validate(state: LearnerState) -> dict[str, float]:
        metrics = evaluate(
            experiment,
            state.prior,
            VALIDATION_SEED,
            config.validation_tasks,
            (0, 1, ADAPTED),
            config.noise_std,
        )
        mse = np.asarray(metrics.mse).mean(axis=0)
        return {"mse_0": float(mse[0]), "mse_1": float(mse[1]), "mse_10": float(mse[-1])}

    return validate


def _finish(
    experiment: Experiment,
    config: SinusoidConfig,
    prior: Distribution,
    directory: pathlib.Path,
    about: dict[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """Test the trained prior, write ``results.json``, draw; returns the results."""
    noise_std = fit_noise_std(experiment, prior, config.validation_tasks)
    # Every step to the paper's 10, then every fifth, and the last.
    last = config.test_steps
    steps = tuple(n for n in range(last + 1) if n <= ADAPTED or n % 5 == 0 or n == last)
    metrics = jax.tree.map(
        np.asarray, evaluate(experiment, prior, TEST_SEED, config.test_tasks, steps, noise_std)
    )
    trained = read_metrics(directory / "metrics.jsonl")
    results = about | {
        "metrics": {
            "mse": _by_step(steps, metrics.mse.mean(axis=0)),
            "mse_ci95": _by_step(steps, ci95(metrics.mse)),
            # What is left to say where a few tasks blow up; those count as infinite.
            "mse_median": _by_step(
                steps, np.median(np.nan_to_num(metrics.mse, nan=np.inf), axis=0)
            ),
            "nll": _by_step(steps, metrics.nll.mean(axis=0)),
            "nll_ci95": _by_step(steps, ci95(metrics.nll)),
            "coverage90": _by_step(steps, metrics.coverage90.mean(axis=0)),
        },
        "validation": {n: v for n, v in (trained or [{}])[-1].items() if n.startswith("mse_")},
        "lost_tasks": lost_tasks(trained),
        "predictive_noise_std": noise_std,
        **more,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    figures.learning_curve(trained, directory / "learning_curve.png")
    figures.error_against_steps(results, directory / "mse_against_steps.png")
    figures.predictions(
        prediction_examples(experiment, prior, noise_std),
        noise_std,
        directory / "predictions.png",
    )
    return results


def run_experiment(
    algorithm: str, setting: str, config: SinusoidConfig, *, seed: int, **options: Any
) -> dict[str, Any]:
    """Train, evaluate, draw; returns what ``results.json`` holds. Arguments as :func:`run_seeds`.

    With several processes process 0 evaluates and draws, and the others return {}.
    """
    return run_seeds(algorithm, setting, config, seeds=(seed,), **options).get(seed, {})


def run_seeds(
    algorithm: str,
    setting: str,
    config: SinusoidConfig,
    *,
    seeds: tuple[int, ...],
    meta_steps: int,
    workdir: str,
    command: str,
    mesh: Mesh | None = None,
) -> dict[int, dict[str, Any]]:
    """Train one run for each seed in one program; evaluate and draw each.

    Of more than one, each seed's ``results.json`` and figures are in ``seed_SEED`` below the
    directory, and its ``seconds`` are its share of the program's.

    Returns:
      The results of each seed; a run that diverged has the field ``diverged``, a sentence, and no
      metrics. With several processes process 0 evaluates, and the others return {}.

    Raises:
      DivergedError: if the only run has diverged, after writing that.
    """
    # Runs that are divided among devices are each trained as on one.
    tasks_mesh = None if distributed.over_seeds(mesh) else mesh
    experiment = make_experiment(algorithm, setting, config, meta_steps, tasks_mesh)
    check_builds(experiment.learner, experiment.sample_tasks)
    first = min(seeds)
    about = _identity(algorithm, setting, config, first, meta_steps)
    together = {"seeds_in_program": len(seeds)} if len(seeds) > 1 else {}
    directory = open_workdir(workdir, about | together)
    training: dict[str, Any] = {
        "num_meta_steps": meta_steps,
        "directory": directory,
        "evaluate": _validation(experiment, config),
        "progress": "mse_10",
        "mesh": mesh,
    } | config.intervals()
    more: dict[str, Any] = {"command": command} | together | _devices(mesh)
    if together:
        runs = train_seeds(experiment.learner, experiment.sample_tasks, seeds=seeds, **training)
    else:
        try:
            one = train(experiment.learner, experiment.sample_tasks, seed=first, **training)
        except DivergedError as error:
            if distributed.team().first:
                failure = about | {"diverged": str(error)} | more | provenance()
                write_json(directory / "results.json", failure)
            raise
        runs = [SeedRun(first, directory, *one, diverged=None)]
    if not distributed.team().first:
        return {}
    results = {}
    for run in runs:
        mine = about | {"seed": run.seed}
        more |= {"seconds": round(run.seconds, 2)}
        if run.diverged:
            results[run.seed] = mine | {"diverged": run.diverged} | more | provenance()
            write_json(run.directory / "results.json", results[run.seed])
        else:
            prior = run.state.prior
            results[run.seed] = _finish(experiment, config, prior, run.directory, mine, **more)
    return results


def _devices(mesh: Mesh | None) -> dict[str, int]:
    """What ``results.json`` says of many devices and processes, if there are."""
    if mesh is None:
        return {}
    return {"devices": mesh.size, "processes": distributed.team().count}
