"""Few-shot classification as pure functions: what is learned, and from which episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.few_shot_presets import FewShotConfig
from experiments.widened import widened
from gembml import ALGORITHMS, MetaLearner, Problem, make_learner
from gembml.base import Distribution, Key, Params
from gembml.gaussian import Gaussian
from gembml.models import CNN
from gembml.models.cnn import flipout, local_reparameterization
from gembml.options import OptionError, positive
from gembml.tasks.episodes import (
    Episode,
    EpisodeShape,
    query_images,
    sample_episode,
    support_images,
)
from gembml.tasks.images import ImageClasses


class Batch(NamedTuple):
    """Labelled images, and those whose statistics normalise them (mode ``support``)."""

    x: jax.Array
    y: jax.Array
    reference: jax.Array | None = None


class Experiment(NamedTuple):
    """Everything that one run computes with, as pure functions."""

    learner: MetaLearner
    sample_tasks: Callable[[Key], Episode]
    predict: Callable[[Key, Distribution, Batch], jax.Array]
    """``(key, distribution, batch)`` -> log-probabilities ``[samples, n, ways]``."""


def network(config: FewShotConfig) -> CNN:
    """The convolutional network that a config describes."""
    return CNN(
        outputs=config.ways,
        filters=config.filters,
        layers=config.layers,
        pooling=config.pooling,
        head=config.head,
        activation=config.activation,
        normalisation=config.normalisation,
        form=config.convolution,
        precision=config.precision,
    )


def support_batch(data: ImageClasses, episode: Episode, config: FewShotConfig) -> Batch:
    """The images to adapt to."""
    return Batch(*support_images(data, episode, config.shots))


def query_batch(data: ImageClasses, episode: Episode, config: FewShotConfig) -> Batch:
    """The images to be classified."""
    x, y = query_images(data, episode, config.shots)
    if config.normalisation != "support":
        return Batch(x, y)
    return Batch(x, y, support_images(data, episode, config.shots).x)


def check_precision(config: FewShotConfig) -> None:
    """Refuse a precision that other options do not have.

    Raises:
      OptionError: for such a convolution or second pass.
    """
    if positive(config.second_pass) and config.precision != "float32":
        raise OptionError(
            "config.second_pass needs config.precision=float32, not "
            f"{config.precision}: it divides a small difference, which is lost in rounding."
        )
    if config.convolution == "direct" and config.precision == "bfloat16":
        raise OptionError(
            "config.precision=bfloat16 needs config.convolution=im2col: XLA's own convolution "
            "would also add up in bfloat16."
        )


def make_problem(data: ImageClasses, config: FewShotConfig) -> Problem:
    """The problem of classifying episodes of ``data``'s classes.

    Raises:
      OptionError: for a convolution, or a second pass, that does not have the precision.
    """
    check_precision(config)
    net = network(config)

    def log_likelihood(logits: jax.Array, labels: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, labels[:, None], axis=-1)
        reduce = jnp.mean if config.likelihood == "mean" else jnp.sum
        return reduce(chosen) / config.temperature

    def with_noise(outputs: Callable) -> Callable[[Key, Gaussian, Batch], jax.Array]:
        def expected(key: Key, weights: Gaussian, batch: Batch) -> jax.Array:
            return log_likelihood(outputs(net, key, weights, batch.x, batch.reference), batch.y)

        return expected

    def logits(params: Params, batch: Batch) -> jax.Array:
        return net.apply(params, batch.x, batch.reference)  # type: ignore[return-value]

    def whitened(params: Params, batch: Batch) -> jax.Array:
        # sum_c (2 d sqrt p_c)^2 = sum_c (d p_c)^2 / p_c, the categorical's Fisher information.
        weight = 1 / len(batch.x) if config.likelihood == "mean" else 1.0
        return 2 * jnp.sqrt(weight * jax.nn.softmax(logits(params, batch)))

    image = jnp.zeros((1, *data.images.shape[2:]))
    return Problem(
        init=lambda key: net.init(key, image),
        log_likelihood=lambda params, batch: log_likelihood(logits(params, batch), batch.y),
        support=lambda key, task, params: support_batch(data, task, config),
        query=lambda key, task, params: query_batch(data, task, config),
        local_log_likelihood=with_noise(local_reparameterization),
        flipout_log_likelihood=with_noise(flipout),
        whitened_outputs=whitened,
    )


def make_experiment(
    algorithm: str,
    config: FewShotConfig,
    data: ImageClasses,
    meta_steps: int,
    mesh: Mesh | None = None,
) -> Experiment:
    """The learner of episodes of ``data``, which lies where ``few_shot_run.on_devices`` puts it."""
    config = config.on_this_device()
    net = network(config)
    learner = make_learner(algorithm, make_problem(data, config), config, meta_steps, mesh)
    shape = EpisodeShape(config.ways, config.shots, config.queries, config.rotations)

    def sample_tasks(key: Key) -> Episode:
        keys = jax.random.split(key, config.meta_batch)
        return jax.vmap(lambda k: sample_episode(k, data.counts, shape))(keys)

    family = ALGORITHMS[algorithm].family
    multiplier = config.test_std_multiplier if family == "gaussian" else 1.0
    number = {"delta": 1, "particles": config.num_particles}.get(family, config.test_samples)
    number = number if multiplier else 1

    def predict(key: Key, distribution: Distribution, batch: Batch) -> jax.Array:
        if multiplier != 1.0:
            distribution = widened(distribution, multiplier)

        def log_probs(params: Params) -> Any:
            return jax.nn.log_softmax(net.apply(params, batch.x, batch.reference))  # type: ignore[arg-type]

        # One set of weights after the other: the batch is large enough to keep a device busy.
        return jax.lax.map(log_probs, learner.sample(key, distribution, number))

    return Experiment(learner, sample_tasks, predict)
