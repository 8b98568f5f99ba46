"""Natural gradients for mean-field Gaussians, as optax transformations.

The Fisher matrix of N(mean, std^2) in (mean, log_std) is diag(1 / std^2, 2), so preconditioning
scales the mean's gradient by std^2 and the log-std's by 1/2. The same transformation serves the
inner loop (parameters: the posterior) and the meta-step (parameters: the prior). Points, weights
without a variance, have the identity instead.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gembml.gaussian import Gaussian
from gembml.optimizers.clip import shortening
from gembml.options import OptionError


def _needs_gaussian(params: object) -> Gaussian:
    if not isinstance(params, Gaussian):
        raise OptionError(
            "natural gradients need a Gaussian as parameters, "
            f"not {type(params).__name__}; use another optimizer for this posterior family."
        )
    return params


def scale_by_fisher() -> optax.GradientTransformation:
    """Precondition by the inverse Fisher matrix: (std^2 g_mean, g_log_std / 2)."""

    def update(updates: Any, state: optax.OptState, params: Any = None):
        params = _needs_gaussian(params)
        mean = jax.tree.map(
            lambda g, ls: g if ls is None else jnp.exp(2 * ls) * g, updates.mean, params.log_std
        )
        # N weights that share a standard deviation have N times the information on it.
        log_std = jax.tree.map(
            lambda m, g: None if g is None else 0.5 * g * (g.size / m.size),
            params.mean,
            updates.log_std,
        )
        return Gaussian(mean, log_std), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def clip_mean_in_fisher_norm(max_norm: float) -> optax.GradientTransformation:
    """Shrink a mean's gradient g to ||std g|| <= ``max_norm``, its length in the Fisher metric.

    A trust region: an SGD step of size a on the preconditioned gradient then moves the mean by at
    most a * ``max_norm`` standard deviations.
    """

    def update(updates: Any, state: optax.OptState, params: Any = None):
        params = _needs_gaussian(params)
        whitened = jax.tree.map(
            lambda g, ls: g if ls is None else jnp.exp(ls) * g, updates.mean, params.log_std
        )
        scale = shortening(whitened, max_norm)
        return updates._replace(mean=jax.tree.map(lambda g: scale * g, updates.mean)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scale_log_std(multiplier: float) -> optax.GradientTransformation:
    """Multiply the log-std's update by ``multiplier``, the mean's by 1."""

    def update(updates: Any, state: optax.OptState, params: Any = None):
        del params
        log_std = jax.tree.map(lambda u: multiplier * u, updates.log_std)
        return updates._replace(log_std=log_std), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def clip_log_std(max_step: float) -> optax.GradientTransformation:
    """Clip each entry of the log-std's update to +-``max_step``."""

    def update(updates: Any, state: optax.OptState, params: Any = None):
        del params
        log_std = jax.tree.map(lambda u: jnp.clip(u, -max_step, max_step), updates.log_std)
        return updates._replace(log_std=log_std), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class StartingLogStd(NamedTuple):
    """The log-stds at the start of a run."""

    log_std: Any


def cap_log_std_rise(limit: float) -> optax.GradientTransformation:
    """Keep each log-std at most ``limit`` above where it was at the start; the last of a chain."""

    def init(params: Any) -> StartingLogStd:
        return StartingLogStd(_needs_gaussian(params).log_std)

    def update(updates: Any, state: Any, params: Any = None):
        log_std = jax.tree.map(
            lambda u, now, start: jnp.minimum(u, start + limit - now),
            updates.log_std,
            _needs_gaussian(params).log_std,
            state.log_std,
        )
        return updates._replace(log_std=log_std), state

    return optax.GradientTransformation(init, update)


def natural_gradient(
    learning_rate: optax.ScalarOrSchedule,
    *,
    log_std_multiplier: float = 2.0,
    max_mean_norm: float = 30.0,
    max_log_std_step: float = 0.3,
) -> optax.GradientTransformation:
    """The inner optimizer that makes GEM-BML learn: Fisher-preconditioned gradient steps.

    A step of ``learning_rate`` r moves the mean by r std^2 g_mean, with ||std g_mean|| clipped to
    ``max_mean_norm``, and log_std by r * ``log_std_multiplier`` * g_log_std / 2, each entry clipped
    to +-``max_log_std_step``. Uncertainty so acts as the weight's step size.
    """
    return optax.chain(
        clip_mean_in_fisher_norm(max_mean_norm),
        scale_by_fisher(),
        optax.scale_by_learning_rate(learning_rate),
        scale_log_std(log_std_multiplier),
        clip_log_std(max_log_std_step),
    )
