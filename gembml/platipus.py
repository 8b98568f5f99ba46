"""The meta-parameters of PLATIPUS (Finn, Xu & Levine 2018).

It has an inference of its own in training (its Algorithm 1, :mod:`gembml.meta_gradients.platipus`)
and at meta-test (its Algorithm 2, :mod:`gembml.inference.platipus`), and so stands apart from the
matrix of estimators that the other rows combine.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Data, Family, Key, Params
from gembml.gaussian import Gaussian, around
from gembml.particles import sample


class Platipus(NamedTuple):
    """The meta-parameters Theta of Algorithm 1."""

    prior: Gaussian
    """(mu_Theta, sigma_Theta): p(theta)."""
    query_log_std: Params
    """log v_q / 2: the spread of q(theta | D^val) in training."""
    prior_multiplier: Params
    """gamma_p: the rate of each weight's step towards D^tr, in units of the inner learning rate."""
    query_multiplier: Params
    """gamma_q: that of its step towards D^val in training, in the same units."""


def family(log_std_init: float | jax.Array) -> Family:
    """Both spreads start at exp(``log_std_init``), all rates at the inner learning rate."""

    def init(key: Key, init_params: Callable[[Key], Params]) -> Platipus:
        prior = around(init_params(key), log_std_init)
        ones = jax.tree.map(jnp.ones_like, prior.mean)
        return Platipus(prior, prior.log_std, ones, ones)

    return Family(init=init, sample=sample)


def ascend(
    log_likelihood: Callable[[Params, Data], jax.Array],
    params: Params,
    data: Data,
    rate: float | jax.Array,
    multiplier: Params | None = None,
) -> Params:
    """One step of SGD: params + rate * multiplier o grad log P(data | params)."""
    gradient = jax.grad(log_likelihood)(params, data)
    if multiplier is not None:
        gradient = jax.tree.map(jnp.multiply, multiplier, gradient)
    return jax.tree.map(lambda p, g: p + rate * g, params, gradient)
