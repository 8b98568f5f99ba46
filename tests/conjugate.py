"""Bayesian linear regression with orthogonal features: everything exact and mean-field.

With y = X theta + noise and X^T X diagonal, the posterior of theta under a mean-field Gaussian
prior is a mean-field Gaussian, and the evidence is a Gaussian in y.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml import Gaussian, Inference, Problem
from gembml.base import Collect, InferenceState, Key, StepKeys

NOISE_STD = 0.5


class Data(NamedTuple):
    """``x [points, features]`` with orthogonal columns, ``y [points]``."""

    x: jax.Array
    y: jax.Array


class Task(NamedTuple):
    """Two data sets of the same weights."""

    support: Data
    query: Data


def make_task(seed: int, points: int = 10, features: int = 5) -> Task:
    """A task with weights of std 1.5 and columns of different lengths."""
    weights_key, *keys = jax.random.split(jax.random.key(seed), 3)
    weights = 1.5 * jax.random.normal(weights_key, (features,))

    def data(key: Key) -> Data:
        design_key, scale_key, noise_key = jax.random.split(key, 3)
        columns = jnp.linalg.qr(jax.random.normal(design_key, (points, features)))[0]
        x = columns * jax.random.uniform(scale_key, (features,), minval=0.3, maxval=2.0)
        return Data(x, x @ weights + NOISE_STD * jax.random.normal(noise_key, (points,)))

    return Task(*map(data, keys))


def make_prior(seed: int, features: int = 5) -> Gaussian:
    """A prior with a mean off zero and a different std per weight."""
    mean_key, std_key = jax.random.split(jax.random.key(1000 + seed))
    return Gaussian(
        jax.random.normal(mean_key, (features,)),
        jax.random.uniform(std_key, (features,), minval=-1.0, maxval=0.5),
    )


def union(first: Data, second: Data) -> Data:
    """D^tr u D^val. X^T X stays diagonal, as a sum of diagonal matrices."""
    return Data(*map(jnp.concatenate, zip(first, second, strict=True)))


def log_likelihood(weights: jax.Array, data: Data) -> jax.Array:
    """log N(y | X theta, noise^2), summed."""
    return jax.scipy.stats.norm.logpdf(data.y, data.x @ weights, NOISE_STD).sum()


def exact_posterior(prior: Gaussian, data: Data) -> Gaussian:
    """P(theta | D, Theta): precisions add, and precision-weighted means."""
    prior_precision = jnp.exp(-2 * prior.log_std)
    precision = prior_precision + (data.x**2).sum(axis=0) / NOISE_STD**2
    mean = (prior_precision * prior.mean + data.x.T @ data.y / NOISE_STD**2) / precision
    return Gaussian(mean, -0.5 * jnp.log(precision))


def log_evidence(prior: Gaussian, data: Data) -> jax.Array:
    """log P(D | Theta) = log N(y | X mu, X diag(sigma^2) X^T + noise^2 I)."""
    covariance = (data.x * jnp.exp(2 * prior.log_std)) @ data.x.T
    covariance += NOISE_STD**2 * jnp.eye(len(data.y))
    return jax.scipy.stats.multivariate_normal.logpdf(data.y, data.x @ prior.mean, covariance)


def log_predictive(prior: Gaussian, task: Task) -> jax.Array:
    """log P(D^val | D^tr, Theta): the evidence of D^val under the posterior of D^tr."""
    return log_evidence(exact_posterior(prior, task.support), task.query)


PROBLEM = Problem(
    init=lambda key: jax.random.normal(key, (5,)),
    log_likelihood=log_likelihood,
    support=lambda key, task, params: task.support,
    query=lambda key, task, params: task.query,
)


def exact_inference() -> Inference:
    """An inner loop that jumps to the exact posterior at every step."""

    def step(
        keys: StepKeys, state: InferenceState, prior: Gaussian, collect: Collect
    ) -> InferenceState:
        data = collect(keys.data, state.posterior.mean)
        return InferenceState(exact_posterior(prior, data), state.optimizer_state)

    return Inference(init=lambda key, prior: InferenceState(prior, ()), step=step)
