"""The inner loop (paper: subroutine VI): start at the prior and repeat one inference step."""

import jax
import jax.numpy as jnp

from gembml.base import Collect, Distribution, Inference, InferenceState, Key

# Short loops are unrolled: on a CPU a loop's bookkeeping costs as much as one small inner step
# (5 second-order MAML steps: 3,360 against 2,730 meta-steps/s). Long loops stay loops, which keeps
# compilation short and the memory of value-only estimators independent of the number of steps.
_UNROLL_UP_TO = 5


def _scan_step(inference: Inference, key: Key, prior: Distribution, collect: Collect):
    def step(state: InferenceState, index: jax.Array) -> InferenceState:
        return inference.step(jax.random.fold_in(key, index), state, prior, collect)

    return step


def infer(
    inference: Inference, key: Key, prior: Distribution, collect: Collect, num_steps: int
) -> Distribution:
    """The posterior after ``num_steps`` inner steps from ``prior``.

    Sequential Bayes (lambda_all = VI(lambda_tr, D^val) in the paper) is this function again, with
    the first posterior as its prior and therefore also its starting point.
    """
    step = _scan_step(inference, key, prior, collect)
    state, _ = jax.lax.scan(
        lambda state, index: (step(state, index), None),
        inference.init(prior),
        jnp.arange(num_steps),
        unroll=num_steps <= _UNROLL_UP_TO,
    )
    return state.posterior


def trajectory(
    inference: Inference, key: Key, prior: Distribution, collect: Collect, num_steps: int
) -> Distribution:
    """The posteriors after 0, 1, ..., ``num_steps`` steps; leaves are ``[num_steps + 1, ...]``.

    Its last entry is what :func:`infer` returns for the same arguments.
    """
    step = _scan_step(inference, key, prior, collect)

    def body(state: InferenceState, index: jax.Array):
        state = step(state, index)
        return state, state.posterior

    _, posteriors = jax.lax.scan(body, inference.init(prior), jnp.arange(num_steps))
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), prior, posteriors)
