"""What is left to gain, and Polyak's steps, which are as long as that says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import LearnerConfig, OptionError, make_learner
from gembml.delta import Delta
from gembml.rl import BASELINES, roll_out
from gembml.rl.problem import experience
from gembml.tasks.navigation import navigation
from tests.rl.small import (
    BANDIT,
    GOAL,
    KEY,
    POLYAK,
    affine_params,
    affine_policy,
    constant_policy,
    problem_of,
)


@pytest.mark.parametrize("best", [0.0, 3.0])
def test_the_objective_is_what_is_left_to_the_best_reward(best):
    environment = BANDIT._replace(best_reward=best)
    problem = problem_of(environment, constant_policy, baseline="none", num_rollouts=200)
    data = jax.jit(problem.support)(KEY, jnp.array([1.5]), (jnp.array([0.4]), jnp.array([-0.3])))
    rewards = -((np.asarray(data.actions).ravel() - 1.5) ** 2)
    expected = (rewards.mean() - best) / rewards.std()
    np.testing.assert_allclose(problem.objective(data), expected, rtol=1e-5)


def test_polyak_s_step_is_refused_where_the_best_reward_is_not_known():
    config = LearnerConfig(inner_optimizer=POLYAK, meta_natural=False)
    environment = navigation(horizon=5)._replace(best_reward=None)
    with pytest.raises(OptionError, match="no best is known"):
        make_learner("fomaml", problem_of(environment), config, 1)
    make_learner("fomaml", problem_of(), config, 1)


@pytest.mark.parametrize("best", [0.0, 3.0])
def test_steps_after_an_episode_s_end_count_as_the_best_reward(best):
    rollouts = roll_out(KEY, navigation(horizon=5), affine_policy, affine_params(KEY), GOAL, 2)
    ended = jnp.ones((2, 5)).at[0, 2:].set(0.0)
    data = experience(
        rollouts._replace(mask=ended, rewards=rollouts.rewards * ended),
        baseline=BASELINES["none"],
        discount=0.0,
        gae_lambda=1.0,
        best_reward=best,
    )
    counted = np.asarray(rollouts.rewards)[np.asarray(ended) > 0]
    expected = (best - counted).sum() / 10 / counted.std()
    np.testing.assert_allclose(data.regret, expected, rtol=1e-4)


@pytest.mark.parametrize("later", [1.0, 0.5])
def test_polyak_s_updates_are_as_long_as_what_is_left_to_gain(later):
    problem, prior = problem_of(), affine_params(KEY)
    config = LearnerConfig(
        inner_optimizer=POLYAK, inner_learning_rate=0.8, later_rate=later, meta_natural=False
    )
    learner = make_learner("fomaml", problem, config, 1)
    path = learner.adapt(Delta(prior), KEY, lambda key, w: problem.support(KEY, GOAL, w), 2).mean
    weights = prior
    for step in range(2):
        data = problem.support(KEY, GOAL, weights)
        gradient = jax.grad(problem.log_likelihood)(weights, data)
        rate = jnp.minimum(data.regret / (jnp.sum(gradient**2) + 1.0), 1.0)
        weights = weights + 0.8 * later**step * rate * gradient
        np.testing.assert_allclose(path[step + 1], weights, rtol=1e-4, atol=1e-6)
