"""One step of the optimizer, as inner loops take it."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from gembml.base import Data, Distribution, InferenceState, Params

Divergence = Callable[[Params, Params, Data], jax.Array]
"""As :attr:`gembml.base.Problem.divergence`."""


def descend(
    optimizer: optax.GradientTransformationExtraArgs,
    state: InferenceState,
    gradient: Distribution,
    value: jax.Array,
    loss: Callable[[Distribution], jax.Array],
    divergence: Divergence | None,
    data: Data,
) -> InferenceState:
    """The state after a step against ``gradient``.

    An optimizer that wants them is told what it has left to gain as ``value``, as a rule the
    present loss; the loss of any posterior as ``value_fn``; and how far its mean's predictions are
    from those of the present mean as ``divergence_fn``. Others ignore all three.
    """
    functions: dict[str, Any] = {"value": value, "value_fn": loss}
    if divergence is not None:
        here = jax.lax.stop_gradient(state.posterior.mean)
        functions["divergence_fn"] = lambda other: divergence(here, other.mean, data)
    updates, optimizer_state = optimizer.update(
        gradient, state.optimizer_state, state.posterior, **functions
    )
    return InferenceState(optax.apply_updates(state.posterior, updates), optimizer_state)
