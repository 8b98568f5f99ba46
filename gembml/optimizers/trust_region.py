"""Trust-region steps (TRPO, Schulman et al. 2015) as an optax transformation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gembml.conjugate_gradients import conjugate_gradients
from gembml.gaussian import Gaussian
from gembml.options import OptionError, concrete


class _Search(NamedTuple):
    tried: jax.Array
    length: jax.Array
    accepted: jax.Array


def _dot(left: Any, right: Any) -> jax.Array:
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), left, right)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


def trust_region(
    max_kl: float | jax.Array,
    *,
    cg_steps: int = 10,
    damping: float = 0.1,
    backtracks: int = 15,
    shrink: float = 0.8,
) -> optax.GradientTransformationExtraArgs:
    """The natural-gradient step as long as the divergence allows, if the loss falls along it.

    ``update(gradient, state, params, value_fn=, divergence_fn=)`` with the loss and the divergence
    D from ``params``, both functions of a candidate. With F the Hessian of D at ``params``, A = F +
    ``damping`` I, and x the solution of A x = gradient by conjugate gradients,

        step = -length x,    length = sqrt(2 max_kl / x.A x) shrink^k,

    k the first of 0, 1, ..., ``backtracks`` - 1 with a lower loss and D <= ``max_kl``, up to
    rounding. If there is none the step is 0, and so it is for a gradient of 0. Where the gradient
    is not finite the step is NaN. The gradient's length has no influence.

    The step is a constant to whoever differentiates through it: the Hessian is that of first-order
    methods, none.

    Args:
      max_kl: limit of D.
      cg_steps: products with F per step, besides one for the length.
      damping: weight of the identity beside F, so that directions of which D says nothing have a
        limit, too; 0 makes the step independent of how parameters are written, to the accuracy of
        ``cg_steps``. On 2D navigation, within D <= 0.01, the surrogate rises by 0.012, 0.012,
        0.013 and 0.015 with 1e-5, 1e-3, 1e-2 and 0.1: where the step is
        shorter, F is more of a guide to D.
      backtracks: lengths that are tried.
      shrink: each of them, as a share of the one before.

    Raises:
      OptionError: for a limit that is not positive; and at an update without the two functions.
    """
    if concrete(max_kl) and max_kl <= 0:
        raise OptionError(f"max_kl must be above 0, not {max_kl}.")

    def update(
        updates: Any,
        state: optax.OptState,
        params: Any = None,
        *,
        value_fn: Callable[[Any], jax.Array] | None = None,
        divergence_fn: Callable[[Any], jax.Array] | None = None,
        **extra_args: Any,
    ):
        del extra_args
        if value_fn is None or divergence_fn is None:
            raise OptionError(
                "a trust region needs the loss and the divergence as functions of a candidate, "
                "value_fn and divergence_fn: choose a problem that has a divergence."
            )
        gradient, params = jax.lax.stop_gradient((updates, params))
        # All products are at one point: the forward pass and the first derivative are made once.
        _, fisher = jax.linearize(jax.grad(divergence_fn), params)

        def damped(vector: Any) -> Any:
            return jax.tree.map(lambda f, v: f + damping * v, fisher(vector), vector)

        direction = conjugate_gradients(damped, gradient, cg_steps)
        square = _dot(direction, damped(direction))
        curved = square > 0
        longest = jnp.where(curved, jnp.sqrt(2 * max_kl / jnp.where(curved, square, 1.0)), 0.0)
        before = value_fn(params)
        # A quadratic divergence reaches its limit at the first length: rounding is not to decide.
        limit = max_kl * (1 + jnp.finfo(before.dtype).eps ** 0.5)

        def step(length: jax.Array) -> Any:
            return jax.tree.map(lambda d: (-length * d).astype(d.dtype), direction)

        def accepted(length: jax.Array) -> jax.Array:
            candidate = optax.apply_updates(params, step(length))
            return (value_fn(candidate) < before) & (divergence_fn(candidate) <= limit)

        def going(search: _Search) -> jax.Array:
            return ~search.accepted & (search.tried < backtracks)

        def shorten(search: _Search) -> _Search:
            length = jnp.where(search.tried == 0, search.length, shrink * search.length)
            return _Search(search.tried + 1, length, accepted(length))

        # Most searches end at the first or second length. Under vmap all go on until the last has
        # ended, which is still less work than every length for each.
        start = _Search(jnp.array(0), longest, jnp.array(False))
        end = jax.lax.while_loop(going, shorten, start)
        # Not 0.0: what is not finite is to show, and 0 times it is NaN.
        refused = jax.tree.map(lambda g: 0.0 * g, gradient)
        taken = step(end.length)
        return jax.tree.map(lambda d, r: jnp.where(end.accepted, d, r), taken, refused), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def on_mean(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """``optimizer`` of a Gaussian's mean; the log-std stays where it is.

    Extra arguments that are functions of a Gaussian become functions of its mean.

    A policy's divergence is that of the weights which act, the mean: it says nothing of log_std,
    for which a trust region has no limit.
    """
    update_mean = optax.with_extra_args_support(optimizer).update

    def update(updates: Any, state: optax.OptState, params: Any = None, **extra_args: Any):
        def of_mean(argument: Any) -> Any:
            if not callable(argument):
                return argument
            return lambda mean: argument(params._replace(mean=mean))

        extra_args = {name: of_mean(argument) for name, argument in extra_args.items()}
        mean, state = update_mean(updates.mean, state, params.mean, **extra_args)
        return Gaussian(mean, jax.tree.map(jnp.zeros_like, params.log_std)), state

    return optax.GradientTransformationExtraArgs(lambda params: optimizer.init(params.mean), update)
