"""Gaussian policies of the MAML family."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from gembml.options import OptionError, check_choice

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": nn.relu, "tanh": nn.tanh}


class GaussianPolicy(nn.Module):
    """N(mean(observation), exp(log_std)^2) over actions, log_std a parameter of its own.

    Finn et al. 2017, Section 5.3: two hidden layers of 100 ReLU units; the standard deviation does
    not depend on the observation, is ``init_std`` at the start, and never below ``min_std``.

    Raises:
      OptionError: for a start below ``min_std``, where no gradient would reach log_std, or an
        activation that is not in :data:`ACTIVATIONS`.
    """

    action_size: int
    hidden: tuple[int, ...] = (100, 100)
    activation: str = "relu"
    init_std: float = 1.0
    min_std: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("activation", self.activation, ACTIVATIONS)
        if self.init_std < self.min_std:
            raise OptionError(
                "a policy's standard deviation must not start below its minimum, where it could "
                f"not be learned, and {self.init_std} is below {self.min_std}."
            )

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Means ``[..., action_size]`` at observations ``[..., o]``; log_std ``[action_size]``."""
        x = observations
        for width in self.hidden:
            x = ACTIVATIONS[self.activation](nn.Dense(width)(x))
        mean = nn.Dense(self.action_size, name="head")(x)
        log_std = self.param(
            "log_std", nn.initializers.constant(math.log(self.init_std)), (self.action_size,)
        )
        if self.min_std:
            log_std = jnp.maximum(log_std, math.log(self.min_std))
        return mean, jnp.asarray(log_std)
