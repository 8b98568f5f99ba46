"""The inner loop (paper: subroutine VI): start at the prior and repeat one inference step."""

import jax
import jax.numpy as jnp

from gembml.base import Collect, Distribution, Inference, InferenceState, Key, StepKeys

# Short loops are unrolled: on a CPU a loop's bookkeeping costs as much as one small inner step
# (5 second-order MAML steps: 3,360 against 2,730 meta-steps/s). Long loops stay loops, which keeps
# compilation short and the memory of value-only estimators independent of the number of steps.
_UNROLL_UP_TO = 5


def _step_keys(key: Key, num_steps: int) -> StepKeys:
    """Keys of all steps in two vectorised splits: one split per step costs as much as its noise."""
    data_key, noise_key = jax.random.split(key)
    return StepKeys(jax.random.split(data_key, num_steps), jax.random.split(noise_key, num_steps))


def infer(
    inference: Inference, key: Key, prior: Distribution, collect: Collect, num_steps: int
) -> Distribution:
    """The posterior after ``num_steps`` inner steps from ``prior``.

    Sequential Bayes (lambda_all = VI(lambda_tr, D^val) in the paper) is this function again, with
    the first posterior as its prior and therefore also its starting point.
    """
    state, _ = jax.lax.scan(
        lambda state, keys: (inference.step(keys, state, prior, collect), None),
        inference.init(prior),
        _step_keys(key, num_steps),
        unroll=num_steps <= _UNROLL_UP_TO,
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
