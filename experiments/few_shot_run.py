"""A few-shot run, from a config and images to ``results.json`` and figures."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import few_shot_episodes
from experiments import few_shot_figures as figures
from experiments.checks import check_builds
from experiments.few_shot_evaluation import (
    TEST_SEED,
    VALIDATION_SEED,
    evaluator,
    examples,
    measures,
    reliability,
    reported_steps,
)
from experiments.few_shot_presets import FewShotConfig
from experiments.few_shot_problem import make_experiment
from experiments.provenance import provenance
from gembml import distributed
from gembml.base import LearnerState
from gembml.tasks.episodes import EpisodeShape, check_shape
from gembml.tasks.images import ImageClasses, Splits
from gembml.training import lost_tasks, open_workdir, read_metrics, train, write_json


def check_episodes(splits: Splits, config: FewShotConfig) -> None:
    """Raise :class:`OptionError` if a split is too small for the episodes that are asked for."""
    for name, data, option in (
        ("train", splits.train, "queries"),
        ("validation", splits.validation, "test_queries"),
        ("test", splits.test, "test_queries"),
    ):
        if data is not None:
            queries = getattr(config, option)
            shape = EpisodeShape(config.ways, config.shots, queries, config.rotations)
            names = splits.names[name]
            check_shape(data, shape, names, split=name, queries_option=f"config.{option}")


def fingerprint(splits: Splits) -> str:
    """What tells other images, or other divisions of them, from these."""
    digest = hashlib.sha256(json.dumps(splits.names).encode())
    for data in (splits.train, splits.validation, splits.test):
        for array in () if data is None else data:
            digest.update(repr(np.shape(array)).encode())
            digest.update(np.asarray(array).tobytes())
    return digest.hexdigest()[:16]


def on_devices(data: ImageClasses, mesh: Mesh | None) -> ImageClasses:
    """The images on the device that computes; with a ``mesh`` on the host, as below.

    An array that lies on a mesh cannot be closed over where that mesh is mapped over;
    :func:`gembml.constants.compiled` puts it there, once.
    """
    return jax.device_put(data) if mesh is None else jax.tree.map(np.asarray, data)


def _validation(
    algorithm: str, config: FewShotConfig, splits: Splits
) -> Callable[[LearnerState], dict[str, float]]:
    """What training logs of a state; on training classes where the split has no others."""
    steps = tuple(sorted({0, 1, config.test_steps}))
    run = evaluator(
        algorithm,
        config,
        on_devices(splits.train if splits.validation is None else splits.validation, None),
        seed=VALIDATION_SEED,
        num_tasks=config.validation_tasks,
        steps=steps,
    )

    def validate(state: LearnerState) -> dict[str, float]:
        metrics = run(state.prior)
        accuracy = np.asarray(metrics.accuracy).mean(axis=0)
        return {
            **{f"accuracy_{n}": float(a) for n, a in zip(steps, accuracy, strict=True)},
            "nll": float(np.asarray(metrics.nll)[:, -1].mean()),
        }

    return validate


def run_experiment(
    algorithm: str,
    dataset: str,
    split: str,
    splits: Splits,
    config: FewShotConfig,
    *,
    seed: int,
    meta_steps: int,
    workdir: str,
    command: str,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Train, evaluate, draw; returns what ``results.json`` holds.

    With several processes process 0 evaluates and draws, and the others return {}.

    Raises:
      OptionError: if there are too few classes or images for the episodes.
    """
    check_episodes(splits, config)
    about = {
        "experiment": "few_shot",
        "dataset": dataset,
        "split": split,
        "algorithm": algorithm,
        "seed": seed,
        "meta_steps": meta_steps,
        "data": splits.description,
        "data_sha256": fingerprint(splits),
        "config": dataclasses.asdict(config),
    }
    experiment = make_experiment(
        algorithm, config, on_devices(splits.train, mesh), meta_steps, mesh
    )
    check_builds(experiment.learner, experiment.sample_tasks)
    directory = open_workdir(workdir, about)
    state, seconds = train(
        experiment.learner,
        experiment.sample_tasks,
        seed=seed,
        num_meta_steps=meta_steps,
        directory=directory,
        evaluate=_validation(algorithm, config, splits),
        progress=f"accuracy_{config.test_steps}",
        mesh=mesh,
        **config.intervals(),
    )
    if not distributed.team().first:
        return {}
    test = on_devices(splits.test, None)
    steps, trained = reported_steps(config.test_steps), read_metrics(directory / "metrics.jsonl")
    results = about | {
        **_tested(algorithm, config, test, state, steps),
        "test_tasks": config.test_tasks,
        "lost_tasks": lost_tasks(trained),
        "seconds": round(seconds, 2),
        "devices": 1 if mesh is None else mesh.size,
        "command": command,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    figures.learning_curve(
        trained,
        directory / "learning_curve.png",
        "training" if splits.validation is None else "validation",
    )
    figures.accuracy_against_steps(results, directory / "accuracy_against_steps.png")
    figures.reliability_diagram(
        {f"after {steps[-1]} steps": results["reliability"][str(steps[-1])]},
        directory / "reliability.png",
    )
    shown = examples(algorithm, config, test, state.prior)
    few_shot_episodes.episodes(shown, directory / "episodes.png")
    return results


def _tested(
    algorithm: str,
    config: FewShotConfig,
    test: ImageClasses,
    state: LearnerState,
    steps: tuple[int, ...],
) -> dict[str, Any]:
    """Test measures; of a transductive network also with the support set's statistics only."""
    options: dict[str, Any] = {"seed": TEST_SEED, "num_tasks": config.test_tasks, "steps": steps}
    metrics = evaluator(algorithm, config, test, **options)(state.prior)
    tested = {
        "metrics": measures(metrics, steps),
        "reliability": {str(steps[-1]): reliability(metrics)},
    }
    if config.normalisation == "transductive":
        strict = dataclasses.replace(config, normalisation="support")
        alone = evaluator(algorithm, strict, test, **options)(state.prior)
        tested["support_statistics"] = measures(alone, steps)
    return tested
