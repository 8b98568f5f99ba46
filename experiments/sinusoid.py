"""Sinusoid regression: Section 5.1 and figure 2(a) of the paper.

    python -m experiments.sinusoid --algorithm=gem_bml_plus --setting=default --workdir=DIR

Trains on the sinusoids of ``--setting``, evaluates on 600 test tasks, and writes into ``--workdir``
``results.json``, figures, metrics (JSON lines and TensorBoard) and checkpoints. The same command
goes on where it was stopped.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags
from experiments import sinusoid_figures as figures
from experiments.sinusoid_presets import PRESETS, SinusoidConfig, preset

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.provenance import provenance
from gembml import ALGORITHMS, MetaLearner, Problem, make_learner, ravel, supervised
from gembml.base import Distribution, Key
from gembml.evaluation import RegressionMetrics, ci95, regression_metrics
from gembml.models import MLP
from gembml.problem import (
    gaussian_log_likelihood,
    negative_mean_squared_error,
    outputs,
    unraveler,
)
from gembml.tasks import sinusoid
from gembml.training import open_workdir, read_metrics, train, write_json

# Validation and test tasks are the same for every algorithm and seed.
_VALIDATION_SEED, _TEST_SEED = 1_000_001, 2_000_002
# The paper's number of adaptation steps in meta-testing.
_ADAPTED = 10
# Candidates for the predictive's noise, from a fraction of the smallest amplitude to the largest.
_NOISE_STDS = np.geomspace(0.01, 3.0, 60)


class Experiment(NamedTuple):
    """Everything that one run computes with, as pure functions."""

    learner: MetaLearner
    sample_tasks: Callable[[Key], Any]
    predict: Callable[[Key, Distribution, jax.Array], jax.Array]
    """``(key, distribution, x [points, 1])`` -> outputs ``[samples, points, 1]``."""
    held_out: Callable[[int, int], sinusoid.HeldOutTask]
    """``(seed, number)`` -> tasks, ``[number, ...]``."""


def make_experiment(
    algorithm: str, setting: str, config: SinusoidConfig, meta_steps: int
) -> Experiment:
    """Build the learner and what surrounds it."""
    network = MLP((config.hidden_units,) * config.hidden_layers)
    log_likelihood = (
        gaussian_log_likelihood(config.noise_std)
        if config.likelihood == "gaussian"
        else negative_mean_squared_error
    )
    tree_problem: Problem = supervised(network, jnp.zeros((1, 1)), log_likelihood)
    unravel = unraveler(tree_problem)
    learner = make_learner(algorithm, ravel(tree_problem), config, meta_steps)
    task_setting = sinusoid.SETTINGS[setting]

    def sample_tasks(key: Key) -> Any:
        return jax.vmap(
            lambda k: sinusoid.sample_task(k, task_setting, config.shots, config.queries)
        )(jax.random.split(key, config.meta_batch))

    num_samples = config.test_samples if ALGORITHMS[algorithm].family == "gaussian" else 1

    def predict(key: Key, distribution: Distribution, x: jax.Array) -> jax.Array:
        samples = learner.sample(key, distribution, num_samples)
        return jax.vmap(lambda vector: outputs(network, unravel(vector), x))(samples)

    def held_out(seed: int, number: int) -> sinusoid.HeldOutTask:
        return jax.vmap(
            lambda k: sinusoid.sample_held_out_task(k, task_setting, config.shots, 100)
        )(jax.random.split(jax.random.key(seed), number))

    return Experiment(learner, sample_tasks, predict, held_out)


def adapted_metrics(
    experiment: Experiment, steps: tuple[int, ...]
) -> Callable[[Distribution, Key, sinusoid.HeldOutTask, jax.Array], RegressionMetrics]:
    """``(prior, key, task, noise_std)`` -> one task's metrics after these numbers of steps."""

    def metrics(
        prior: Distribution, key: Key, task: sinusoid.HeldOutTask, noise_std: jax.Array
    ) -> RegressionMetrics:
        adapt_key, sample_key = jax.random.split(key)
        posteriors = experiment.learner.adapt(prior, adapt_key, lambda *_: task.support, max(steps))
        posteriors = jax.tree.map(lambda a: a[jnp.array(steps)], posteriors)

        def at_step(posterior: Distribution) -> RegressionMetrics:
            predictions = experiment.predict(sample_key, posterior, task.held_out.x)
            return regression_metrics(predictions, task.held_out.y, task.clean, noise_std)

        return jax.vmap(at_step)(posteriors)

    return metrics


def evaluate(
    experiment: Experiment,
    prior: Distribution,
    seed: int,
    num_tasks: int,
    steps: tuple[int, ...],
    noise_std: float,
) -> RegressionMetrics:
    """Metrics per held-out task after each of ``steps`` steps: ``[tasks, len(steps)]``."""
    return _evaluate(experiment, seed, num_tasks, steps)(prior, jnp.float32(noise_std))


@functools.cache
def _evaluate(
    experiment: Experiment, seed: int, num_tasks: int, steps: tuple[int, ...]
) -> Callable:
    metrics = adapted_metrics(experiment, steps)

    @jax.jit
    def run(prior: Distribution, noise_std: jax.Array) -> RegressionMetrics:
        tasks = experiment.held_out(seed, num_tasks)
        keys = jax.random.split(jax.random.key(seed + 1), num_tasks)
        return lax.map(
            lambda xs: metrics(prior, xs[0], xs[1], noise_std), (keys, tasks), batch_size=50
        )

    return run


