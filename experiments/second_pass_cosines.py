"""Cosines of meta-gradients with MAML's: first-order MAML's, Gradient-EM's with a second pass."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from experiments.few_shot_presets import FewShotConfig
from experiments.few_shot_problem import make_problem
from gembml import Delta, delta
from gembml.base import Key, Params
from gembml.inference import point
from gembml.meta_gradients import backprop, gem
from gembml.tasks.episodes import EpisodeShape, sample_episode
from gembml.tasks.images import ImageClasses

SHARES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_EPISODES_SEED = 5


def meta_gradients(
    config: FewShotConfig,
    data: ImageClasses,
    weights: Params,
    num_episodes: int,
    shares: Sequence[float],
) -> np.ndarray:
    """Of ``num_episodes`` training episodes, ``[episodes, 2 + len(shares), weights]``.

    MAML's, first-order MAML's, and Gradient-EM's by share.
    """
    problem = make_problem(data, config)
    step = optax.sgd(config.inner_learning_rate)
    estimators = [
        backprop(problem, point(problem.log_likelihood, step), 1),
        backprop(problem, point(problem.log_likelihood, step, first_order=True), 1),
    ]
    estimators += [
        gem(
            problem,
            delta.family(),
            point(problem.log_likelihood, step),
            1,
            objective="L2",
            second_pass=share,
        )
        for share in shares
    ]
    shape = EpisodeShape(config.ways, config.shots, config.queries, config.rotations)

    def one(key: Key) -> jax.Array:
        task_key, key = jax.random.split(key)
        episode = sample_episode(task_key, data.counts, shape)
        gradients = [estimate(key, Delta(weights), episode).mean for estimate in estimators]
        return jnp.stack([ravel_pytree(g)[0] for g in gradients])

    keys = jax.random.split(jax.random.key(_EPISODES_SEED), num_episodes)
    return np.asarray(jax.jit(lambda keys: lax.map(one, keys))(keys), np.float64)


def _cosines(gradients: np.ndarray) -> np.ndarray:
    """Of each with the first, over the last axis."""
    norms = np.linalg.norm(gradients, axis=-1)
    return np.einsum("...ij,...j->...i", gradients, gradients[..., 0, :]) / (norms * norms[..., :1])


def cosines(
    config: FewShotConfig,
    data: ImageClasses,
    weights: Params,
    num_episodes: int,
    shares: Sequence[float] = SHARES,
) -> list[dict[str, Any]]:
    """A row for first-order MAML (share None), and one for each of ``shares``."""
    gradients = meta_gradients(config, data, weights, num_episodes, shares)
    of_mean, of_each = _cosines(gradients.mean(axis=0)), _cosines(gradients)
    return [
        {
            "activation": config.activation,
            "second_pass": share,
            "cosine_of_mean": float(of_mean[1 + i]),
            "mean_cosine": float(of_each[:, 1 + i].mean()),
        }
        for i, share in enumerate((None, *shares))
    ]
