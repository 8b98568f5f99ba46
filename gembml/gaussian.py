"""Mean-field Gaussians over weights, as pytrees, and the closed-form Gradient-EM gradient.

``Gaussian(mean, log_std)`` serves as the prior Theta = (mu, sigma) and as the posterior
lambda = (m, s). Both fields are pytrees of the network's shape. Distrax distributions are made
inside the functions and never leave them, so a ``Gaussian`` crosses ``jit``, ``vmap`` and ``scan``.
"""

from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp

from gembml.base import Family, Key, Params


class Gaussian(NamedTuple):
    """A diagonal Gaussian over a pytree of weights."""

    mean: Params
    log_std: Params


def around(params: Params, log_std: float | jax.Array) -> Gaussian:
    """The Gaussian with mean ``params`` and one log standard deviation everywhere."""
    return Gaussian(params, jax.tree.map(lambda leaf: jnp.full_like(leaf, log_std), params))


def standard_normal_like(key: Key, params: Params) -> Params:
    """Independent N(0, 1) numbers of the shapes and types of ``params``."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves)) if len(leaves) > 1 else [key]
    noise = [
        jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, noise)


def perturb(gaussian: Gaussian, noise: Params) -> Params:
    """The reparameterised sample theta = m + s * noise (paper: g(lambda, epsilon))."""
    return jax.tree.map(
        lambda m, ls, n: m + jnp.exp(ls) * n, gaussian.mean, gaussian.log_std, noise
    )


def sample(key: Key, gaussian: Gaussian, num_samples: int) -> Params:
    """``num_samples`` sets of weights; leaves are ``[num_samples, ...]``."""
    keys = jax.random.split(key, num_samples)
    return jax.vmap(lambda k: perturb(gaussian, standard_normal_like(k, gaussian.mean)))(keys)


def _sum(tree: Params) -> jax.Array:
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


def log_prob(gaussian: Gaussian, params: Params) -> jax.Array:
    """Log N(params | mean, std^2), summed over all weights."""
    return _sum(
        jax.tree.map(
            lambda m, ls, x: distrax.Normal(m, jnp.exp(ls)).log_prob(x),
            gaussian.mean,
            gaussian.log_std,
            params,
        )
    )


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> jax.Array:
    """KL(posterior || prior), summed over all weights:

    sum log(sigma / s) + (s^2 + (m - mu)^2) / (2 sigma^2) - 1/2.
    """

    def leaf(m: jax.Array, ls: jax.Array, mu: jax.Array, lsigma: jax.Array) -> jax.Array:
        # Written out rather than taken from distrax: with log-stds there is no log(exp(.)) to
        # lose digits in, and the inner loop differentiates this at every step. A test compares
        # the two.
        return (
            lsigma
            - ls
            + 0.5 * (jnp.exp(2 * (ls - lsigma)) + ((m - mu) * jnp.exp(-lsigma)) ** 2 - 1)
        )

    return _sum(jax.tree.map(leaf, posterior.mean, posterior.log_std, prior.mean, prior.log_std))


def gem_gradient(prior: Gaussian, posterior: Gaussian) -> Gaussian:
    """The Gradient-EM gradient of the log evidence in the prior, in closed form.

    Theorem 1 of the paper with P(theta | D) replaced by the posterior N(m, s^2):
    E_posterior grad_Theta log P(theta | Theta), which for a Gaussian prior N(mu, sigma^2) is

        d/d mean    = (m - mu) / sigma^2
        d/d log_std = (s^2 + (m - mu)^2) / sigma^2 - 1

    (Appendix B.7 gives it in precisions, with covariances and precisions exchanged in print.)
    Only the values of ``posterior`` enter: nothing is differentiated through the inner loop.
    """

    def mean(mu: jax.Array, lsigma: jax.Array, m: jax.Array) -> jax.Array:
        return (m - mu) * jnp.exp(-2 * lsigma)

    def log_std(mu: jax.Array, lsigma: jax.Array, m: jax.Array, ls: jax.Array) -> jax.Array:
        return jnp.exp(2 * (ls - lsigma)) + ((m - mu) * jnp.exp(-lsigma)) ** 2 - 1

    return Gaussian(
        jax.tree.map(mean, prior.mean, prior.log_std, posterior.mean),
        jax.tree.map(log_std, prior.mean, prior.log_std, posterior.mean, posterior.log_std),
    )


def family(log_std_init: float | jax.Array) -> Family:
    """Mean-field Gaussians, with priors that start at standard deviation exp(``log_std_init``)."""
    return Family(
        init=lambda key, init: around(init(key), log_std_init),
        sample=sample,
        gem_gradient=gem_gradient,
    )
