"""The regression network."""

import jax
import jax.numpy as jnp
import numpy as np

from gembml.models import MLP


def test_the_paper_s_network_has_two_hidden_layers_of_40_units():
    params = MLP().init(jax.random.key(0), jnp.zeros((1, 1)))["params"]
    shapes = sorted(layer["kernel"].shape for layer in params.values())
    assert shapes == [(1, 40), (40, 1), (40, 40)]


def test_outputs_are_relu_layers_by_hand():
    network = MLP((3,), outputs=2)
    x = jnp.linspace(-1, 1, 4)[:, None]
    variables = network.init(jax.random.key(0), x)
    first, last = (variables["params"][name] for name in sorted(variables["params"]))
    hidden = np.maximum(0, x @ first["kernel"] + first["bias"])
    expected = hidden @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(network.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_without_hidden_layers_it_is_linear():
    x = jnp.linspace(-1, 1, 5)[:, None]
    network = MLP(())
    y = network.apply(network.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(np.diff(y, 2, axis=0), 0, atol=1e-6)
