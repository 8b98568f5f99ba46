"""The Gaussian policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.models.policy import ACTIVATIONS, GaussianPolicy
from gembml.options import OptionError

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (5, 3))


def test_maml_s_network_has_two_hidden_layers_of_100_units():
    params = GaussianPolicy(2).init(KEY, jnp.zeros(3))["params"]
    kernels = sorted(layer["kernel"].shape for name, layer in params.items() if name != "log_std")
    assert kernels == [(3, 100), (100, 2), (100, 100)]
    assert params["head"]["bias"].shape == (2,)


def test_the_standard_deviation_is_1_at_the_start_and_the_same_everywhere():
    policy = GaussianPolicy(2)
    mean, log_std = policy.apply(policy.init(KEY, X), X)
    assert mean.shape == (5, 2)
    np.testing.assert_array_equal(log_std, np.zeros(2))


def test_the_standard_deviation_starts_where_it_is_told_to():
    policy = GaussianPolicy(2, hidden=(), init_std=0.5)
    _, log_std = policy.apply(policy.init(KEY, X), X)
    np.testing.assert_allclose(jnp.exp(log_std), [0.5, 0.5], rtol=1e-6)


def test_observations_have_any_leading_axes():
    policy = GaussianPolicy(2, hidden=(4,))
    variables = policy.init(KEY, X)
    mean, log_std = policy.apply(variables, jnp.stack([X, 2 * X]))
    assert mean.shape == (2, 5, 2)
    assert log_std.shape == (2,)
    np.testing.assert_allclose(mean[0, 3], policy.apply(variables, X[3])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_means_are_layers_by_hand(activation):
    policy = GaussianPolicy(2, hidden=(6, 5), activation=activation)
    variables = policy.init(KEY, X)
    params = variables["params"]
    hidden = np.asarray(X)
    for name in ("Dense_0", "Dense_1"):
        before = hidden @ params[name]["kernel"] + params[name]["bias"]
        hidden = {"relu": np.maximum(0, before), "tanh": np.tanh(before)}[activation]
    expected = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(policy.apply(variables, X)[0], expected, rtol=1e-5, atol=1e-6)


def with_log_std(policy: GaussianPolicy, *values: float):
    params = policy.init(KEY, X)["params"] | {"log_std": jnp.array(values)}
    return policy.apply({"params": params}, X)[1]


def test_the_standard_deviation_is_a_parameter_of_its_own():
    np.testing.assert_allclose(with_log_std(GaussianPolicy(2), -20.0, 0.5), [-20, 0.5])


def test_the_standard_deviation_is_never_below_its_floor():
    log_std = with_log_std(GaussianPolicy(2, min_std=0.1), -20.0, 0.5)
    np.testing.assert_allclose(jnp.exp(log_std), [0.1, np.exp(0.5)], rtol=1e-6)


def test_a_start_below_the_floor_is_refused_in_one_sentence():
    sentence = "must not start below its minimum, .* and 0.05 is below 0.1\\.$"
    with pytest.raises(OptionError, match=sentence):
        GaussianPolicy(2, init_std=0.05, min_std=0.1)
    GaussianPolicy(2, init_std=0.1, min_std=0.1)


def test_gradients_reach_every_weight_and_the_log_std():
    policy = GaussianPolicy(2, hidden=(4,), activation="tanh", min_std=0.1)

    def total(variables):
        mean, log_std = policy.apply(variables, X)
        return jnp.sum(mean**2) + jnp.sum(log_std)

    gradient = jax.grad(total)(policy.init(KEY, X))
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradient))
