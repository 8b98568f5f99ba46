"""Bayesian linear regression with orthogonal features: everything exact (appendix C.1).

With y = X theta + noise and X^T X diagonal, the posterior of theta under a mean-field Gaussian
prior is a mean-field Gaussian, and the evidence is a Gaussian in y. Hence the exact meta-gradient
is the derivative of :func:`log_evidence` (L1) or :func:`log_predictive` (L2) in the prior.

Functions take the noise's standard deviation, ``noise_std``, as their last argument.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Key, Problem
from gembml.gaussian import Gaussian
from gembml.inference.expectations import ExpectedLogLikelihood


class Data(NamedTuple):
    """``x [points, features]`` with orthogonal columns, ``y [points]``."""

    x: jax.Array
    y: jax.Array


class Task(NamedTuple):
    """Two data sets of the same weights."""

    support: Data
    query: Data


def sample_task(key: Key, points: int, features: int, noise_std: float) -> Task:
    """A task with ``points`` in each data set, weights of std 1.5, columns of length 0.3 to 2."""
    weights_key, *keys = jax.random.split(key, 3)
    weights = 1.5 * jax.random.normal(weights_key, (features,))

    def data(key: Key) -> Data:
        design_key, scale_key, noise_key = jax.random.split(key, 3)
        columns = jnp.linalg.qr(jax.random.normal(design_key, (points, features)))[0]
        x = columns * jax.random.uniform(scale_key, (features,), minval=0.3, maxval=2.0)
        return Data(x, x @ weights + noise_std * jax.random.normal(noise_key, (points,)))

    return Task(*map(data, keys))


def sample_prior(key: Key, features: int) -> Gaussian:
    """A prior with a mean off zero and a different std per weight, 0.37 to 1.65."""
    mean_key, std_key = jax.random.split(key)
    return Gaussian(
        jax.random.normal(mean_key, (features,)),
        jax.random.uniform(std_key, (features,), minval=-1.0, maxval=0.5),
    )


def union(first: Data, second: Data) -> Data:
    """D^tr u D^val. X^T X stays diagonal, as a sum of diagonal matrices."""
    return Data(*map(jnp.concatenate, zip(first, second, strict=True)))


def log_likelihood(weights: jax.Array, data: Data, noise_std: float) -> jax.Array:
    """Log N(y | X theta, noise^2), summed."""
    return jax.scipy.stats.norm.logpdf(data.y, data.x @ weights, noise_std).sum()


def exact_expectation(noise_std: float) -> ExpectedLogLikelihood:
    """E_{theta ~ N(m, s^2)} log P(D | theta) without sampling; the key has no effect:

    log N(y | X m, noise^2) - sum_ij x_ij^2 s_j^2 / (2 noise^2).
    """

    def expected(key: Key, posterior: Gaussian, data: Data) -> jax.Array:
        del key
        spread = jnp.sum((data.x * jnp.exp(posterior.log_std)) ** 2) / (2 * noise_std**2)
        return log_likelihood(posterior.mean, data, noise_std) - spread

    return expected


def exact_posterior(prior: Gaussian, data: Data, noise_std: float) -> Gaussian:
    """P(theta | D, Theta): precisions add, and precision-weighted means."""
    prior_precision = jnp.exp(-2 * prior.log_std)
    precision = prior_precision + (data.x**2).sum(axis=0) / noise_std**2
    mean = (prior_precision * prior.mean + data.x.T @ data.y / noise_std**2) / precision
    return Gaussian(mean, -0.5 * jnp.log(precision))


def log_evidence(prior: Gaussian, data: Data, noise_std: float) -> jax.Array:
    """Log P(D | Theta) = log N(y | X mu, X diag(sigma^2) X^T + noise^2 I)."""
    covariance = (data.x * jnp.exp(2 * prior.log_std)) @ data.x.T
    covariance += noise_std**2 * jnp.eye(len(data.y))
    mean = data.x @ prior.mean
    return jnp.asarray(jax.scipy.stats.multivariate_normal.logpdf(data.y, mean, covariance))


def log_predictive(prior: Gaussian, task: Task, noise_std: float) -> jax.Array:
    """Log P(D^val | D^tr, Theta): the evidence of D^val under the posterior of D^tr."""
    return log_evidence(exact_posterior(prior, task.support, noise_std), task.query, noise_std)


def linear_regression(features: int, noise_std: float) -> Problem:
    """The problem of these tasks, for any inner loop and any estimator."""
    return Problem(
        init=lambda key: jax.random.normal(key, (features,)),
        log_likelihood=functools.partial(log_likelihood, noise_std=noise_std),
        support=lambda key, task, params: task.support,
        query=lambda key, task, params: task.query,
    )
