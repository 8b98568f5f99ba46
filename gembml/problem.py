"""Problems made of a flax network: supervised data, and weights as one vector."""

from collections.abc import Callable
from typing import NamedTuple, cast

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gembml.base import Data, Key, Params, Problem
from gembml.gaussian import Gaussian
from gembml.options import OptionError


class Points(NamedTuple):
    """Inputs and targets of a regression, ``x [K, features]`` and ``y [K, outputs]``."""

    x: jax.Array
    y: jax.Array


class SupervisedTask(NamedTuple):
    """One task's two data sets."""

    support: Data
    query: Data


def _of_one_shape(prediction: jax.Array, y: jax.Array) -> None:
    if prediction.shape != y.shape:
        raise OptionError(
            f"Targets must have the shape of the network's predictions, {prediction.shape}, not "
            f"{y.shape}, or they would be broadcast."
        )


def gaussian_log_likelihood(noise_std: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """``(prediction, y)`` -> sum over the data of log N(y | prediction, noise_std^2).

    Raises (when called):
      OptionError: if ``y`` has another shape than ``prediction``.
    """

    def log_likelihood(prediction: jax.Array, y: jax.Array) -> jax.Array:
        _of_one_shape(prediction, y)
        return jnp.sum(distrax.Normal(prediction, noise_std).log_prob(y))

    return log_likelihood


def negative_mean_squared_error(prediction: jax.Array, y: jax.Array) -> jax.Array:
    """The likelihood of the paper's appendix C.4.1: -log P(D | theta) is the mean squared error.

    It is the Gaussian one with noise variance K / 2 for K data, up to a constant.

    Raises:
      OptionError: if ``y`` has another shape than ``prediction``.
    """
    _of_one_shape(prediction, y)
    return -jnp.mean((prediction - y) ** 2)


def supervised(
    network: nn.Module,
    example: jax.Array,
    log_likelihood: Callable[[jax.Array, jax.Array], jax.Array],
    sample_outputs: Callable[[Key, Gaussian, jax.Array], jax.Array] | None = None,
    whiten: Callable[[jax.Array], jax.Array] | None = None,
) -> Problem:
    """The problem of fitting ``network`` to tasks that are :class:`SupervisedTask` of points.

    Args:
      network: a flax module from ``x [K, ...]`` to predictions ``[K, ...]``.
      example: an input that fixes the shapes, ``[K, ...]``; its number K is of no account.
      log_likelihood: ``(predictions, targets)`` -> a scalar.
      sample_outputs: the network's local reparameterisation, if it has one:
        ``(key, Gaussian over weights, x)`` -> predictions.
      whiten: predictions -> the same in units in which the likelihood's Fisher matrix is the
        identity, for Laplace approximations; for N(y | prediction, s^2) prediction / s.

    Raises (the problem's likelihoods):
      OptionError: if a task's inputs have another number of axes than ``example``.
    """

    def checked(x: jax.Array) -> jax.Array:
        axes, needed = getattr(x, "ndim", None), getattr(example, "ndim", None)
        if axes != needed:
            raise OptionError(
                f"A task's inputs must have {needed} axes, as the example has, the first of them "
                f"that of points, and have {axes}; a batch of tasks has one more, before it."
            )
        return x

    def local_log_likelihood(key: Key, weights: Gaussian, data: Points) -> jax.Array:
        assert sample_outputs is not None
        return log_likelihood(sample_outputs(key, weights, checked(data.x)), data.y)

    return Problem(
        init=lambda key: network.init(key, example),
        log_likelihood=lambda params, data: log_likelihood(
            outputs(network, params, checked(data.x)), data.y
        ),
        support=lambda key, task, params: task.support,
        query=lambda key, task, params: task.query,
        local_log_likelihood=local_log_likelihood if sample_outputs else None,
        whitened_outputs=(
            (lambda params, data: whiten(outputs(network, params, data.x))) if whiten else None
        ),
    )


def outputs(network: nn.Module, params: Params, x: jax.Array) -> jax.Array:
    """The network's outputs for inputs ``x [K, ...]``."""
    return cast(jax.Array, network.apply(params, x))


def unraveler(problem: Problem) -> Callable[[jax.Array], Params]:
    """Turns one weight vector back into ``problem``'s pytree."""
    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return ravel_pytree(zeros)[1]


def ravel(problem: Problem) -> Problem:
    """The same problem with all weights in one vector.

    For small networks on a CPU the inner loop's elementwise work (noise, KL, optimizer) is then one
    kernel instead of one per layer. Networks with large layers have nothing to gain.
    """
    unravel = unraveler(problem)
    local, whitened = problem.local_log_likelihood, problem.whitened_outputs
    flipout, divergence = problem.flipout_log_likelihood, problem.divergence

    def gaussian(weights: Gaussian) -> Gaussian:
        return Gaussian(unravel(weights.mean), unravel(weights.log_std))

    def local_log_likelihood(key: Key, weights: Gaussian, data: Data) -> jax.Array:
        assert local is not None
        return local(key, gaussian(weights), data)

    def flipout_log_likelihood(key: Key, weights: Gaussian, data: Data) -> jax.Array:
        assert flipout is not None
        return flipout(key, gaussian(weights), data)

    return problem._replace(  # what has no weights as an argument stays
        init=lambda key: ravel_pytree(problem.init(key))[0],
        log_likelihood=lambda vector, data: problem.log_likelihood(unravel(vector), data),
        support=lambda key, task, vector: problem.support(key, task, unravel(vector)),
        query=lambda key, task, vector: problem.query(key, task, unravel(vector)),
        local_log_likelihood=local_log_likelihood if local else None,
        flipout_log_likelihood=flipout_log_likelihood if flipout else None,
        whitened_outputs=(
            (lambda vector, data: whitened(unravel(vector), data)) if whitened else None
        ),
        divergence=(
            (lambda vector, other, data: divergence(unravel(vector), unravel(other), data))
            if divergence
            else None
        ),
    )
