"""The M-step of EM for a Gaussian prior, and online EM, as an optax transformation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gembml.gaussian import Gaussian
from gembml.options import OptionError


def online_em(
    step_size: optax.ScalarOrSchedule, *, min_variance_ratio: float = 0.25
) -> optax.GradientTransformation:
    """Move the prior's expectation parameters (E theta, E theta^2) towards the posteriors'.

    For gradients g of -L1 averaged over tasks, with d = -sigma^2 g_mean (the mean of m - mu) and
    V = sigma^2 (1 - g_log_std) (the mean of s^2 + (m - mu)^2), a step b gives

        mu'      = mu + b d
        sigma'^2 = (1 - b) sigma^2 + b V - b^2 d^2.

    ``step_size`` b = 1 is the exact M-step, unless the floor below binds: mu' and sigma'^2 are the
    moments of the mixture of the tasks' posteriors. It may be a schedule, as stochastic EM asks for
    b -> 0. Under L2 the difference of two such terms need not be a valid variance, so sigma'^2 is
    kept above ``min_variance_ratio`` * sigma^2; under L1 that only limits how fast sigma shrinks.

    Raises:
      OptionError: for a step outside (0, 1] or a floor outside (0, 1), and at the first update if
        the parameters are not a ``Gaussian``.
    """
    if not callable(step_size) and not 0 < step_size <= 1:
        raise OptionError(f"the step of online EM must lie in (0, 1], not {step_size}.")
    if not 0 < min_variance_ratio < 1:
        raise OptionError(f"min_variance_ratio must lie in (0, 1), not {min_variance_ratio}.")

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Any, params: Any = None):
        if not isinstance(params, Gaussian):
            raise OptionError("online EM needs a Gaussian prior.")
        b = jnp.asarray(step_size(state.count) if callable(step_size) else step_size)
        mean = jax.tree.map(lambda g, ls: -b * jnp.exp(2 * ls) * g, updates.mean, params.log_std)

        def log_std_step(g: jax.Array, step: jax.Array, ls: jax.Array) -> jax.Array:
            ratio = 1 - b * g - (step * jnp.exp(-ls)) ** 2
            return 0.5 * jnp.log(jnp.maximum(ratio, min_variance_ratio))

        log_std = jax.tree.map(log_std_step, updates.log_std, mean, params.log_std)
        return Gaussian(mean, log_std), optax.ScaleByScheduleState(count=state.count + 1)

    return optax.GradientTransformation(init, update)
