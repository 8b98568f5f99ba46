"""The four-layer convolutional network of the MAML family, with plain and with Gaussian weights."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gembml.base import Key, Params
from gembml.gaussian import Gaussian, perturb, standard_normal_like
from gembml.models.convolution import convolve, matrix_product
from gembml.models.normalisation import normalise
from gembml.options import OptionError, check_choice

HEADS = ("mean", "flatten")
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": nn.relu, "silu": nn.silu}

Affine = Callable[[str, jax.Array, Callable[[jax.Array, jax.Array], jax.Array]], jax.Array]
"""``(layer, x, product)`` -> the layer's product of ``x`` with its kernel, plus its bias, where
``product(x, kernel)`` is linear in the kernel."""


class CNN(nn.Module):
    """Blocks of convolution, normalisation and activation, then a linear head.

    ``x [n, H, W, C]`` -> logits ``[n, outputs]``. With ``pooling`` the convolutions have stride 1
    and a 2 x 2 maximum follows each (miniImageNet in Finn et al. 2017), else they have stride 2
    (Omniglot). ``head`` sees the mean over positions, or all of them (one of :data:`HEADS`).
    ``activation`` is one of :data:`ACTIVATIONS`; the MAML family has ReLUs.

    Raises:
      OptionError: when it is called, if there is no such head, activation, normalisation, form or
        precision, or if poolings leave nothing of the images.
    """

    outputs: int
    filters: int = 64
    layers: int = 4
    pooling: bool = False
    head: str = "mean"
    activation: str = "relu"
    normalisation: str = "transductive"
    form: str = "im2col"
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, reference: jax.Array | None = None) -> jax.Array:
        """Logits for ``x``; ``reference`` are the images whose statistics mode ``support`` uses."""
        check_choice("head", self.head, HEADS)
        check_choice("activation", self.activation, ACTIVATIONS)
        params = {}
        kernels = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=(1, 2, 3), out_axis=0
        )
        channels, height, width = x.shape[3], x.shape[1], x.shape[2]
        for i in range(self.layers):
            params[f"conv_{i}"] = self._layer(f"conv_{i}", kernels, (self.filters, 3, 3, channels))
            params[f"norm_{i}"] = self.param(
                f"norm_{i}",
                lambda key, n: {"scale": jnp.ones(n), "bias": jnp.zeros(n)},
                self.filters,
            )
            channels = self.filters
            height, width = (
                (height // 2, width // 2) if self.pooling else (-(-height // 2), -(-width // 2))
            )
        if min(height, width) < 1:
            raise OptionError(
                f"{self.layers} poolings leave nothing of an image of {x.shape[1]} x {x.shape[2]}: "
                "take larger images or fewer layers."
            )
        features = channels * (height * width if self.head == "flatten" else 1)
        dense = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=1, out_axis=0)
        params["head"] = self._layer("head", dense, (self.outputs, features))

        def affine(layer: str, x: jax.Array, product: Callable) -> jax.Array:
            return product(x, params[layer]["kernel"]) + params[layer]["bias"]

        return self.forward(params, affine, x, reference)

    def _layer(self, name: str, kernels: Callable, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        return self.param(
            name, lambda key: {"kernel": kernels(key, shape), "bias": jnp.zeros(shape[0])}
        )

    def forward(
        self, params: Params, affine: Affine, x: jax.Array, reference: jax.Array | None
    ) -> jax.Array:
        """The network, given what a layer does with its weights; ``params`` has the others."""
        num_reference = 0
        if reference is not None and self.normalisation == "support":
            num_reference = len(reference)
            x = jnp.concatenate([reference, x])

        def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
            stride = 1 if self.pooling else 2
            return convolve(x, kernel, stride=stride, form=self.form, precision=self.precision)

        for i in range(self.layers):
            x = affine(f"conv_{i}", x, convolution)
            norm = params[f"norm_{i}"]
            x = normalise(
                x,
                norm["scale"],
                norm["bias"],
                mode=self.normalisation,
                num_reference=num_reference,
            )
            x = ACTIVATIONS[self.activation](x)
            if self.pooling:
                x = _max_pool(x)
        x = x[num_reference:]
        x = x.reshape(len(x), -1) if self.head == "flatten" else jnp.mean(x, axis=(1, 2))
        return affine("head", x, lambda x, kernel: matrix_product(x, kernel, self.precision))


def _max_pool(x: jax.Array) -> jax.Array:
    """The maximum of each 2 x 2 square; a last odd row or column is left out.

    By selections: the gradient of ``jnp.max`` asks which entries equal the maximum, and where XLA
    computes them a second time with other rounding none does, which gives 0 / 0.
    """
    n, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    x = x[:, : 2 * rows, : 2 * columns].reshape(n, rows, 2, columns, 2, channels)
    upper, lower = x[:, :, 0], x[:, :, 1]
    x = jnp.where(upper >= lower, upper, lower)
    left, right = x[:, :, :, 0], x[:, :, :, 1]
    return jnp.where(left >= right, left, right)


def local_reparameterization(
    network: CNN, key: Key, weights: Gaussian, x: jax.Array, reference: jax.Array | None = None
) -> jax.Array:
    """Logits of ``network`` with Gaussian weights, each layer's outputs sampled.

    Kingma, Salimans & Welling 2015: a layer's outputs have mean E[W] x + E[b] and variance
    Var[W] x^2 + Var[b]; neighbours in one feature map share weights, and are sampled as if they did
    not. Normalisation's weights are drawn once for all images. Layers that are points add no noise.
    """

    def noisy(layer: str, x: jax.Array, product: Callable, means: Any, log_stds: Any, key: Key):
        mean = product(x, means[layer]["kernel"]) + means[layer]["bias"]
        if log_stds[layer]["kernel"] is None:
            return mean
        std = jax.tree.map(
            lambda m, ls: jnp.broadcast_to(jnp.exp(ls), m.shape), means[layer], log_stds[layer]
        )
        variance = product(jnp.square(x), jnp.square(std["kernel"])) + jnp.square(std["bias"])
        # Low-precision products may leave a variance of exactly 0 where the square root has no
        # derivative.
        return mean + jnp.sqrt(variance + 1e-12) * jax.random.normal(key, mean.shape)

    return _with_noise(network, key, weights, x, reference, noisy)


def flipout(
    network: CNN, key: Key, weights: Gaussian, x: jax.Array, reference: jax.Array | None = None
) -> jax.Array:
    """Logits of ``network`` with weights m + s e whose noise each image sees with other signs.

    Wen et al. 2018: image i's noise is (s e) o (r_i q_i^T), entry by entry, with random signs q_i
    of a layer's inputs and r_i of its outputs (a bias's: s e o r_i), so that images have nearly
    independent samples for two products per layer.
    Normalisation's weights are drawn once for all images.
    """

    def noisy(layer: str, x: jax.Array, product: Callable, means: Any, log_stds: Any, key: Key):
        mean = product(x, means[layer]["kernel"]) + means[layer]["bias"]
        if log_stds[layer]["kernel"] is None:
            return mean
        noise_key, in_key, out_key = jax.random.split(key, 3)
        centred = Gaussian(jax.tree.map(jnp.zeros_like, means[layer]), log_stds[layer])
        noise = perturb(centred, standard_normal_like(noise_key, means[layer]))
        ones = (1,) * (x.ndim - 2)
        signs_in = jax.random.rademacher(in_key, (len(x), *ones, x.shape[-1]), x.dtype)
        signs_out = jax.random.rademacher(out_key, (len(x), *ones, mean.shape[-1]), x.dtype)
        return mean + signs_out * (product(signs_in * x, noise["kernel"]) + noise["bias"])

    return _with_noise(network, key, weights, x, reference, noisy)


def _with_noise(
    network: CNN,
    key: Key,
    weights: Gaussian,
    x: jax.Array,
    reference: jax.Array | None,
    noisy: Callable,
) -> jax.Array:
    """``network.forward`` with ``noisy`` layers and one draw of everything else."""
    draw_key, layers_key = jax.random.split(key)
    means, log_stds = weights.mean["params"], weights.log_std["params"]
    norms = {name: means[name] for name in means if name.startswith("norm_")}
    drawn = perturb(
        Gaussian(norms, {name: log_stds[name] for name in norms}),
        standard_normal_like(draw_key, norms),
    )
    keys = dict(zip(sorted(means), jax.random.split(layers_key, len(means)), strict=True))

    def affine(layer: str, x: jax.Array, product: Callable) -> jax.Array:
        return noisy(layer, x, product, means, log_stds, keys[layer])

    return network.forward(drawn, affine, x, reference)
