"""The inner loop (paper: subroutine VI): start at the prior and repeat one inference step."""

import jax
import jax.numpy as jnp

from gembml.base import Collect, Distribution, Inference, InferenceState, Key, StepKeys


def _step_keys(key: Key, num_steps: int) -> StepKeys:
    """Keys of all steps in two vectorised splits: one split per step costs as much as its noise."""
    data_key, noise_key = jax.random.split(key)
    return StepKeys(jax.random.split(data_key, num_steps), jax.random.split(noise_key, num_steps))


def infer(
    inference: Inference,
    key: Key,
    prior: Distribution,
    collect: Collect,
    num_steps: int,
    *,
    unroll: bool = False,
) -> Distribution:
    """The posterior after ``num_steps`` inner steps from ``prior``.

    Sequential Bayes (lambda_all = VI(lambda_tr, D^val) in the paper) is this function again, with
    the first posterior as its prior and therefore also its starting point.

    ``unroll`` trades compile time and memory for the loop's bookkeeping.
    """
    state, _ = jax.lax.scan(
        lambda state, keys: (inference.step(keys, state, prior, collect), None),
        inference.init(prior),
        _step_keys(key, num_steps),
        unroll=unroll,
    )
    return state.posterior


def trajectory(
    inference: Inference, key: Key, prior: Distribution, collect: Collect, num_steps: int
) -> Distribution:
    """The posteriors after 0, 1, ..., ``num_steps`` steps; leaves are ``[num_steps + 1, ...]``.

    Its last entry is what :func:`infer` returns for the same arguments.
    """

    def body(state: InferenceState, keys: StepKeys):
        state = inference.step(keys, state, prior, collect)
        return state, state.posterior

    _, posteriors = jax.lax.scan(body, inference.init(prior), _step_keys(key, num_steps))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), prior, posteriors)
