"""Typed options with their allowed values, and the error that names both."""

import dataclasses
import math
import numbers
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


class OptionError(ValueError):
    """A choice that cannot be carried out; the message is one sentence that says what is allowed"""


class Named(NamedTuple):
    """What an option takes beside its choices: any text that names a thing of some kind."""

    words: str
    """What texts are taken, to be read after the choices."""
    complaint: Callable[[str], str | None]
    """Why a text is not taken, or None."""


def option(
    default: Any,
    description: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    named: Named | None = None,
    only: tuple[tuple[str, str], ...] = (),
) -> Any:
    """A dataclass field with a description and a range: [least, most], (above, most] or choices.

    ``named``: what is taken beside ``choices``.

    ``only``, pairs (name, values), says that the option has an effect only with these choices:
    "X", one of "X, Y or Z", or "not X" for any other than X. What stands in brackets behind a
    choice, as in "adam(b1=0.5)", does not count.
    """
    metadata = {
        "description": description,
        "least": least,
        "above": above,
        "most": most,
        "choices": choices,
        "named": named,
        "only": only,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuse a ``value`` that is none of ``choices``.

    Raises:
      OptionError: so it is.
    """
    if value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, not {value}.")


def allowed(field: dataclasses.Field) -> str:
    """What values a field takes, in words."""
    m = field.metadata
    if m.get("choices"):
        if m.get("named"):
            return ", ".join(m["choices"]) + " or " + m["named"].words
        return "one of " + ", ".join(m["choices"])
    bounds = []
    if m.get("least") is not None:
        bounds.append(f"at least {m['least']}")
    if m.get("above") is not None:
        bounds.append(f"above {m['above']}")
    if m.get("most") is not None:
        bounds.append(f"at most {m['most']}")
    return " and ".join(bounds) or f"any {getattr(field.type, '__name__', field.type)}"


def has_effect(field: dataclasses.Field, choices: dict[str, Any]) -> str | None:
    """None if the option has an effect under these choices, else the choice that it needs."""
    for name, values in field.metadata["only"]:
        chosen = str(choices[name]).split("(")[0]
        listed = chosen in re.split(r", | or ", values.removeprefix("not "))
        if listed == values.startswith("not "):
            return f"{name} {values}, and here it is {choices[name]}"
    return None


def concrete(value: Any) -> bool:
    """Whether a number can be compared now; a traced one is known only when its program runs."""
    return not isinstance(value, Tracer)


def positive(number: Any) -> bool:
    """Whether an option of which 0 means none is set; a traced one is one of several, none 0."""
    return not concrete(number) or number > 0


_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def _of_kind(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type; a scalar array is the number that it holds."""
    if kind is float and isinstance(value, (jax.Array, np.ndarray)):
        real = any(jnp.issubdtype(value.dtype, dtype) for dtype in (jnp.floating, jnp.integer))
        return value.ndim == 0 and real
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind) if kind in _KINDS else True


def check(config: Any) -> None:
    """Raise :class:`OptionError` if a field of the dataclass lies outside its allowed values."""
    for field in dataclasses.fields(config):
        value, m = getattr(config, field.name), field.metadata
        if not concrete(value):
            continue
        if not _of_kind(value, field.type):
            kind = _KINDS[field.type]  # type: ignore[index]
            raise OptionError(f"config.{field.name} must be {kind}, not {value!r}.")
        reason = ""
        if m.get("choices"):
            ok = value in m["choices"]
            if not ok and m.get("named"):
                complaint = m["named"].complaint(value)
                ok, reason = complaint is None, f": {complaint}"
        else:
            ok = (
                (m.get("least") is None or value >= m["least"])
                and (m.get("above") is None or value > m["above"])
                and (m.get("most") is None or value <= m["most"])
                and (field.type is not float or math.isfinite(value))
            )
        if not ok:
            raise OptionError(f"config.{field.name} must be {allowed(field)}, not {value}{reason}.")
