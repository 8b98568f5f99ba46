"""One run of the sinusoid experiment, from a config to ``results.json`` and figures."""

import dataclasses
from typing import Any

import jax
import numpy as np

from experiments import sinusoid_figures as figures
from experiments.provenance import provenance
from experiments.sinusoid_evaluation import (
    ADAPTED,
    TEST_SEED,
    VALIDATION_SEED,
    evaluate,
    fit_noise_std,
    make_experiment,
    prediction_examples,
)
from experiments.sinusoid_presets import SinusoidConfig
from gembml.evaluation import ci95
from gembml.training import open_workdir, read_metrics, train, write_json


def _by_step(steps: tuple[int, ...], values: np.ndarray) -> dict[str, float | None]:
    """Values by number of steps; None, JSON's null, where adaptation diverged."""
    return {
        str(step): round(float(value), 6) if np.isfinite(value) else None
        for step, value in zip(steps, values, strict=True)
    }


def run_experiment(
    algorithm: str,
    setting: str,
    config: SinusoidConfig,
    *,
    seed: int,
    meta_steps: int,
    workdir: str,
    command: str,
) -> dict[str, Any]:
    """Train, evaluate, draw; returns what ``results.json`` holds."""
    experiment = make_experiment(algorithm, setting, config, meta_steps)
    identity = {
        "experiment": "sinusoid",
        "algorithm": algorithm,
        "setting": setting,
        "seed": seed,
        "meta_steps": meta_steps,
        "config": dataclasses.asdict(config),
    }
    directory = open_workdir(workdir, identity)

    def validate(state: Any) -> dict[str, float]:
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

    state, seconds = train(
        experiment.learner,
        experiment.sample_tasks,
        seed=seed,
        num_meta_steps=meta_steps,
        directory=directory,
        evaluate=validate,
        progress="mse_10",
        steps_per_dispatch=config.steps_per_dispatch,
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
    )
    noise_std = fit_noise_std(experiment, state.prior, config.validation_tasks)
    # Every step to the paper's 10, then every fifth, and the last.
    last = config.test_steps
    steps = tuple(n for n in range(last + 1) if n <= ADAPTED or n % 5 == 0 or n == last)
    metrics = jax.tree.map(
        np.asarray,
        evaluate(experiment, state.prior, TEST_SEED, config.test_tasks, steps, noise_std),
    )
    results = identity | {
        "metrics": {
            "mse": _by_step(steps, metrics.mse.mean(axis=0)),
            "mse_ci95": _by_step(steps, ci95(metrics.mse)),
            "nll": _by_step(steps, metrics.nll.mean(axis=0)),
            "nll_ci95": _by_step(steps, ci95(metrics.nll)),
            "coverage90": _by_step(steps, metrics.coverage90.mean(axis=0)),
        },
        "predictive_noise_std": noise_std,
        "seconds": round(seconds, 2),
        "command": command,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    figures.learning_curve(
        read_metrics(directory / "metrics.jsonl"), directory / "learning_curve.png"
    )
    figures.error_against_steps(results, directory / "mse_against_steps.png")
    figures.predictions(
        prediction_examples(experiment, state.prior, noise_std),
        noise_std,
        directory / "predictions.png",
    )
    return results
