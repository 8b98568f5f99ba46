"""Hyperparameters as traced values, and combinations that make no sense."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import ALGORITHMS, LearnerConfig, OptionError, distributed, make_learner
from gembml.algorithms import Algorithm
from tests import toy
from tests.problems import make_task, problem

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


# A tanh of a linear function, whose noise has variance 1/2.
def divergence(weights, other, data):
    return jnp.mean((jnp.tanh(data.x @ weights) - jnp.tanh(data.x @ other)) ** 2)


PROBLEM = problem()._replace(
    whitened_outputs=lambda weights, data: jnp.sqrt(2.0) * jnp.tanh(data.x @ weights),
    divergence=divergence,
)

# Two values of every number, each with a row in which it has an effect.
NUMBERS: dict[str, dict[str, tuple[float, float]]] = {
    "gem_bml_plus": {
        "inner_learning_rate": (0.1, 0.05),
        "kl_weight": (1.0, 0.3),
        "second_pass": (0.1, 0.5),
        "log_std_init": (-1.0, -0.5),
        "log_std_multiplier": (1.0, 2.0),
        "max_mean_norm": (1e3, 0.1),
        "max_log_std_step": (1e-3, 2e-3),
        "meta_learning_rate": (1e-2, 2e-2),
        "meta_log_std_multiplier": (1.0, 3.0),
    },
    "gem_bml": {"max_log_std_rise": (1e-5, 2e-5), "inner_learning_rate": (1.0, 2.0)},
    "amortized_bml": {"hyperprior_weight": (0.1, 0.3)},
    "imaml": {
        "proximal_weight": (2.0, 1.0),
        "inner_learning_rate": (0.1, 0.05),
        "later_rate": (0.5, 0.25),
    },
    "llama": {"curvature_weight": (0.01, 0.1), "log_std_init": (0.0, -1.0)},
    "bmaml": {"kl_weight": (0.01, 0.1), "inner_learning_rate": (0.1, 0.05)},
    "platipus": {"kl_weight": (0.1, 0.2), "inner_learning_rate": (0.1, 0.05)},
    "fomaml": {"max_meta_gradient_norm": (1e-2, 2e-2)},
    "emaml": {"max_inner_gradient_norm": (1e-2, 2e-2)},
    "reptile": {"max_kl": (1e-3, 2e-3)},
    "maml": {"meta_max_kl": (1e-3, 2e-3)},
}
# What they need beside the row.
CHOICES: dict[str, dict[str, str]] = {
    "reptile": {"inner_optimizer": "trpo"},
    "maml": {"meta_optimizer": "trpo"},
}


def meta_step(name: str, numbers):
    """The prior after one plain SGD meta-step."""
    # The prior pulls nothing at the first step, from the prior; elsewhere one compiles faster.
    steps = 2 if name in ("imaml", "gem_bml_plus") else 1
    choices = {"inner_steps": steps, "meta_optimizer": "sgd"} | CHOICES.get(name, {})
    config = dataclasses.replace(toy.CONFIGS[name], **choices, **numbers)
    learner = make_learner(name, PROBLEM, config, 10)
    tasks = jax.tree.map(lambda leaf: leaf[None], make_task(0))
    return learner.update(learner.init(KEY), KEY, tasks)[0].prior


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_traced_under_vmap_have_the_effect_of_concrete_ones(name):
    first = {field: pair[0] for field, pair in NUMBERS[name].items()}
    second = {field: pair[1] for field, pair in NUMBERS[name].items()}
    # All first; then all second; then one second each.
    settings = [first, second, *(first | {field: second[field]} for field in first)]
    traced = jax.tree.map(lambda *values: jnp.array(values), *settings)
    together = jax.jit(jax.vmap(lambda numbers: meta_step(name, numbers)))(traced)
    alone = jax.jit(lambda: meta_step(name, second))()
    for many, one in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
        # Batched products sum in another order: float64 rounding.
        np.testing.assert_allclose(many[1], one, rtol=1e-9, atol=1e-12)
    for row, field in enumerate(first, start=2):
        moved = [jnp.abs(leaf[row] - leaf[0]).max() for leaf in jax.tree.leaves(together)]
        assert max(moved) > 1e-8, field


def test_no_number_of_a_learner_is_left_out_above():
    tested = {field for pairs in NUMBERS.values() for field in pairs}
    assert tested == {f.name for f in dataclasses.fields(LearnerConfig) if f.type is float}


def refusal(name: str, **changes) -> str:
    config = dataclasses.replace(toy.CONFIGS[name], **changes)
    with pytest.raises(OptionError) as error:
        make_learner(name, PROBLEM, config, 10)
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def rows(condition) -> list[str]:
    def holds(row: Algorithm) -> bool:
        return condition(row)

    return [name for name, row in ALGORITHMS.items() if holds(row)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"random_weights": "head"}, "random_weights must be all"),
        ({"variance_per": "array"}, "variance_per must be weight"),
        ({"log_std_relative": True}, "log_std_relative false"),
    ],
)
def test_options_of_arrays_are_refused_for_weights_that_are_one_vector(options, reason):
    assert reason in refusal("gem_bml_plus", **options)


def test_one_sentence_names_all_that_a_point_estimate_cannot_have():
    assert refusal("maml", inner_optimizer="natural_gradient", meta_natural=True) == (
        "config.inner_optimizer=natural_gradient and config.meta_natural=True need a Gaussian "
        "posterior, and maml has a delta posterior: choose config.inner_optimizer: sgd or another "
        "of optax's, and config.meta_natural: False."
    )


@pytest.mark.parametrize("name", rows(lambda row: row.family != "gaussian"))
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inner_optimizer", "natural_gradient"),
        ("meta_optimizer", "online_em"),
        ("meta_natural", True),
    ],
)
def test_what_needs_a_gaussian_is_refused_for_every_other_posterior(name, field, value):
    message = refusal(name, **{field: value})
    assert f"config.{field}={value} needs a Gaussian posterior" in message
    assert name in message


@pytest.mark.parametrize(
    "name", rows(lambda row: row.family == "gaussian" and row.estimator.name != "Gradient-EM")
)
def test_online_em_is_refused_for_meta_gradients_that_are_not_moments(name):
    assert "needs Gradient-EM's meta-gradient" in refusal(name, meta_optimizer="online_em")


def test_steps_on_the_query_set_are_refused_where_none_are_taken():
    assert "config.query_steps must be 0" in refusal("amortized_bml", query_steps=2)
    config = dataclasses.replace(toy.CONFIGS["amortized_bml"], query_steps=2)
    make_learner(
        "amortized_bml", PROBLEM, dataclasses.replace(config, amortized_posterior="all"), 1
    )


@pytest.mark.parametrize("name", ["meta_sgd", "platipus"])
def test_what_learns_the_rates_of_sgd_is_refused_with_another_optimizer(name):
    assert "inner_optimizer must be sgd, not adam" in refusal(name, inner_optimizer="adam")


def test_llama_is_refused_for_a_likelihood_without_curvature():
    without = PROBLEM._replace(whitened_outputs=None)
    with pytest.raises(OptionError, match="llama needs the curvature of the likelihood"):
        make_learner("llama", without, toy.CONFIGS["llama"], 10)


@pytest.mark.parametrize("name", ["gem_bml", "gem_bml_plus", "fomaml", "reptile", "imaml"])
def test_an_inner_trust_region_is_refused_for_a_problem_without_divergence(name):
    config = dataclasses.replace(toy.CONFIGS[name], inner_optimizer="trpo")
    make_learner(name, PROBLEM, config, 10)
    with pytest.raises(OptionError, match="needs a problem with a divergence"):
        make_learner(name, PROBLEM._replace(divergence=None), config, 10)


def test_a_trust_region_of_the_meta_step_is_refused_where_there_is_none():
    config = dataclasses.replace(toy.CONFIGS["maml"], meta_optimizer="trpo")
    make_learner("maml", PROBLEM, config, 10)
    with pytest.raises(OptionError, match="meta_optimizer=trpo needs a problem with a divergence"):
        make_learner("maml", PROBLEM._replace(divergence=None), config, 10)
    mesh = distributed.task_mesh(jax.devices()[:1])
    with pytest.raises(OptionError, match="takes its meta-step on one device"):
        make_learner("maml", PROBLEM, config, 10, mesh)


@pytest.mark.parametrize("name", sorted({*ALGORITHMS} - {"maml"}))
def test_a_trust_region_of_the_meta_step_is_refused_for_every_other_row(name):
    assert f"and {name} has none to search along" in refusal(name, meta_optimizer="trpo")
