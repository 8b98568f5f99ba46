"""How few-shot classifiers are judged: accuracy, likelihood and calibration on held-out classes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.few_shot_episodes import EpisodeExample
from experiments.few_shot_presets import FewShotConfig
from experiments.few_shot_problem import (
    Batch,
    Experiment,
    make_experiment,
    query_batch,
    support_batch,
)
from gembml import constants
from gembml.base import Distribution, Key
from gembml.evaluation import (
    ClassificationMetrics,
    ci95,
    classification_metrics,
    expected_calibration_error,
    expected_calibration_error_ci95,
    maximum_calibration_error,
)
from gembml.tasks.episodes import Episode, EpisodeShape, sample_episode
from gembml.tasks.images import ImageClasses

# Validation and test tasks are the same for every algorithm and seed.
VALIDATION_SEED, TEST_SEED = 1_000_001, 2_000_002
_TASKS_AT_ONCE = 20  # where there are enough cores


def reported_steps(last: int) -> tuple[int, ...]:
    """The numbers of adaptation steps at which a test is reported."""
    return tuple(sorted({n for n in (0, 1, 2, 3, 5, 10, 20, 50, 100) if n < last} | {last}))


def held_out(data: ImageClasses, config: FewShotConfig, seed: int, number: int) -> Episode:
    """``number`` episodes with the queries of a test."""
    shape = EpisodeShape(config.ways, config.shots, config.test_queries, config.rotations)
    keys = jax.random.split(jax.random.key(seed), number)
    return jax.vmap(lambda k: sample_episode(k, data.counts, shape))(keys)


def evaluator(
    algorithm: str,
    config: FewShotConfig,
    data: ImageClasses,
    *,
    seed: int,
    num_tasks: int,
    steps: tuple[int, ...],
) -> Callable[[Distribution], ClassificationMetrics]:
    """``prior`` -> metrics per task and number of adaptation steps, ``[tasks, len(steps)]``."""
    experiment = make_experiment(algorithm, config, data, 1)

    def run(prior: Distribution) -> ClassificationMetrics:
        episodes = held_out(data, config, seed, num_tasks)
        keys = jax.random.split(jax.random.key(seed + 1), num_tasks)

        def one(inputs: tuple[Key, Episode]) -> ClassificationMetrics:
            task = _adapted(experiment, config, data, prior, *inputs, max(steps))

            def at_step(step: jax.Array) -> ClassificationMetrics:
                return classification_metrics(task.predict(experiment, step), task.query.y)

            return lax.map(at_step, jnp.array(steps))

        at_once = 1 if jax.default_backend() == "cpu" else _TASKS_AT_ONCE
        return lax.map(one, (keys, episodes), batch_size=at_once)

    program: list[Callable] = []  # compiled at the first call

    def evaluate(prior: Distribution) -> ClassificationMetrics:
        if not program:
            program.append(constants.compiled(run, prior))
        return program[0](prior)

    return evaluate


class _Adapted(NamedTuple):
    """One test task, adapted to."""

    support: Batch
    query: Batch
    posteriors: Distribution
    """After 0, 1, ... steps, ``[steps + 1, ...]``."""
    sample_key: Key
    """Of the predictive's weights."""

    def predict(self, experiment: Experiment, step: jax.Array | int) -> jax.Array:
        """Log-probabilities of the queries after ``step`` steps, ``[samples, n, ways]``."""
        posterior = jax.tree.map(lambda a: a[step], self.posteriors)
        return experiment.predict(self.sample_key, posterior, self.query)


def _adapted(
    experiment: Experiment,
    config: FewShotConfig,
    data: ImageClasses,
    prior: Distribution,
    key: Key,
    episode: Episode,
    num_steps: int,
) -> _Adapted:
    adapt_key, sample_key = jax.random.split(key)
    support, query = (f(data, episode, config) for f in (support_batch, query_batch))
    posteriors = experiment.learner.adapt(prior, adapt_key, lambda *_: support, num_steps)
    return _Adapted(support, query, posteriors, sample_key)


def measures(metrics: ClassificationMetrics, steps: tuple[int, ...]) -> dict[str, Any]:
    """The fields of ``results.json``: by measure, then by number of steps."""
    accuracy, nll = np.asarray(metrics.accuracy), np.asarray(metrics.nll)
    bins15, bins10 = (
        jax.tree.map(lambda a: np.asarray(a).sum(axis=0), bins)
        for bins in (metrics.bins15, metrics.bins10)
    )
    columns = {
        "accuracy": accuracy.mean(axis=0),
        "accuracy_ci95": ci95(accuracy),
        "nll": nll.mean(axis=0),
        "nll_ci95": ci95(nll),
        "ece": expected_calibration_error(bins15),
        "ece_ci95": expected_calibration_error_ci95(metrics.bins15),
        "mce": maximum_calibration_error(bins15),
        "ece_10_bins": expected_calibration_error(bins10),
        "ece_10_bins_ci95": expected_calibration_error_ci95(metrics.bins10),
        "mce_10_bins": maximum_calibration_error(bins10),
    }
    return {
        name: {
            str(step): round(float(value), 6) if np.isfinite(value) else None
            for step, value in zip(steps, np.asarray(values), strict=True)
        }
        for name, values in columns.items()
    }


def reliability(metrics: ClassificationMetrics) -> dict[str, list[float | None]]:
    """Count, mean confidence and accuracy in 15 bins after the last step, over all tasks."""
    count, confidence, correct = (np.asarray(sums)[:, -1].sum(axis=0) for sums in metrics.bins15)

    def means(sums: np.ndarray) -> list[float | None]:
        return [round(float(s / n), 6) if n else None for s, n in zip(sums, count, strict=True)]

    return {
        "count": [int(n) for n in count],
        "confidence": means(confidence),
        "accuracy": means(correct),
    }


def examples(
    algorithm: str,
    config: FewShotConfig,
    data: ImageClasses,
    prior: Distribution,
    number: int = 2,
) -> list[EpisodeExample]:
    """The first test tasks with their predictions after the last adaptation step, as tested."""
    experiment = make_experiment(algorithm, config, data, 1)
    episodes = held_out(data, config, TEST_SEED, config.test_tasks)
    keys = jax.random.split(jax.random.key(TEST_SEED + 1), config.test_tasks)

    def predicted(prior: Distribution, key: Key, episode: Episode) -> tuple[jax.Array, ...]:
        task = _adapted(experiment, config, data, prior, key, episode, config.test_steps)
        probabilities = jnp.exp(task.predict(experiment, config.test_steps)).mean(axis=0)
        return task.support.x, task.support.y, task.query.x, task.query.y, probabilities

    inputs = [(prior, keys[i], jax.tree.map(lambda a, i=i: a[i], episodes)) for i in range(number)]
    run = constants.compiled(predicted, *inputs[0])
    return [EpisodeExample(*map(np.asarray, run(*arguments))) for arguments in inputs]
