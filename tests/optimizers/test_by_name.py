"""Optax transformations by name."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml.optimizers.by_name import (
    OptaxNameError,
    complaint,
    has_usable_derivative,
    moves,
    needs_loss,
    optax_transformation,
)
from tests.programs import ROOT

PARAMS = {"w": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "b": jnp.array([0.1, 0.2])}
GRADIENTS = jax.tree.map(lambda a: a**2 - 0.3, PARAMS)


def two_steps(transformation: optax.GradientTransformation) -> optax.Updates:
    state = transformation.init(PARAMS)
    for _ in range(2):
        updates, state = transformation.update(GRADIENTS, state, PARAMS)
    return updates


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("sgd", optax.sgd(0.1)),
        ("adam(b1=0.5)", optax.adam(0.1, b1=0.5)),
        ("sgd(momentum=0.9, nesterov=True)", optax.sgd(0.1, momentum=0.9, nesterov=True)),
        ("trace(decay=0.9)", optax.sgd(0.1, momentum=0.9)),
        ("scale_by_adam", optax.adam(0.1)),
        ("ademamix", optax.contrib.ademamix(0.1)),
    ],
)
def test_a_name_is_the_transformation_of_that_name(text, same):
    assert complaint(text) is None
    ours, theirs = two_steps(optax_transformation(text, 0.1)), two_steps(same)
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nadamm", "no transformation nadamm"),
        ("tree", "no transformation tree"),
        ("softmax_cross_entropy", "missing"),
        ("adam(b9=1)", "unexpected keyword argument"),
        ("adam(0.5)", "not of the form"),
        ("adam(b1=exit())", "not of the form"),
        ("adam(", "not of the form"),
        ("os.system(command='true')", "no transformation os.system"),
        ("lbfgs", "'value_fn'"),
        ("polyak_sgd", "'value'"),
        ("polyak_sgd(scaling=1.0)", "an option of its own"),
        ("adam(b1='high')", "does not take"),
        ("", "not of the form"),
        ("sgd(learning_rate=0.5)", "an option of its own"),
        ("noisy_sgd(key=1)", "draws noise"),
    ],
)
def test_what_is_no_transformation_of_gradients_is_refused_with_the_reason(text, reason):
    with pytest.raises(OptaxNameError, match=reason) as error:
        optax_transformation(text, 0.1)
    assert "\n" not in str(error.value)
    assert complaint(text) in (None, str(error.value))  # None: it shows only when it is tried


def test_polyak_s_step_is_used_where_the_loss_is_given():
    text = "polyak_sgd(max_learning_rate=3.0, eps=1.0)"
    transformation = optax_transformation(text, 0.1, with_loss=True)
    state = transformation.init(PARAMS)
    square = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(GRADIENTS))
    for loss, rate in ((2.0, 2.0 / (square + 1.0)), (1e6, 3.0)):
        updates, _ = transformation.update(GRADIENTS, state, PARAMS, value=jnp.float32(loss))
        for update, gradient in zip(*map(jax.tree.leaves, (updates, GRADIENTS)), strict=True):
            np.testing.assert_allclose(update, -0.1 * rate * gradient, rtol=1e-5)
    assert needs_loss(text)
    assert moves(text)
    for text in ("polyak_sgd(f_min=1.0, eps=1.0)", "polyak_sgd(f_min=2.0, variant='sps+')"):
        assert needs_loss(text)
        assert moves(text)
    assert not needs_loss("adam")
    assert not needs_loss("lbfgs")  # which needs more


def test_steps_of_zero_are_seen():
    assert not moves("set_to_zero")
    assert moves("rprop")  # whose first step is zero


def test_whether_a_text_names_a_transformation_is_told_without_starting_jax():
    program = (
        "from gembml import LearnerConfig\n"
        "LearnerConfig(inner_optimizer='adam(b1=0.5)', meta_optimizer='scale_by_rms')\n"
        "import jax; jax.config.update('jax_num_cpu_devices', 3)\n"
        "assert len(jax.devices()) == 3"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "text", ["sgd", "adam", "nadamw", "rmsprop", "trace(decay=0.9)", "polyak_sgd(eps=1.0)"]
)
def test_smooth_steps_have_a_usable_derivative(text):
    assert has_usable_derivative(text)


@pytest.mark.parametrize(
    "text",
    [
        "sign_sgd",  # zero almost everywhere
        "lion",
        "scale_by_sign",
        "adam(eps_root=0.0)",  # infinite at zero
        "normalize_by_update_norm",
        "polyak_sgd",
    ],
)
def test_steps_of_fixed_length_or_with_bare_roots_have_none(text):
    assert not has_usable_derivative(text)
