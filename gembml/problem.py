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


def gaussian_log_likelihood(noise_std: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """``(prediction, y)`` -> sum over the data of log N(y | prediction, noise_std^2)."""
    return lambda prediction, y: jnp.sum(distrax.Normal(prediction, noise_std).log_prob(y))


def negative_mean_squared_error(prediction: jax.Array, y: jax.Array) -> jax.Array:
    """The likelihood of the paper's appendix C.4.1: -log P(D | theta) is the mean squared error.

    It is the Gaussian one with noise variance K / 2 for K data, up to a constant.
    """
    return -jnp.mean((prediction - y) ** 2)


def _check_shapes(inputs: jax.Array, predictions: jax.Array, targets: jax.Array) -> None:
    """Refuse targets that would be broadcast against predictions; whole numbers may be labels."""
    shape = predictions.shape
    classes = jnp.issubdtype(targets.dtype, jnp.integer) and shape[-1] > 1
    if targets.shape != shape and not (classes and targets.shape == shape[:-1]):
        raise OptionError(
            f"Targets for inputs of shape {inputs.shape} must have shape {shape}, that of the "
            f"network's predictions{f', or {shape[:-1]}' * classes}, not {targets.shape}."
        )


def supervised(
    network: nn.Module,
    example: jax.Array,
    log_likelihood: Callable[[jax.Array, jax.Array], jax.Array],
    sample_outputs: Callable[[Key, Gaussian, jax.Array], jax.Array] | None = None,
    whiten: Callable[[jax.Array], jax.Array] | None = None,
) -> Problem:
    """The problem of fitting ``network`` to tasks that are :class:`SupervisedTask` of points.

    Args:
      network: a flax module from ``x [K, ...]`` to predictions ``[K, ...]``. Targets have their
        shape or, if they are whole numbers and so may be labels, all of it but the last axis.
      example: an input that fixes the shapes, ``[K, ...]``; its number K is of no account.
      log_likelihood: ``(predictions, targets)`` -> a scalar.
      sample_outputs: the network's local reparameterisation, if it has one:
        ``(key, Gaussian over weights, x)`` -> predictions.
      whiten: predictions -> the same in units in which the likelihood's Fisher matrix is the
        identity, for Laplace approximations; for N(y | prediction, s^2) prediction / s.

    Raises (the problem's likelihoods):
      OptionError: for inputs of another shape than ``example``, and for targets of another than
        the predictions, both before anything is broadcast.
    """

    def check_inputs(x: jax.Array) -> None:
        if x.shape[1:] != example.shape[1:] or not x.ndim:
            needed = ", ".join(["points", *map(str, example.shape[1:])])
            raise OptionError(
                f"A task's inputs must have shape [{needed}], as the example has, and not {x.shape}"
                "; before it a batch of tasks has an axis of tasks."
            )

    def log_likelihood_of(params: Params, data: Points) -> jax.Array:
        check_inputs(data.x)
        predictions = outputs(network, params, data.x)
        _check_shapes(data.x, predictions, data.y)
        return log_likelihood(predictions, data.y)

    def local_log_likelihood(key: Key, weights: Gaussian, data: Points) -> jax.Array:
        assert sample_outputs is not None
        check_inputs(data.x)
        predictions = sample_outputs(key, weights, data.x)
        _check_shapes(data.x, predictions, data.y)
        return log_likelihood(predictions, data.y)

    return Problem(
        init=lambda key: network.init(key, example),
        log_likelihood=log_likelihood_of,
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
