"""Discounted returns and advantages of whole episodes."""

import jax
import jax.numpy as jnp


def discounted_sums(values: jax.Array, discount: float | jax.Array) -> jax.Array:
    """sum_{k >= 0} discount^k values[..., t + k] for every t, ``[..., H]``.

    As one product with an H x H triangle: for horizons of some hundred steps faster than a scan
    whose steps each do next to nothing.
    """
    steps = jnp.arange(values.shape[-1])
    ahead = steps[:, None] - steps[None, :]
    triangle = jnp.where(ahead >= 0, jnp.asarray(discount) ** jnp.maximum(ahead, 0), 0.0)
    # Some GPUs round the factors of products to 10 bits unless told not to.
    return jnp.matmul(values, triangle.astype(values.dtype), precision="highest")


def generalized_advantages(
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    discount: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al. 2016, equation (16)), ``[..., H]``:

        A_t = sum_k (discount gae_lambda)^k delta_{t + k},
        delta_t = r_t + discount V(s_{t+1}) - V(s_t),

    with V = 0 after an episode's end and after the horizon. ``gae_lambda`` 1 gives the discounted
    return minus the baseline.

    Args:
      rewards: ``[..., H]``.
      values: the baseline V(s_t), ``[..., H]``.
      mask: 1 while the episode runs, ``[..., H]``.
      discount: gamma, in [0, 1].
      gae_lambda: lambda, in [0, 1].
    """
    values = values * mask
    following = jnp.concatenate([values[..., 1:], jnp.zeros_like(values[..., :1])], axis=-1)
    delta = (rewards + discount * following - values) * mask
    return discounted_sums(delta, discount * gae_lambda) * mask


def standard_deviation(advantages: jax.Array, mask: jax.Array) -> jax.Array:
    """Of all advantages that are not masked, plus 1e-8; a scalar."""
    count = jnp.maximum(jnp.sum(mask), 1.0)
    centred = (advantages - jnp.sum(advantages * mask) / count) * mask
    return jnp.sqrt(jnp.sum(centred**2) / count) + 1e-8


def standardized(advantages: jax.Array, mask: jax.Array) -> jax.Array:
    """Advantages of mean 0 and standard deviation 1 over all that is not masked; masked ones 0."""
    mean = jnp.sum(advantages * mask) / jnp.maximum(jnp.sum(mask), 1.0)
    return (advantages - mean) * mask / standard_deviation(advantages, mask)
