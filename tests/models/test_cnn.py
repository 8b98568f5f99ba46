"""The four-layer network: its shapes, what a prediction depends on, and its weight noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import Gaussian, OptionError, gaussian
from gembml.models import CNN
from gembml.models.cnn import flipout, local_reparameterization

NOISY = {"flipout": flipout, "local": local_reparameterization}
DRAWS = 2_000
X = jax.random.uniform(jax.random.key(0), (3, 4, 4, 2))


def shapes(network: CNN, *image: int):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image)))["params"]


def test_omniglot_s_network_ends_with_2_x_2_positions_and_has_maml_s_weights():
    params = shapes(CNN(5, head="flatten"), 28, 28, 1)
    assert params["head"]["kernel"].shape == (5, 64 * 2 * 2)
    mean = shapes(CNN(5), 28, 28, 1)
    assert mean["head"]["kernel"].shape == (5, 64)
    # 10 x 64 + 3 x (9 x 64 + 1) x 64 + 8 x 64 below the head of 65 x 5.
    assert sum(leaf.size for leaf in jax.tree.leaves(mean)) == 111_936 + 325


def test_mini_imagenet_s_network_ends_with_5_x_5_positions():
    network = CNN(5, filters=32, pooling=True, head="flatten")
    assert shapes(network, 84, 84, 3)["head"]["kernel"].shape == (5, 32 * 5 * 5)


@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("head", ["mean", "flatten"])
def test_odd_images_have_logits_of_their_own(pooling, head):
    network = CNN(4, filters=2, layers=2, pooling=pooling, head=head, normalisation="layer")
    x = jax.random.uniform(jax.random.key(1), (3, 7, 6, 1))
    params = network.init(jax.random.key(0), x)
    logits = network.apply(params, x)
    assert logits.shape == (3, 4)
    np.testing.assert_allclose(logits[1:], network.apply(params, x[1:]), rtol=1e-5, atol=1e-6)


def test_an_image_that_poolings_use_up_is_refused():
    with pytest.raises(OptionError, match=r"3 poolings leave nothing of an image of 7 x 9"):
        shapes(CNN(2, layers=3, pooling=True), 7, 9, 1)


@pytest.mark.parametrize(
    "choice",
    [
        {"head": "flat"},
        {"activation": "step"},
        {"normalisation": "suport"},
        {"form": "winograd"},
        {"precision": "float8"},
    ],
)
def test_a_choice_that_does_not_exist_is_refused(choice):
    with pytest.raises(OptionError, match=rf"must be one of .*, not {next(iter(choice.values()))}"):
        shapes(CNN(2, **choice), 28, 28, 1)


def test_with_the_support_s_statistics_a_query_does_not_depend_on_the_others():
    support, query = jnp.split(jax.random.uniform(jax.random.key(2), (8, 6, 6, 1)), 2)
    strict = CNN(3, filters=3, layers=2, normalisation="support")
    params = strict.init(jax.random.key(0), support)
    together = strict.apply(params, query, support)
    np.testing.assert_allclose(
        strict.apply(params, query[:1], support), together[:1], rtol=1e-5, atol=1e-6
    )
    # Without a reference the statistics are those of the images themselves: adapting's support.
    transductive = strict.clone(normalisation="transductive")
    np.testing.assert_allclose(
        strict.apply(params, support), transductive.apply(params, support), rtol=1e-6
    )
    alone = transductive.apply(params, query[:1], support)
    assert np.abs(alone - transductive.apply(params, query, support)[:1]).max() > 1e-3


def linear(log_std: float) -> tuple[CNN, Gaussian]:
    """A network with a bias so large that no ReLU cuts: logits are linear in each layer."""
    network = CNN(2, filters=3, layers=1, normalisation="none")
    params = network.init(jax.random.key(1), X)["params"]
    params["norm_0"]["bias"] += 20.0
    return network, gaussian.around({"params": params}, log_std)


@pytest.mark.parametrize("name", NOISY)
def test_the_mean_over_draws_of_a_linear_network_is_the_mean_weights(name):
    network, weights = linear(-2.0)
    keys = jax.random.split(jax.random.key(2), DRAWS)
    draw = jax.jit(jax.vmap(lambda key: NOISY[name](network, key, weights, X)))
    logits = np.asarray(draw(keys))
    error = np.abs(logits.mean(axis=0) - network.apply(weights.mean, X))
    standard_error = logits.std(axis=0) / np.sqrt(DRAWS)
    np.testing.assert_array_less(error, 5 * standard_error)
    np.testing.assert_array_less(1e-2, standard_error)


@pytest.mark.parametrize("name", NOISY)
def test_one_layer_has_the_variance_of_its_weights(name):
    network = CNN(2, layers=0, head="flatten")
    weights = gaussian.around(network.init(jax.random.key(1), X), -1.0)
    keys = jax.random.split(jax.random.key(3), DRAWS)
    logits = jax.jit(jax.vmap(lambda key: NOISY[name](network, key, weights, X)))(keys)
    variance = np.exp(-2.0) * (np.sum(np.square(X), axis=(1, 2, 3)) + 1)  # Var[W] x^2 + Var[b]
    # The standard error of a variance is sqrt(2 / n) of it.
    np.testing.assert_allclose(
        np.var(logits, axis=0), np.stack([variance] * 2, axis=1), rtol=5 * np.sqrt(2 / DRAWS)
    )


def test_flipout_s_logits_of_one_image_vary_through_convolutions_as_those_of_drawn_weights():
    network = CNN(2, filters=3, layers=1, normalisation="none", activation="silu")
    weights = gaussian.around(network.init(jax.random.key(1), X), -1.5)

    ours_key, theirs_key = jax.random.split(jax.random.key(3))
    keys = jax.random.split(ours_key, 2 * DRAWS)
    ours = jax.jit(jax.vmap(lambda key: flipout(network, key, weights, X)))(keys)
    drawn = gaussian.sample(theirs_key, weights, 2 * DRAWS)
    theirs = jax.jit(jax.vmap(lambda params: network.apply(params, X)))(drawn)
    for moment in (np.std, lambda a, axis: np.mean(np.abs(a - a.mean(axis)), axis)):
        np.testing.assert_allclose(moment(ours, axis=0), moment(theirs, axis=0), rtol=0.1)


@pytest.mark.parametrize("name", NOISY)
def test_without_variance_there_is_no_noise(name):
    network = CNN(3, filters=4, layers=2)
    params = network.init(jax.random.key(1), X)
    plain = network.apply(params, X)
    points = Gaussian(params, jax.tree.map(lambda _: None, params))
    np.testing.assert_allclose(NOISY[name](network, jax.random.key(2), points, X), plain, rtol=1e-6)
    narrow = NOISY[name](network, jax.random.key(2), gaussian.around(params, -20.0), X)
    np.testing.assert_allclose(narrow, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NOISY)
def test_each_image_has_a_sample_of_its_own_from_shared_variances_of_the_head_alone(name):
    network = CNN(3, filters=4, layers=2)
    same = jnp.concatenate([X, X])
    family = gaussian.family(-1.0, shared=True, random=lambda path: "head" in path)
    weights = family.init(jax.random.key(1), lambda key: network.init(key, X))
    logits = NOISY[name](network, jax.random.key(2), weights, same)
    assert np.abs(logits[: len(X)] - logits[len(X) :]).max() > 1e-2
