"""Algorithm 1: the average over tasks, ascent, and many steps in one call."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import (
    Delta,
    LearnerState,
    MetaLearner,
    OptionError,
    delta,
    make_learner,
    meta_learner,
    meta_steps,
)
from gembml.inference import point
from tests import problems, toy

KEY = jax.random.key(0)


def by_hand(optimizer: optax.GradientTransformation, meta_gradient) -> MetaLearner:
    """A learner with a meta-gradient written by hand."""
    inference = point(problems.log_likelihood, optax.sgd(0.1))
    return meta_learner(problems.problem(), delta.family(), inference, meta_gradient, optimizer)


def start(learner: MetaLearner) -> LearnerState:
    return learner.init(KEY)._replace(prior=Delta(jnp.zeros(3)))


def test_update_steps_up_the_average_of_the_tasks_gradients():
    learner = by_hand(optax.sgd(0.5), lambda key, prior, task: Delta(task - prior.mean))
    tasks = jnp.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    state, metrics = learner.update(start(learner), KEY, tasks)
    np.testing.assert_allclose(state.prior.mean, 0.5 * jnp.array([2.0, 3.0, 5.5]))
    np.testing.assert_allclose(metrics.meta_gradient_norm, np.sqrt(2**2 + 3**2 + 5.5**2), rtol=1e-6)


@pytest.mark.parametrize("tasks_at_once", [0, 1, 2])
def test_under_a_cap_the_update_averages_what_is_left_and_says_how_many_tasks_it_lost(
    tasks_at_once,
):
    inference = point(problems.log_likelihood, optax.sgd(0.1))
    learner = meta_learner(
        problems.problem(),
        delta.family(),
        inference,
        lambda key, prior, task: Delta(task),
        optax.sgd(1.0),
        tasks_at_once=tasks_at_once,
        max_task_norm=2.0,
    )
    tasks = jnp.array([[1.0, 0, 0], [0, jnp.nan, 0], [0, 0, -8.0], [0, 4.0, 0]])
    state, metrics = learner.update(start(learner), KEY, tasks)
    np.testing.assert_allclose(state.prior.mean, [1 / 4, 2 / 4, -2 / 4], rtol=1e-6)
    assert (metrics.finite, metrics.lost_tasks) == (True, 0.25)


def test_every_task_gets_its_own_key():
    learner = by_hand(
        optax.sgd(1.0), lambda key, prior, task: Delta(task * jax.random.normal(key, (3,)))
    )
    # Opposite signs: with one key for both tasks the average would vanish.
    tasks = jnp.array([1.0, -1.0])
    state, _ = learner.update(start(learner), KEY, tasks)
    assert jnp.all(state.prior.mean != 0)


@pytest.fixture(scope="module")
def gem_learner() -> MetaLearner:
    config = dataclasses.replace(toy.CONFIGS["gem_bml_plus"], meta_schedule="cosine")
    return make_learner("gem_bml_plus", toy.problem(), config, 12)


@pytest.fixture(scope="module")
def run(gem_learner) -> Callable:
    """``(seed, lengths)`` -> the state after dispatches of these lengths, and the norms."""

    @functools.cache
    def steps(length: int) -> Callable:
        # The key is an argument, so that all seeds share what is compiled.
        return jax.jit(
            lambda key, *state: meta_steps(gem_learner, toy.sample_tasks, key, length)(*state)
        )

    def run(seed: int, lengths: list[int]) -> tuple[LearnerState, jax.Array]:
        state, step, norms = gem_learner.init(KEY), 0, []
        for length in lengths:
            state, metrics = steps(length)(jax.random.key(seed), state, jnp.int32(step))
            norms.append(metrics.meta_gradient_norm)
            step += length
        return state, jnp.concatenate(norms)

    return run


def test_many_steps_in_one_dispatch_equal_as_many_dispatches_of_one(run):
    for a, b in zip(*map(jax.tree.leaves, (run(0, [6]), run(0, [1] * 6))), strict=True):
        # The scan's body and the single step may be fused differently: float32 rounding, which 6
        # steps amplify. (A resumed run uses the same dispatches, and is equal bit for bit.)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_prior_and_another_seed_another(run):
    first, again, other = (run(seed, [6])[0] for seed in (0, 0, 1))
    for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(first.prior.mean, other.prior.mean)


def test_adapt_is_the_inner_loop(gem_learner):
    state = gem_learner.init(KEY)
    support = jax.tree.map(lambda a: a[0], toy.sample_tasks(KEY)).support
    path = gem_learner.adapt(state.prior, KEY, lambda *_: support, 5)
    problem = toy.problem()
    fits = [problem.log_likelihood(weights, support) for weights in path.mean]
    assert fits[-1] > fits[0]


def in_groups(tasks_at_once: int) -> MetaLearner:
    """A learner whose meta-gradient depends on the task, its key and the prior."""
    return meta_learner(
        problems.problem(),
        delta.family(),
        point(problems.log_likelihood, optax.sgd(0.1)),
        lambda key, prior, task: Delta(task * jax.random.normal(key, (3,)) - prior.mean),
        optax.sgd(1.0),
        tasks_at_once=tasks_at_once,
    )


@pytest.mark.parametrize("tasks_at_once", [1, 2, 4])
def test_tasks_in_groups_give_the_same_update(tasks_at_once):
    tasks = jnp.array([1.0, -2.0, 3.0, 5.0])
    whole, grouped = (
        jax.jit(learner.update)(start(learner), KEY, tasks)
        for learner in (in_groups(0), in_groups(tasks_at_once))
    )
    for a, b in zip(*map(jax.tree.leaves, (whole, grouped)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)  # float32, summed in another order


def test_groups_that_do_not_divide_the_tasks_are_refused():
    for number in (3, 5):
        learner = in_groups(number)
        sentence = rf"tasks_at_once must divide the 4 tasks that a device has, and {number} does"
        with pytest.raises(OptionError, match=sentence):
            learner.update(start(learner), KEY, jnp.ones(4))
