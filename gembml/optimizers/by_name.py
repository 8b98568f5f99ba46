"""Any optax transformation by its name, with its arguments if it takes any."""

import ast
import functools
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

WORDS = (
    "the name of an optax transformation that needs gradients alone, or in the inner loop the "
    "loss, too, with arguments if any, as in sgd, adam(b1=0.5), scale_by_rms or polyak_sgd(eps=1.0)"
)
EPS_ROOT = 1e-8
_RATES = ("learning_rate", "scaling")
_LOSS = 1e3  # of trials: far above what any optimizer is told is the least


class OptaxNameError(ValueError):
    """Text that does not name a transformation of gradients; the message says why."""


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """``"adam(b1=0.5)"`` -> ``("adam", {"b1": 0.5})``."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            call = ast.Call(call, [], [])
        if call.args or any(argument.arg is None for argument in call.keywords):
            raise ValueError("arguments without a name")
        arguments = {str(a.arg): ast.literal_eval(a.value) for a in call.keywords}
        return ast.unparse(call.func), arguments
    except (SyntaxError, ValueError) as error:
        raise OptaxNameError("it is not of the form name or name(argument=value)") from error


def _named(text: str) -> tuple[str, Any, dict[str, Any]]:
    """The function that ``text`` names, and its arguments, which it has; JAX is not used."""
    name, arguments = _parse(text)
    builder = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    if not name.isidentifier() or not callable(builder):
        raise OptaxNameError(f"optax has no transformation {name}")
    if any(rate in arguments for rate in _RATES):
        raise OptaxNameError("its learning rate is an option of its own")
    try:
        inspect.signature(builder).bind_partial(**arguments)
    except (TypeError, ValueError) as error:
        raise OptaxNameError(f"optax.{name} {error}") from error
    return name, builder, arguments


def optax_transformation(
    text: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    differentiated: bool = False,
    with_loss: bool = False,
) -> optax.GradientTransformation:
    """The transformation of ``optax`` or ``optax.contrib`` that ``text`` names.

    One that has a ``learning_rate`` gets it; the updates of any other are scaled by it, with
    descent's sign where they have none: ``trace(decay=0.9)`` is ``sgd(momentum=0.9)``, and Polyak's
    step by ``polyak_sgd`` is ``learning_rate`` min(loss / (|g|^2 + eps), ``max_learning_rate``) g.

    Args:
      text: ``name`` or ``name(argument=value, ...)``, values being Python literals.
      learning_rate: a number or a schedule.
      differentiated: whether the steps are differentiated. Where a weight's gradient is exactly 0,
        as behind a dead ReLU, the root of an average of squares has an infinite derivative; then
        ``eps_root``, which optax adds below it, is 1e-8 where it would be 0.
      with_loss: whether the caller gives each update the loss, ``value``.

    Weights may arrive as one vector (:func:`gembml.ravel`), in which transformations that treat
    matrices or layers in their own way, such as ``muon`` and ``lars``, see a single layer.

    Raises:
      OptaxNameError: if there is no such transformation, it does not take these arguments, needs
        more than gradients and parameters, and with ``with_loss`` the loss, or draws noise: from a
        key of its own, which would be the same for every task.
    """
    name, builder, arguments = _named(text)
    try:
        parameters = inspect.signature(builder).parameters
        if differentiated:
            roots = [n for n, p in parameters.items() if n.endswith("eps_root") and p.default == 0]
            arguments = dict.fromkeys(roots, EPS_ROOT) | arguments
        if "learning_rate" in parameters:
            arguments = {"learning_rate": learning_rate} | arguments
        transformation: Any = builder(**arguments)
        if "learning_rate" not in parameters:
            # Optax's `scaling` is of the gradient whose square Polyak's step is divided by.
            scale = optax.scale_by_learning_rate(
                learning_rate, flip_sign="scaling" not in parameters
            )
            transformation = optax.chain(transformation, scale)
        state, _ = jax.eval_shape(lambda: _steps(transformation, with_loss=with_loss))
    except Exception as error:  # whatever a function that is no such transformation may raise
        reason = " ".join(str(error).split()) or type(error).__name__
        missing = re.search(r"missing \d+ required .*arguments?: (.*)", reason)
        if missing:
            reason = f"{missing[1]} would be missing"
        enough = "gradients and the loss" if with_loss else "gradients"
        raise OptaxNameError(f"optax.{name} does not take {enough} alone: {reason}") from error
    if any(leaf.dtype == jnp.uint32 or _is_key(leaf.dtype) for leaf in jax.tree.leaves(state)):
        raise OptaxNameError(f"optax.{name} draws noise, the same for every task")
    return transformation


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _steps(
    transformation: optax.GradientTransformation, *, with_loss: bool
) -> tuple[Any, optax.Updates]:
    """State and updates of three steps, in a scan, whose carry may not change shapes or types."""
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    loss = {"value": _LOSS} if with_loss else {}
    update = optax.with_extra_args_support(transformation).update

    def step(state: Any, _: None) -> tuple[Any, optax.Updates]:
        updates, state = update(params, state, params, **loss)
        optax.apply_updates(params, updates)  # they must be of the weights' shapes
        return state, updates

    return jax.lax.scan(step, transformation.init(params), length=3)


def complaint(text: str) -> str | None:
    """Why ``text`` cannot be the name of a transformation, if that shows without trying it.

    Options are checked before JAX is told of its devices, and so without JAX.
    """
    try:
        _named(text)
    except OptaxNameError as error:
        return str(error)
    return None


@functools.cache
def moves(text: str) -> bool:
    """Whether the transformation's steps are not all zero."""
    with jax.ensure_compile_time_eval():  # learners are also built within traces
        _, updates = _steps(optax_transformation(text, 0.1, with_loss=True), with_loss=True)
        return any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(updates))


