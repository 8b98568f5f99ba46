"""The sinusoid experiment as pure functions: what is learned, and how it is judged."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from experiments.sinusoid_figures import PredictionExample
from experiments.sinusoid_presets import SinusoidConfig
from gembml import ALGORITHMS, MetaLearner, Problem, make_learner, ravel, supervised
from gembml.base import Distribution, Key
from gembml.evaluation import RegressionMetrics, regression_metrics
from gembml.models import MLP, local_reparameterization
from gembml.problem import (
    gaussian_log_likelihood,
    negative_mean_squared_error,
    outputs,
    unraveler,
)
from gembml.tasks import sinusoid

# Validation and test tasks are the same for every algorithm and seed.
VALIDATION_SEED, TEST_SEED = 1_000_001, 2_000_002
# The paper's number of adaptation steps in meta-testing.
ADAPTED = 10
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


def make_problem(config: SinusoidConfig) -> tuple[MLP, Problem]:
    """The network, and the problem of fitting it."""
    network = MLP((config.hidden_units,) * config.hidden_layers)
    if config.likelihood == "gaussian":
        log_likelihood = gaussian_log_likelihood(config.noise_std)
        whiten = lambda prediction: prediction / config.noise_std  # noqa: E731
    else:
        log_likelihood = negative_mean_squared_error
        whiten = lambda prediction: prediction * jnp.sqrt(2 / len(prediction))  # noqa: E731
    problem = supervised(
        network, jnp.zeros((1, 1)), log_likelihood, local_reparameterization, whiten
    )
    return network, problem


def make_experiment(
    algorithm: str,
    setting: str,
    config: SinusoidConfig,
    meta_steps: int,
    mesh: Mesh | None = None,
) -> Experiment:
    """Build the learner and what surrounds it, its meta-step on ``mesh`` if there is one."""
    network, tree_problem = make_problem(config)
    unravel = unraveler(tree_problem)
    learner = make_learner(algorithm, ravel(tree_problem), config, meta_steps, mesh)
    task_setting = sinusoid.SETTINGS[setting]

    def sample_tasks(key: Key) -> Any:
        return jax.vmap(
            lambda k: sinusoid.sample_task(k, task_setting, config.shots, config.queries)
        )(jax.random.split(key, config.meta_batch))

    num_samples = {"delta": 1, "particles": config.num_particles}.get(
        ALGORITHMS[algorithm].family, config.test_samples
    )

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
    metrics = adapted_metrics(experiment, (ADAPTED,))

    @jax.jit
    def nll(noise_stds: jax.Array) -> jax.Array:
        tasks = experiment.held_out(VALIDATION_SEED, num_tasks)
        keys = jax.random.split(jax.random.key(VALIDATION_SEED + 1), num_tasks)

        def one(xs: tuple[Key, sinusoid.HeldOutTask]) -> jax.Array:
            at = jax.vmap(lambda std: metrics(prior, *xs, std).nll[0])
            return at(noise_stds)

        return jnp.mean(lax.map(one, (keys, tasks), batch_size=50), axis=0)

    nlls = np.asarray(nll(jnp.asarray(_NOISE_STDS, jnp.float32)))
    # Where adaptation diverges on a task no noise fits, and the widest is the honest one.
    return float(_NOISE_STDS[np.nanargmin(nlls) if np.isfinite(nlls).any() else -1])


def prediction_examples(
    experiment: Experiment, prior: Distribution, noise_std: float, number: int = 4
) -> list[PredictionExample]:
    """The first test tasks, before and after 10 steps of adaptation."""
    x = jnp.linspace(*sinusoid.INPUT_RANGE, 200)[:, None]

    @jax.jit
    def bands(key: Key, task: sinusoid.HeldOutTask) -> tuple[jax.Array, jax.Array]:
        adapt_key, sample_key = jax.random.split(key)
        posteriors = experiment.learner.adapt(prior, adapt_key, lambda *_: task.support, ADAPTED)
        ends = jax.tree.map(lambda a: a[jnp.array([0, -1])], posteriors)
        curves = jax.vmap(lambda q: experiment.predict(sample_key, q, x))(ends)[..., 0]
        return curves.mean(axis=1), jnp.sqrt(curves.var(axis=1) + noise_std**2)

    tasks = experiment.held_out(TEST_SEED, number)
    examples = []
    for i in range(number):
        task = jax.tree.map(lambda a, i=i: a[i], tasks)
        mean, std = bands(jax.random.key(i), task)
        examples.append(
            PredictionExample(
                x=np.asarray(x[:, 0]),
                truth=np.asarray(task.sinusoid(x[:, 0])),
                support_x=np.asarray(task.support.x[:, 0]),
                support_y=np.asarray(task.support.y[:, 0]),
                mean=np.asarray(mean),
                std=np.asarray(std),
            )
        )
    return examples
