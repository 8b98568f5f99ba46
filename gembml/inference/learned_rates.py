"""SGD with a meta-learned learning rate for each weight: the inner loop of Meta-SGD."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Collect, Data, Family, Inference, InferenceState, Key, Params, StepKeys
from gembml.delta import Delta, sample


class LearnedRates(NamedTuple):
    """The meta-parameters of Meta-SGD: where to start, and how far to go."""

    mean: Params
    multiplier: Params
    """Each weight's learning rate, in units of the inner learning rate; 1 at the start."""


def family() -> Family:
    """Point masses with a learning rate for each weight."""

    def init(key: Key, init_params: Callable[[Key], Params]) -> LearnedRates:
        params = init_params(key)
        return LearnedRates(params, jax.tree.map(jnp.ones_like, params))

    return Family(init=init, sample=sample)


def learned_rates(
    log_likelihood: Callable[[Params, Data], jax.Array], learning_rate: float | jax.Array
) -> Inference:
    """Theta <- theta + alpha o grad log P(D | theta), Li et al. 2017, Algorithm 1.

    alpha = ``learning_rate`` * multiplier. In these units one meta learning rate suits the weights
    and the multipliers. They may become negative, as in the paper.
    """

    def init(key: Key, prior: LearnedRates) -> InferenceState:
        del key
        return InferenceState(Delta(prior.mean), ())

    def step(
        keys: StepKeys, state: InferenceState, prior: LearnedRates, collect: Collect
    ) -> InferenceState:
        params = state.posterior.mean
        gradient = jax.grad(log_likelihood)(
            params, collect(keys.data, jax.lax.stop_gradient(params))
        )
        params = jax.tree.map(
            lambda p, m, g: p + learning_rate * m * g, params, prior.multiplier, gradient
        )
        return InferenceState(Delta(params), ())

    return Inference(init, step)
