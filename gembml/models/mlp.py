"""The regression network of the MAML family, with plain and with Gaussian weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gembml.base import Key
from gembml.gaussian import Gaussian


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: ``[..., features]`` -> ``[..., outputs]``."""

    hidden: tuple[int, ...] = (40, 40)
    outputs: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs for a batch of inputs."""
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


def local_reparameterization(key: Key, weights: Gaussian, x: jax.Array) -> jax.Array:
    """Outputs of an :class:`MLP` with Gaussian weights, sampled layer by layer.

    A dense layer's outputs a = W x + b under independent Gaussian weights are Gaussian themselves,
    with mean E[W] x + E[b] and variance Var[W] x^2 + Var[b]; sampling them for each data point
    instead of W for all (Kingma, Salimans & Welling 2015) has the same expectation of any sum over
    data points, less variance, and fewer random numbers.

    Args:
      key: random key.
      weights: a Gaussian over the network's variables, as ``MLP.init`` returns them.
      x: inputs, ``[K, features]``.

    Returns:
      One sample of the outputs, ``[K, outputs]``, independent between data points.
    """
    means, log_stds = weights.mean["params"], weights.log_std["params"]
    variances = jax.tree.map(
        lambda mean, log_std: jnp.broadcast_to(jnp.exp(2 * log_std), mean.shape), means, log_stds
    )
    layers = [f"Dense_{i}" for i in range(len(means))]
    widths = [means[layer]["bias"].shape[0] for layer in layers]
    # One draw for all layers: on a CPU a draw's cost is mostly its start.
    noise = jax.random.normal(key, (*x.shape[:-1], sum(widths)), x.dtype)
    drawn = 0
    for layer, width in zip(layers, widths, strict=True):
        if drawn:
            x = nn.relu(x)
        mean = x @ means[layer]["kernel"] + means[layer]["bias"]
        variance = jnp.square(x) @ variances[layer]["kernel"] + variances[layer]["bias"]
        x = mean + jnp.sqrt(variance) * noise[..., drawn : drawn + width]
        drawn += width
    return x
