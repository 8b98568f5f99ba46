"""What holds for every row of the algorithm table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import ALGORITHMS, LearnerConfig, MetaLearner, OptionError, make_learner, meta_steps
from gembml.optimizers.by_name import optax_transformation
from tests import toy

STEPS = 300
KEY = jax.random.key(0)
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def learner_of(name: str, observe=lambda: None, **changes) -> MetaLearner:
    config = dataclasses.replace(toy.CONFIGS[name], **changes)
    return make_learner(name, toy.problem(observe), config, STEPS)


def validation_log_likelihood(learner: MetaLearner, prior) -> float:
    """Mean log-likelihood of 50 tasks' query data after 5 steps on the support."""
    problem = toy.problem()

    def one(key, task):
        path = learner.adapt(prior, key, lambda *_: task.support, 5)
        weights = learner.sample(key, jax.tree.map(lambda a: a[-1], path), 10)
        each = jax.vmap(problem.log_likelihood, in_axes=(0, None))(weights, task.query)
        return jnp.mean(each)

    keys = jax.random.split(jax.random.key(1), 50)
    tasks = jax.vmap(lambda k: jax.tree.map(lambda a: a[0], toy.sample_tasks(k)))(keys)
    return float(jnp.mean(jax.vmap(one)(keys, tasks)))


def all_finite(tree) -> bool:
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))


