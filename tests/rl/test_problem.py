"""The problem of acting well: its likelihood's gradient, its divergence, and who learns from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from gembml import ALGORITHMS, LearnerConfig, OptionError, Problem, make_learner
from gembml.delta import Delta
from gembml.inference import point
from gembml.meta_gradients import backprop
from gembml.models.policy import GaussianPolicy
from gembml.rl import (
    SURROGATES,
    Environment,
    Experience,
    Transition,
)
from gembml.tasks.navigation import navigation, uniform_goal
from tests.rl.small import (
    BANDIT,
    GOAL,
    KEY,
    POLYAK,
    QUICK_KEY,
    affine_params,
    affine_policy,
    constant_policy,
    problem_of,
)

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)

collect = jax.jit(problem_of().support)


@every_surrogate
def test_the_gradient_is_the_bandit_s_policy_gradient_in_units_of_the_rewards_std(surrogate):
    number, target = 20_000, jnp.array([1.5])
    problem = problem_of(
        BANDIT, constant_policy, surrogate=surrogate, baseline="none", num_rollouts=number
    )
    mean, log_std = params = (jnp.array([0.4]), jnp.array([-0.3]))
    data = jax.jit(problem.support)(KEY, target, params)
    gradient = jax.grad(problem.log_likelihood)(params, data)
    # J = -(m - target)^2 - s^2.
    variance = np.exp(2 * log_std)
    exact = (-2 * (mean - target), -2 * variance)
    actions = np.asarray(data.actions).ravel()
    rewards = -((actions - target) ** 2)
    scores = ((actions - mean) / variance, (actions - mean) ** 2 / variance - 1)
    for estimate, true, score in zip(gradient, exact, scores, strict=True):
        standard_error = np.std((rewards - rewards.mean()) * score) / np.sqrt(number)
        assert np.abs(estimate * rewards.std() - true).max() < 5 * standard_error
        assert 5 * standard_error < 0.25 * np.abs(true).max()


def test_a_likelihood_counts_running_steps_alone():
    problem = problem_of()
    params = affine_params(KEY)
    data = collect(KEY, GOAL, params)
    mask = data.mask.at[0, 2:].set(0.0)
    ended = data._replace(mask=mask, advantages=data.advantages * mask)
    mean, log_std = affine_policy(params, data.observations)
    log_pi = scipy.stats.norm.logpdf(data.actions, mean, np.exp(log_std))
    per_step = data.advantages * np.sum(log_pi, axis=-1)
    expected = per_step[np.asarray(mask) > 0].mean()
    np.testing.assert_allclose(problem.log_likelihood(params, ended), expected, rtol=1e-4)


def test_experience_is_of_the_weights_that_act():
    params, others = map(affine_params, jax.random.split(KEY))
    data = collect(KEY, GOAL, params)
    assert data.advantages.shape == data.mask.shape == (2, 5)
    assert not np.any(np.isclose(data.actions, collect(KEY, GOAL, others).actions))
    # At the weights that acted all ratios are 1: the likelihood of `ratio` is the mean advantage.
    ratio = problem_of(surrogate="ratio")
    np.testing.assert_allclose(ratio.log_likelihood(params, data), 0, atol=1e-5)
    assert abs(ratio.log_likelihood(others, data)) > 1e-3


def test_no_episodes_that_run_have_likelihood_and_divergence_0():
    problem, params = problem_of(surrogate="ratio"), affine_params(KEY)
    data = collect(KEY, GOAL, params)
    nothing = Experience(*(jnp.zeros_like(leaf) for leaf in data))
    assert problem.log_likelihood(params, nothing) == 0
    assert problem.divergence(params, affine_params(jax.random.key(1)), nothing) == 0


def test_the_divergence_of_a_policy_from_itself_is_0():
    problem, params = problem_of(surrogate="ratio"), affine_params(KEY)
    data = collect(KEY, GOAL, params)
    # distrax's closed form rounds.
    np.testing.assert_allclose(problem.divergence(params, params, data), 0, atol=1e-6)
    gradient = jax.grad(problem.divergence)(params, params, data)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0, atol=1e-5)


def test_the_divergence_is_the_mean_kl_divergence_of_the_actions():
    problem = problem_of(surrogate="ratio")
    params, other = map(affine_params, jax.random.split(KEY))
    data = collect(KEY, GOAL, params)
    data = data._replace(mask=data.mask.at[1, 1:].set(0.0))
    (mean, log_std), (other_mean, other_log_std) = (
        affine_policy(p, data.observations) for p in (params, other)
    )
    # log(s' / s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2, summed over the action.
    kl = np.sum(
        other_log_std
        - log_std
        + (np.exp(2 * log_std) + (mean - other_mean) ** 2) / (2 * np.exp(2 * other_log_std))
        - 0.5,
        axis=-1,
    )
    expected = kl[np.asarray(data.mask) > 0].mean()
    np.testing.assert_allclose(problem.divergence(params, other, data), expected, rtol=1e-5)


@jax.custom_jvp
def constant(params):
    """The identity; whoever differentiates through it gets NaN."""
    return params


@constant.defjvp
def _(primals, tangents):
    return primals[0], jax.tree.map(lambda t: t * jnp.nan, tangents[0])


def with_constant_data(problem: Problem) -> Problem:
    """The same problem, in which a gradient that flows into the data is NaN."""
    return problem._replace(
        support=lambda key, task, params: problem.support(key, task, constant(params)),
        query=lambda key, task, params: problem.query(key, task, constant(params)),
    )


def norm(tree) -> float:
    return float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))))


def test_a_gradient_that_flows_into_the_data_would_be_seen():
    problem = with_constant_data(problem_of(baseline="none"))

    def through_the_data(params):
        return problem.log_likelihood(params, problem.support(QUICK_KEY, GOAL, params))

    assert np.isnan(norm(jax.grad(through_the_data)(affine_params(KEY))))


@every_surrogate
def test_maml_s_gradient_is_finite_and_leaves_the_data_alone(surrogate):
    problem = with_constant_data(problem_of(surrogate=surrogate))
    inference = point(problem.log_likelihood, optax.sgd(0.1))
    meta_gradient = backprop(problem, inference, 1)
    prior = Delta(affine_params(KEY))
    gradient = jax.jit(meta_gradient)(QUICK_KEY, prior, GOAL)
    assert np.isfinite(norm(gradient))
    assert norm(gradient) > 0


CONFIG = LearnerConfig(
    inner_optimizer="sgd",
    inner_learning_rate=0.1,
    inner_steps=1,
    num_particles=2,
    num_samples=1,
    antithetic=False,
    meta_natural=False,
)


GOALS = jax.vmap(uniform_goal)(jax.random.split(KEY, 2))


def broken(*, counts: bool) -> Environment:
    """Navigation that ends after two steps and is NaN from then on, or one step earlier."""
    sound = navigation(horizon=5)

    def step(goal, state, action):
        position, count = state
        after = sound.step(goal, position, action)
        position = jnp.where(count >= 1, jnp.nan, after.observation)
        reward = jnp.where(count >= (1 if counts else 2), jnp.nan, after.reward)
        return Transition((position, count + 1), position, reward, count >= 1)

    def reset(key, goal):
        position, observation = sound.reset(key, goal)
        return (position, 0), observation

    return sound._replace(reset=reset, step=step)


@every_surrogate
@pytest.mark.parametrize("counts", [False, True])
def test_what_is_not_finite_shows_if_and_only_if_it_counts(surrogate, counts):
    problem, params = problem_of(broken(counts=counts), surrogate=surrogate), affine_params(KEY)
    data = jax.jit(problem.support)(KEY, GOAL, params)
    likelihood, gradient = jax.jit(jax.value_and_grad(problem.log_likelihood))(params, data)
    assert np.isfinite(likelihood) != counts
    assert np.isfinite(norm(gradient)) != counts
    if problem.divergence is not None:  # the observations that count are sound
        assert np.all(np.isfinite(jax.jit(jax.hessian(problem.divergence))(params, params, data)))


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("maml", "sgd"), ("gem_bml_plus", "trpo"), ("maml", POLYAK), ("gem_bml_plus", POLYAK)],
)
@pytest.mark.parametrize("counts", [False, True])
def test_a_meta_step_is_finite_if_and_only_if_what_counts_is(name, optimizer, counts):
    problem = problem_of(broken(counts=counts), surrogate="ratio")
    config = dataclasses.replace(CONFIG, inner_optimizer=optimizer)
    learner = make_learner(name, problem, config, 10)
    _, metrics = jax.jit(learner.update)(learner.init(KEY), QUICK_KEY, GOALS)
    assert metrics.finite != counts


CONFIGS = dict.fromkeys(ALGORITHMS, CONFIG)
CONFIGS["gem_bml_plus"] = LearnerConfig(inner_steps=1)  # with natural gradients


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in ("llama", "platipus")])
def test_every_row_takes_one_finite_step_that_leaves_the_data_alone(name):
    learner = make_learner(name, with_constant_data(problem_of(baseline="none")), CONFIGS[name], 10)
    state = learner.init(KEY)
    new, metrics = jax.jit(learner.update)(state, QUICK_KEY, GOALS)
    assert metrics.finite
    assert metrics.meta_gradient_norm > 0
    moved = jax.tree.map(jnp.subtract, new.prior, state.prior)
    assert np.isfinite(norm(moved))
    assert norm(moved) > 0


def test_a_network_s_weights_are_learned_in_their_own_shapes():
    network = GaussianPolicy(2, hidden=(4,))
    problem = problem_of(policy=network.apply, init=lambda key: network.init(key, jnp.zeros(2)))
    learner = make_learner("gem_bml_plus", problem, CONFIG, 10)
    state = learner.init(KEY)
    new, _ = jax.eval_shape(learner.update, state, KEY, GOALS)
    shape = lambda leaf: (leaf.shape, leaf.dtype)  # noqa: E731
    assert jax.tree.map(shape, state) == jax.tree.map(shape, new)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("llama", {}, "whitened_outputs"),
        # The value of the surrogate log_prob is nothing that a line search could compare.
        ("fomaml", {"inner_optimizer": "trpo"}, "this problem has none"),
        ("maml", {"meta_optimizer": "trpo"}, "this problem has none"),
    ],
)
def test_what_rollouts_do_not_have_is_refused_in_one_sentence(name, options, words):
    with pytest.raises(OptionError, match=words) as error:
        make_learner(name, problem_of(), dataclasses.replace(CONFIG, **options), 10)
    message = str(error.value).replace("config.", "")
    assert message.count(".") == 1
    assert message.endswith(".")
    assert "\n" not in message