def fit_noise_std(experiment: Experiment, prior: Distribution, num_tasks: int) -> float:
    """The predictive's noise: the candidate with the best NLL on validation tasks after 10 steps.

    A point estimate gets its error bars only so, and a Bayesian one its best; both are then
    compared by what their weights' uncertainty adds.
    """
    metrics = adapted_metrics(experiment, (_ADAPTED,))

    @jax.jit
    def nll(noise_stds: jax.Array) -> jax.Array:
        tasks = experiment.held_out(_VALIDATION_SEED, num_tasks)
        keys = jax.random.split(jax.random.key(_VALIDATION_SEED + 1), num_tasks)

        def one(xs: tuple[Key, sinusoid.HeldOutTask]) -> jax.Array:
            at = jax.vmap(lambda std: metrics(prior, *xs, std).nll[0])
            return at(noise_stds)

        return jnp.mean(lax.map(one, (keys, tasks), batch_size=50), axis=0)

    return float(
        _NOISE_STDS[int(np.argmin(np.asarray(nll(jnp.asarray(_NOISE_STDS, jnp.float32)))))]
    )


def _by_step(steps: tuple[int, ...], values: np.ndarray) -> dict[str, float]:
    return {str(step): round(float(value), 6) for step, value in zip(steps, values, strict=True)}


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
            _VALIDATION_SEED,
            config.validation_tasks,
            (0, 1, _ADAPTED),
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
    # Every step to the paper's 10, then every fifth.
    steps = tuple(n for n in range(config.test_steps + 1) if n <= _ADAPTED or n % 5 == 0)
    metrics = jax.tree.map(
        np.asarray,
        evaluate(experiment, state.prior, _TEST_SEED, config.test_tasks, steps, noise_std),
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
        _prediction_examples(experiment, state.prior, noise_std),
        noise_std,
        directory / "predictions.png",
    )
    return results


def _prediction_examples(
    experiment: Experiment, prior: Distribution, noise_std: float, number: int = 4
) -> list[figures.PredictionExample]:
    """The first test tasks, before and after 10 steps of adaptation."""
    x = jnp.linspace(*sinusoid.INPUT_RANGE, 200)[:, None]

    @jax.jit
    def bands(key: Key, task: sinusoid.HeldOutTask) -> tuple[jax.Array, jax.Array]:
        posteriors = experiment.learner.adapt(prior, key, lambda *_: task.support, _ADAPTED)
        ends = jax.tree.map(lambda a: a[jnp.array([0, -1])], posteriors)
        curves = jax.vmap(lambda q: experiment.predict(key, q, x))(ends)[..., 0]
        return curves.mean(axis=1), jnp.sqrt(curves.var(axis=1) + noise_std**2)

    tasks = experiment.held_out(_TEST_SEED, number)
    examples = []
    for i in range(number):
        task = jax.tree.map(lambda a, i=i: a[i], tasks)
        mean, std = bands(jax.random.key(i), task)
        examples.append(
            figures.PredictionExample(
                x=np.asarray(x[:, 0]),
                truth=np.asarray(task.sinusoid(x[:, 0])),
                support_x=np.asarray(task.support.x[:, 0]),
                support_y=np.asarray(task.support.y[:, 0]),
                mean=np.asarray(mean),
                std=np.asarray(std),
            )
        )
    return examples


def summary(results: dict[str, Any]) -> str:
    """The results as a few lines for the terminal."""
    metrics, steps = results["metrics"], [0, 1, 5, 10, 20]
    lines = [f"{'adaptation steps':>18}" + "".join(f"{step:>10}" for step in steps)]
    for name in ("mse", "mse_ci95", "nll", "coverage90"):
        row = "".join(f"{metrics[name].get(str(step), float('nan')):>10.3f}" for step in steps)
        lines.append(f"{name:>18}{row}")
    return "\n".join(lines)


_ALGORITHM = flags.DEFINE_string("algorithm", "gem_bml_plus", f"one of {', '.join(ALGORITHMS)}")
_SETTING = flags.DEFINE_string("setting", "default", f"one of {', '.join(sinusoid.SETTINGS)}")
_PRESET = flags.DEFINE_string("preset", "tuned", f"one of {', '.join(PRESETS)}")
_META_STEPS = flags.DEFINE_integer("meta_steps", 40_000, "meta-steps in all")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the prior and of the training tasks")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run; resumed if it holds it")


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    command_line.choose("algorithm", ALGORITHMS, _ALGORITHM.value)
    command_line.choose("setting", sinusoid.SETTINGS, _SETTING.value)
    command_line.choose("preset", PRESETS, _PRESET.value)
    config = command_line.override(
        preset(_PRESET.value, _ALGORITHM.value, _SETTING.value),
        **{"posterior family": ALGORITHMS[_ALGORITHM.value].family},
    )
    workdir = command_line.given("workdir", _WORKDIR.value)
    results = run_experiment(
        _ALGORITHM.value,
        _SETTING.value,
        config,
        seed=command_line.in_range("seed", _SEED.value, 0),
        meta_steps=command_line.in_range("meta_steps", _META_STEPS.value, 1),
        workdir=workdir,
        command="python -m experiments.sinusoid " + " ".join(sys.argv[1:]),
    )
    print(summary(results))
    print(f"Results and figures: {pathlib.Path(workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(SinusoidConfig)
    command_line.run(main)
