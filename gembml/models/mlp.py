"""The regression network of the MAML family."""

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Fully connected layers with ReLU between them: ``[..., features]`` -> ``[..., outputs]``."""

    hidden: tuple[int, ...] = (40, 40)
    outputs: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The outputs for a batch of inputs."""
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.he_normal())(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.he_normal())(x)
