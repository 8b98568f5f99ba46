"""Sinusoid regression: y = A sin(w x + b) + noise (Section 5.1 of the paper)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Key
from gembml.problem import Points, SupervisedTask

INPUT_RANGE = (-5.0, 5.0)


class Setting(NamedTuple):
    """A distribution of sinusoids: uniform ranges, and the noise's std relative to A."""

    amplitude: tuple[float, float]
    phase: tuple[float, float]
    frequency: tuple[float, float]
    relative_noise: float


SETTINGS: dict[str, Setting] = {
    # Finn et al. 2017, Section 5.1.
    "default": Setting((0.1, 5.0), (0.0, jnp.pi), (1.0, 1.0), 0.0),
    # Yoon et al. 2018; Section 5.1 of the paper.
    "challenging": Setting((0.1, 5.0), (0.0, 2 * jnp.pi), (0.5, 2.0), 0.01),
    # Appendix C.2: "the noise parameter A = 0 and w in [0.5, 1.0]".
    "appendix_c2": Setting((0.1, 5.0), (0.0, 2 * jnp.pi), (0.5, 1.0), 0.0),
}


class Sinusoid(NamedTuple):
    """One task's parameters, scalars."""

    amplitude: jax.Array
    phase: jax.Array
    frequency: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """A sin(w x + b), of the shape of ``x``."""
        return self.amplitude * jnp.sin(self.frequency * x + self.phase)


class HeldOutTask(NamedTuple):
    """A task to evaluate on: data to adapt to, and held-out points."""

    sinusoid: Sinusoid
    support: Points
    held_out: Points
    """Noisy, as the support: what a predictive density is judged by. ``[points, 1]``."""
    clean: jax.Array
    """The sinusoid at the held-out inputs: what the error is measured to. ``[points, 1]``."""


def sample_sinusoid(key: Key, setting: Setting) -> Sinusoid:
    """Amplitude, phase and frequency, each uniform in the setting's range."""
    keys = jax.random.split(key, 3)
    ranges = (setting.amplitude, setting.phase, setting.frequency)
    return Sinusoid(
        *(
            jax.random.uniform(k, minval=low, maxval=high)
            for k, (low, high) in zip(keys, ranges, strict=True)
        )
    )


def sample_points(key: Key, sinusoid: Sinusoid, setting: Setting, num_points: int) -> Points:
    """Inputs uniform in [-5, 5] and noisy outputs, both ``[num_points, 1]``."""
    x_key, noise_key = jax.random.split(key)
    x = jax.random.uniform(x_key, (num_points, 1), minval=INPUT_RANGE[0], maxval=INPUT_RANGE[1])
    y = sinusoid(x)
    if setting.relative_noise:
        noise_std = setting.relative_noise * sinusoid.amplitude
        y = y + noise_std * jax.random.normal(noise_key, y.shape)
    return Points(x, y)


def sample_task(key: Key, setting: Setting, shots: int, queries: int) -> SupervisedTask:
    """One task for meta-training: ``shots`` support and ``queries`` query points."""
    task_key, points_key = jax.random.split(key)
    sinusoid = sample_sinusoid(task_key, setting)
    points = sample_points(points_key, sinusoid, setting, shots + queries)
    return SupervisedTask(
        jax.tree.map(lambda a: a[:shots], points), jax.tree.map(lambda a: a[shots:], points)
    )


def sample_held_out_task(key: Key, setting: Setting, shots: int, num_points: int) -> HeldOutTask:
    """One task for validation or test: ``shots`` support and ``num_points`` held-out points."""
    task_key, points_key = jax.random.split(key)
    sinusoid = sample_sinusoid(task_key, setting)
    points = sample_points(points_key, sinusoid, setting, shots + num_points)
    held_out = jax.tree.map(lambda a: a[shots:], points)
    return HeldOutTask(
        sinusoid, jax.tree.map(lambda a: a[:shots], points), held_out, sinusoid(held_out.x)
    )
