"""Typed options and their refusals."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gembml import LearnerConfig, OptionError
from gembml.options import allowed, check, option


@dataclasses.dataclass(frozen=True)
class Config:
    closed: int = option(2, "from 1 to 3", least=1, most=3)
    opened: float = option(0.5, "above 0", above=0.0)
    choice: str = option("a", "a or b", choices=("a", "b"))
    free: float = option(0.0, "anything")
    switch: bool = option(False, "on or off")

    def __post_init__(self) -> None:
        check(self)


@given(st.integers())
def test_a_number_is_taken_if_and_only_if_it_lies_in_the_range(value):
    if 1 <= value <= 3:
        assert Config(closed=value).closed == value
    else:
        with pytest.raises(OptionError, match=f"at least 1 and at most 3, not {value}"):
            Config(closed=value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("opened", 0.0, "config.opened must be above 0.0, not 0.0."),
        ("opened", math.nan, "config.opened must be above 0.0, not nan."),
        ("free", math.nan, "config.free must be any float, not nan."),
        ("choice", "c", "config.choice must be one of a, b, not c."),
        ("choice", 1, "config.choice must be text, not 1."),
        ("closed", 2.0, "config.closed must be a whole number, not 2.0."),
        ("closed", True, "config.closed must be a whole number, not True."),
        ("opened", "0.1", "config.opened must be a number, not '0.1'."),
        ("opened", np.ones(2), "config.opened must be a number, not array([1., 1.])."),
        (
            "opened",
            jnp.ones((), complex),
            "config.opened must be a number, not Array(1.+0.j, dtype=complex64).",
        ),
        ("switch", "no", "config.switch must be True or False, not 'no'."),
    ],
)
def test_the_refusal_names_the_option_and_what_is_allowed(field, value, message):
    with pytest.raises(OptionError) as error:
        Config(**{field: value})
    assert str(error.value) == message


@pytest.mark.parametrize("number", [1, np.float32(1), np.ones(()), jnp.ones((), jnp.bfloat16)])
def test_a_number_is_one_whatever_holds_it(number):
    assert Config(opened=number).opened == 1


def test_allowed_describes_every_option_of_a_learner():
    for field in dataclasses.fields(LearnerConfig):
        assert allowed(field)
        assert field.metadata["description"]


@pytest.mark.parametrize(
    "field",
    [f for f in dataclasses.fields(LearnerConfig) if f.metadata["choices"]],
    ids=lambda f: f.name,
)
def test_every_choice_is_checked_when_the_config_is_built(field):
    with pytest.raises(OptionError, match=f"config.{field.name} must be .*, not nonsense"):
        LearnerConfig(**{field.name: "nonsense"})


@pytest.mark.parametrize(
    "field",
    [f for f in dataclasses.fields(LearnerConfig) if f.type is float],
    ids=lambda f: f.name,
)
def test_nan_is_refused(field):
    with pytest.raises(OptionError, match=f"config.{field.name} must be .*, not nan"):
        LearnerConfig(**{field.name: math.nan})