@functools.cache
def needs_loss(text: str) -> bool:
    """Whether it can be used with the loss, and not without, as Polyak's step size."""

    def usable(*, with_loss: bool) -> bool:
        try:
            optax_transformation(text, 0.1, with_loss=with_loss)
        except OptaxNameError:
            return False
        return True

    return not usable(with_loss=False) and usable(with_loss=True)


@functools.cache
def has_usable_derivative(text: str) -> bool:
    """Whether the first steps have finite derivatives, and in the gradients one that is not zero.

    Steps of a fixed length have one that is zero almost everywhere; steps in units of a norm, one
    that is infinite where the norm is zero, as it is behind dead ReLUs.
    """
    with jax.ensure_compile_time_eval():  # learners are also built within traces
        transformation = optax_transformation(text, 0.1, differentiated=True, with_loss=True)
        return _has_usable_derivative(transformation)


def _has_usable_derivative(transformation: optax.GradientTransformation) -> bool:
    update = optax.with_extra_args_support(transformation).update

    def end(gradient: jax.Array, params: Any, change: float) -> Any:
        state = transformation.init(params)
        for step in range(6):
            updates, state = update(gradient + change * step, state, params, value=_LOSS)
            params = optax.apply_updates(params, updates)
        return params

    derivatives = jax.jacobian(end, argnums=(0, 1))
    at = [
        jnp.stack(derivatives(jnp.array(gradient), jnp.array(params), change))
        for gradient, params, change in (
            ([0.0, 0.0], [0.0, 0.0], 0.0),
            ([0.0, 0.0], [1.0, 1.0], 0.0),
            ([0.0, 1.0], [0.0, 1.0], 0.0),
            ([1.0, 2.0], [1.0, 1.0], 0.3),  # Adam's steps do not depend on a constant one's length
        )
    ]
    return bool(jnp.all(jnp.isfinite(jnp.stack(at))) and jnp.any(at[-1][0] != 0))