@every_algorithm
def test_meta_training_improves_held_out_tasks_is_finite_and_traces_once(name):
    traces = []
    learner = learner_of(name, observe=lambda: traces.append(1))
    state = learner.init(KEY)
    before = validation_log_likelihood(learner, state.prior)
    traces.clear()
    run = jax.jit(meta_steps(learner, toy.sample_tasks, KEY, STEPS // 3))
    for call in range(3):
        state, metrics = run(state, jnp.int32(call * STEPS // 3))
        if call == 0:
            traced = len(traces)
        assert len(traces) == traced
        assert all_finite((state, metrics))
        assert metrics.meta_gradient_norm.shape == (STEPS // 3,)
    # Untrained, the error per point is about that of predicting zero, 2.5^2 / 2; half of it goes
    # within a few hundred steps, whichever the method.
    after = validation_log_likelihood(learner, state.prior)
    constant = 5 * float(jax.scipy.stats.norm.logpdf(0.0, 0.0, 0.5))
    assert constant - after < 0.5 * (constant - before)


@every_algorithm
def test_learners_vmap_over_seeds(name):
    learner = learner_of(name)
    keys = jax.random.split(KEY, 3)
    tasks = jax.vmap(toy.sample_tasks)(keys)
    states = jax.vmap(learner.init)(keys)
    together, _ = jax.jit(jax.vmap(learner.update))(states, keys, tasks)
    alone, _ = jax.jit(learner.update)(*jax.tree.map(lambda a: a[1], (states, keys, tasks)))
    for batch, single in zip(*map(jax.tree.leaves, (together.prior, alone.prior)), strict=True):
        # Batched matrix products are summed in another order.
        np.testing.assert_allclose(batch[1], single, rtol=1e-4, atol=1e-5)


@every_algorithm
def test_update_keeps_shapes_and_types(name):
    learner = learner_of(name)
    state = learner.init(KEY)
    new, _ = jax.eval_shape(learner.update, state, KEY, toy.sample_tasks(KEY))
    shape = lambda leaf: (leaf.shape, leaf.dtype)  # noqa: E731
    assert jax.tree.map(shape, state) == jax.tree.map(shape, new)


@pytest.mark.parametrize(
    "name",
    ["gem_bml", "gem_bml_plus", "reptile", "pmaml", "elbo_difference", "kl_chaser", "bmaml"],
)
def test_steps_on_the_query_set_begin_at_the_second_step_s_rate(name):
    def norm(later_rate: float) -> float:
        options = {"inner_optimizer": "sgd", "inner_learning_rate": 1e-3, "inner_steps": 1}
        learner = learner_of(name, **options, later_rate=later_rate)
        tasks = toy.sample_tasks(KEY)
        return float(jax.jit(learner.update)(learner.init(KEY), KEY, tasks)[1].meta_gradient_norm)

    assert abs(norm(0.5) / norm(1.0) - 1) > 1e-3


@every_algorithm
def test_weights_are_drawn_from_what_the_learner_adapts(name):
    learner = learner_of(name)

    def adapt_and_sample(key: jax.Array):
        task = jax.tree.map(lambda a: a[0], toy.sample_tasks(key))
        path = learner.adapt(learner.init(key).prior, key, lambda *_: task.support, 4)
        return path, learner.sample(key, jax.tree.map(lambda a: a[-1], path), 7)

    path, weights = jax.eval_shape(adapt_and_sample, KEY)
    size = toy.problem().init(KEY).shape
    assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(path))
    assert weights.shape == (7, *size)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_meta_learning_rate_follows_its_schedule(schedule):
    learner = learner_of("reptile", meta_schedule=schedule)
    tasks = toy.sample_tasks(KEY)
    state = learner.init(KEY)
    # The optimizer's count says where in the schedule a step lies; Reptile's SGD moves in
    # proportion to the learning rate.
    step = jax.jit(learner.update)

    def moved(count: int) -> float:
        at = jax.tree.map(lambda leaf: jnp.full_like(leaf, count), state.optimizer_state)
        new, _ = step(state._replace(optimizer_state=at), KEY, tasks)
        return float(jnp.linalg.norm(new.prior.mean - state.prior.mean))

    fractions = {"constant": (1.0, 1.0), "linear": (0.5, 0.0), "cosine": (0.5, 0.0)}[schedule]
    np.testing.assert_allclose(
        [moved(STEPS // 2) / moved(0), moved(STEPS) / moved(0)], fractions, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inner_optimizer", "natural_gradient"),
        ("meta_optimizer", "online_em"),
        ("meta_natural", True),
    ],
)
def test_gaussian_choices_are_refused_for_a_delta_posterior_in_one_sentence(name, field, value):
    with pytest.raises(OptionError) as error:
        learner_of(name, **{field: value})
    message = str(error.value)
    assert f"config.{field}={value} needs a Gaussian posterior" in message
    assert message.endswith(".")
    assert "\n" not in message


def test_an_unknown_algorithm_is_refused_with_the_names():
    with pytest.raises(OptionError, match=r"algorithm must be one of gem_bml, .*, not 'mamba'"):
        make_learner("mamba", toy.problem(), LearnerConfig(), 1)


def test_a_run_of_no_meta_steps_is_refused():
    with pytest.raises(OptionError, match="num_meta_steps must be at least 1, not 0"):
        make_learner("maml", toy.problem(), toy.CONFIGS["maml"], 0)


def test_an_odd_number_of_samples_in_pairs_is_refused():
    with pytest.raises(OptionError, match="must be even"):
        learner_of("gem_bml", num_samples=3, antithetic=True)


def test_a_local_expectation_is_refused_where_the_network_has_none():
    with pytest.raises(OptionError, match="needs a network with a local reparameterisation"):
        learner_of("gem_bml", expectation="local")


def test_a_local_expectation_is_the_network_s_own():
    problem = toy.problem()._replace(local_log_likelihood=lambda key, weights, data: jnp.zeros(()))
    config = dataclasses.replace(toy.CONFIGS["gem_bml"], expectation="local")
    learner = make_learner("gem_bml", problem, config, STEPS)
    state = learner.init(KEY)
    task = jax.tree.map(lambda a: a[0], toy.sample_tasks(KEY))
    path = learner.adapt(state.prior, KEY, lambda *_: task.support, 3)
    # Without data to fit, the posterior stays at the prior.
    np.testing.assert_allclose(path.mean[-1], state.prior.mean, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_online_em_with_a_step_above_one_is_refused(schedule):
    with pytest.raises(OptionError, match=r"\(0, 1\]"):
        learner_of(
            "gem_bml", meta_optimizer="online_em", meta_learning_rate=2.0, meta_schedule=schedule
        )


# Optax's optimizers that need a learning rate only, and take a schedule.
_OPTIMIZERS = [
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "fromage",
    "lamb",
    "lars",
    "lion",
    "novograd",
    "optimistic_gradient_descent",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
    "yogi",
]
_NO_DERIVATIVE = ("adafactor", "lamb", "lars", "lion", "novograd", "radam", "sign_sgd", "trpo")


@pytest.mark.parametrize("optimizer", _OPTIMIZERS)
def test_every_optax_optimizer_takes_a_learning_rate_and_steps(optimizer):
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    transformation = optax_transformation(optimizer, 0.1)
    state = transformation.init(params)
    for _ in range(2):
        updates, state = transformation.update(params, state, params)
    assert all_finite(updates)
    assert any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("optimizer", sorted({*_OPTIMIZERS} - {*_NO_DERIVATIVE}))
def test_maml_through_an_optimizer_is_finite_where_a_gradient_is_zero(optimizer):
    # Behind dead ReLUs gradients are exactly zero, and so is what the root is taken of.
    learner = learner_of("maml", inner_optimizer=optimizer)
    state, metrics = jax.jit(learner.update)(learner.init(KEY), KEY, toy.sample_tasks(KEY))
    assert all_finite((state, metrics))


@pytest.mark.parametrize("optimizer", _NO_DERIVATIVE)
def test_optimizers_without_a_usable_derivative_are_refused_where_one_is_needed(optimizer):
    with pytest.raises(OptionError, match="no usable derivative"):
        learner_of("maml", inner_optimizer=optimizer)
    if optimizer != "trpo":  # which needs a problem with a divergence
        learner_of("fomaml", inner_optimizer=optimizer)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"inner_optimizer": "sm3", "later_rate": 0.5}, "its rate must be a number"),
        ({"meta_optimizer": "sm3", "meta_schedule": "cosine"}, "its rate must be a number"),
        ({"inner_optimizer": "set_to_zero"}, "its steps are zero"),
        ({"inner_optimizer": "lbfgs"}, "'value_fn'"),
        ({"meta_optimizer": "polyak_sgd"}, "'value'"),
    ],
)
def test_an_optimizer_that_cannot_be_used_is_refused_when_the_learner_is_built(options, reason):
    for name in ("fomaml", "maml", "bmaml"):  # with and without derivatives through its steps
        with pytest.raises(OptionError, match=reason):
            learner_of(name, **options)


@pytest.mark.parametrize("name", ["gem_bml_plus", "pmaml", "maml", "imaml", "emaml", "llama"])
def test_meta_steps_with_polyak_s_inner_step_are_finite(name):
    learner = learner_of(name, inner_optimizer="polyak_sgd(eps=1.0)", inner_learning_rate=1.0)
    tasks = toy.sample_tasks(KEY)
    state, metrics = jax.jit(learner.update)(learner.init(KEY), KEY, tasks)
    assert all_finite((state, metrics))


def test_platipus_is_refused_for_rollouts_of_which_it_would_adapt_to_one_batch():
    rollouts = toy.problem()._replace(is_surrogate=True)
    with pytest.raises(OptionError, match="rollouts are new ones at each step"):
        make_learner("platipus", rollouts, toy.CONFIGS["platipus"], STEPS)


def test_stein_s_direction_has_no_loss_for_polyak_s_step():
    with pytest.raises(OptionError, match="'value'"):
        learner_of("bmaml", inner_optimizer="polyak_sgd(eps=1.0)")


@pytest.mark.parametrize("name", ["gem_bml_plus", "fomaml", "imaml"])
def test_meta_steps_with_an_inner_trust_region_are_finite_and_adapting_improves(name):
    problem = toy.problem()
    outputs = problem.whitened_outputs
    problem = problem._replace(
        divergence=lambda p, o, data: 0.5 * jnp.mean((outputs(p, data) - outputs(o, data)) ** 2)
    )
    config = dataclasses.replace(toy.CONFIGS[name], inner_optimizer="trpo")
    learner = make_learner(name, problem, config, STEPS)
    tasks = toy.sample_tasks(KEY)
    state, metrics = jax.jit(learner.update)(learner.init(KEY), KEY, tasks)
    assert all_finite((state, metrics))
    task = jax.tree.map(lambda a: a[0], tasks)
    path = learner.adapt(state.prior, KEY, lambda *_: task.support, 3)
    fit = jax.vmap(problem.log_likelihood, in_axes=(0, None))(path.mean, task.support)
    assert fit[-1] > fit[0]
