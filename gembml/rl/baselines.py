"""Baselines V(s_t) that are fitted to one task's episodes in closed form."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Baseline = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""``(observations [N, H, o], returns to come [N, H], mask [N, H])`` -> values ``[N, H]``."""


def no_baseline(observations: jax.Array, returns: jax.Array, mask: jax.Array) -> jax.Array:
    """V = 0."""
    del observations, mask
    return jnp.zeros_like(returns)


def linear_features(observations: jax.Array) -> jax.Array:
    """(o, o^2, t, t^2, t^3, 1) of Duan et al. 2016, ``[N, H, 2 o + 4]``.

    Observations are clipped to [-10, 10]. The powers of time are Legendre polynomials on [-1, 1]:
    they span the same functions, and normal equations of plain powers lose single precision.
    """
    rollouts, horizon, _ = observations.shape
    clipped = jnp.clip(observations, -10.0, 10.0)
    t = jnp.linspace(-1.0, 1.0, horizon)
    time = jnp.stack([t, 1.5 * t**2 - 0.5, 2.5 * t**3 - 1.5 * t, jnp.ones_like(t)], axis=-1)
    time = jnp.broadcast_to(time, (rollouts, *time.shape))
    return jnp.concatenate([clipped, clipped**2, time], axis=-1)


_RIDGE = 1e-5


def linear_baseline(observations: jax.Array, returns: jax.Array, mask: jax.Array) -> jax.Array:
    """The ridge regression of the returns on :func:`linear_features`, evaluated at its own data.

    Ridge 1e-5, as in MAML's code, here for features scaled to a mean square of 1.
    """
    features = linear_features(observations) * mask[..., None]
    count = jnp.maximum(jnp.sum(mask), 1.0)
    size = jnp.sqrt(jnp.sum(features**2, axis=(0, 1)) / count)
    features = features / jnp.maximum(size, 1e-6)
    flat = features.reshape(-1, features.shape[-1])
    # Some GPUs round the factors of products to 10 bits unless told not to.
    with jax.default_matmul_precision("highest"):
        gram = flat.T @ flat / count + _RIDGE * jnp.eye(flat.shape[-1])
        moment = flat.T @ (returns * mask).reshape(-1) / count
        return features @ jax.scipy.linalg.solve(gram, moment, assume_a="pos")


BASELINES: dict[str, Baseline] = {"linear": linear_baseline, "none": no_baseline}
