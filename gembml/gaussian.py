"""Mean-field Gaussians over weights, as pytrees, and the closed-form Gradient-EM gradient.

``Gaussian(mean, log_std)`` serves as the prior Theta = (mu, sigma) and as the posterior
lambda = (m, s). Distrax distributions are made inside the functions and never leave them, so a
``Gaussian`` crosses ``jit``, ``vmap`` and ``scan``.

Both fields are pytrees of the network's structure. Each leaf of ``log_std`` has either the shape of
its weights; or shape (), one standard deviation that all weights of the array share; or is None: a
point, a weight without variance, for which everything here is what :mod:`gembml.delta` says of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from gembml.base import Family, Key, Params


class Gaussian(NamedTuple):
    """A diagonal Gaussian over a pytree of weights."""

    mean: Params
    log_std: Params


def around(params: Params, log_std: float | jax.Array) -> Gaussian:
    """The Gaussian with mean ``params`` and one log standard deviation everywhere."""
    return Gaussian(params, jax.tree.map(lambda leaf: jnp.full_like(leaf, log_std), params))


def _shared(values: jax.Array, like: jax.Array) -> jax.Array:
    """The sum of ``values`` over all weights that share one standard deviation."""
    return values if values.shape == like.shape else jnp.sum(values)


def standard_normal_like(key: Key, params: Params) -> Params:
    """Independent N(0, 1) numbers of the shapes and types of ``params``."""
    leaves, treedef = jax.tree.flatten(params)
    if not leaves:
        return params
    if len(leaves) == 1:
        leaf = leaves[0]
        return jax.tree.unflatten(treedef, [jax.random.normal(key, leaf.shape, leaf.dtype)])
    # One draw for all: each would be a program of its own to compile. And in a loop of two rounds:
    # XLA would fuse a single one with what uses it and compute it, slower, once for each layer (a
    # sampled gradient of the four-layer network on a CPU: 13 against 7 ms).
    ends = np.cumsum([leaf.size for leaf in leaves])
    half = -(-int(ends[-1]) // 2)
    dtype = jnp.result_type(*leaves)
    halves = jax.lax.map(lambda k: jax.random.normal(k, (half,), dtype), jax.random.split(key))
    drawn = halves.reshape(-1)[: ends[-1]]
    noise = [
        part.reshape(leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(jnp.split(drawn, ends[:-1]), leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, noise)


def perturb(gaussian: Gaussian, noise: Params) -> Params:
    """The reparameterised sample theta = m + s * noise (paper: g(lambda, epsilon))."""

    def leaf(m: jax.Array, ls: jax.Array | None, n: jax.Array) -> jax.Array:
        return m if ls is None else m + jnp.exp(ls) * n

    return jax.tree.map(leaf, gaussian.mean, gaussian.log_std, noise)


def sample(key: Key, gaussian: Gaussian, num_samples: int) -> Params:
    """``num_samples`` sets of weights; leaves are ``[num_samples, ...]``."""
    keys = jax.random.split(key, num_samples)
    return jax.vmap(lambda k: perturb(gaussian, standard_normal_like(k, gaussian.mean)))(keys)


def _sum(tree: Params) -> jax.Array:
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


def log_prob(gaussian: Gaussian, params: Params) -> jax.Array:
    """Log N(params | mean, std^2), summed over all weights that are no points."""

    def leaf(m: jax.Array, ls: jax.Array | None, x: jax.Array) -> jax.Array:
        if ls is None:
            return jnp.zeros(())
        return jnp.asarray(distrax.Normal(m, jnp.exp(ls)).log_prob(x))

    return _sum(jax.tree.map(leaf, gaussian.mean, gaussian.log_std, params))


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> jax.Array:
    """KL(posterior || prior), summed over all weights:

    sum log(sigma / s) + (s^2 + (m - mu)^2) / (2 sigma^2) - 1/2.

    Points have no part in it.
    """

    def leaf(
        m: jax.Array, ls: jax.Array | None, mu: jax.Array, lsigma: jax.Array | None
    ) -> jax.Array:
        if ls is None or lsigma is None:
            return jnp.zeros(())
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
    Only the values of ``posterior`` enter: nothing is differentiated through the inner loop. A
    standard deviation that weights share has the sum of their gradients; a point has m - mu.
    """

    def mean(mu: jax.Array, lsigma: jax.Array | None, m: jax.Array) -> jax.Array:
        return m - mu if lsigma is None else (m - mu) * jnp.exp(-2 * lsigma)

    def log_std(
        mu: jax.Array, lsigma: jax.Array | None, m: jax.Array, ls: jax.Array | None
    ) -> jax.Array | None:
        if lsigma is None or ls is None:
            return None
        whole = jnp.exp(2 * (ls - lsigma)) + ((m - mu) * jnp.exp(-lsigma)) ** 2 - 1
        return _shared(whole, lsigma)

    return Gaussian(
        jax.tree.map(mean, prior.mean, prior.log_std, posterior.mean),
        jax.tree.map(log_std, prior.mean, prior.log_std, posterior.mean, posterior.log_std),
    )


def family(
    log_std_init: float | jax.Array,
    *,
    relative: bool = False,
    shared: bool = False,
    random: Callable[[str], bool] = lambda name: True,
) -> Family:
    """Mean-field Gaussians, and how their priors start.

    Args:
      log_std_init: every weight's log standard deviation at the start.
      relative: add the log of the root mean square of the array that the weight belongs to, where
        that is not 0.
      shared: one standard deviation for each array of weights.
      random: which arrays have a variance, by their path ("params/head/kernel"); the others are
        points.
    """

    def init(key: Key, initial: Callable[[Key], Params]) -> Gaussian:
        def log_std(path: tuple, weights: jax.Array) -> jax.Array | None:
            if not random(jax.tree_util.keystr(path, simple=True, separator="/")):
                return None
            start = jnp.asarray(log_std_init, weights.dtype)
            if relative:
                size = jnp.sqrt(jnp.mean(jnp.square(weights)))
                start += jnp.where(size > 0, jnp.log(jnp.where(size > 0, size, 1.0)), 0.0)
            return start if shared else jnp.full_like(weights, start)

        params = initial(key)
        return Gaussian(params, jax.tree_util.tree_map_with_path(log_std, params))

    return Family(init=init, sample=sample, gem_gradient=gem_gradient)
