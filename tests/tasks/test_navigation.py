"""2D navigation against its description, and the best return against whoever tries to beat it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gembml.options import OptionError
from gembml.rl import roll_out
from gembml.tasks.navigation import (
    GOALS,
    MAX_STEP,
    REACHED,
    REWARDS,
    best_return,
    bimodal_goal,
    navigation,
    uniform_goal,
)

KEYS = jax.random.split(jax.random.key(0), 4000)
every_reward = pytest.mark.parametrize("reward", REWARDS)
coordinates = st.floats(-0.5, 0.5, width=32, allow_subnormal=False)
goals = st.tuples(coordinates, coordinates).map(lambda g: np.array(g, np.float32))
# Rounding in float32 of up to a hundred rewards, none above 1.
ROUNDING = 1e-4


def towards_the_goal(params, position):
    """A policy that knows the goal: ``(goal, share of the way to it, log std)``."""
    goal, speed, log_std = params
    return speed * (goal - position) / MAX_STEP, jnp.full(2, log_std)


def walks_of(reward: str):
    """``(key, goal, speed, log std)`` -> eight episodes of the policy above."""
    environment = navigation(reward)
    return jax.jit(
        lambda key, goal, *how: roll_out(key, environment, towards_the_goal, (goal, *how), goal, 8)
    )


NO_NOISE = -30.0
WALKS = {reward: walks_of(reward) for reward in REWARDS}
BEST = {reward: jax.jit(lambda g, r=reward: best_return(g, r)) for reward in REWARDS}


@every_reward
@given(goal=goals)
def test_walking_straight_along_both_axes_reaches_the_best_return(reward, goal):
    returns = WALKS[reward](KEYS[0], goal, 1.0, NO_NOISE).returns
    np.testing.assert_allclose(returns, BEST[reward](goal), atol=ROUNDING)


@every_reward
@given(goal=goals, speed=st.floats(-1, 12, width=32))
def test_no_noise_free_walk_beats_the_best_return(reward, goal, speed):
    returns = WALKS[reward](KEYS[0], goal, speed, NO_NOISE).returns
    assert np.all(returns <= BEST[reward](goal) + ROUNDING)


@every_reward
@given(goal=goals, speed=st.floats(0, 2, width=32), seed=st.integers(0, 3999))
def test_no_random_walk_beats_the_best_return(reward, goal, speed, seed):
    returns = WALKS[reward](KEYS[seed], goal, speed, -1.0).returns
    assert np.all(returns <= BEST[reward](goal) + ROUNDING)


def test_the_best_return_by_hand():
    # Two steps to go along one axis, one along the other: 0.1 is left after the first.
    goal = jnp.array([0.2, -0.1])
    np.testing.assert_allclose(best_return(goal), -0.1, rtol=1e-5)
    np.testing.assert_allclose(best_return(goal, "squared_distance"), -0.01, rtol=1e-5)
    # (0.25, 0.05) and (0.15, 0), (0.05, 0), (0, 0) in three steps.
    goal = jnp.array([0.25, 0.05])
    np.testing.assert_allclose(best_return(goal), -0.2, rtol=1e-5)
    np.testing.assert_allclose(best_return(goal, horizon=1), -0.15, rtol=1e-5)


def test_the_best_return_of_a_uniform_goal_is_0_51_below_0_on_average():
    each = jax.vmap(best_return)(jax.vmap(uniform_goal)(jax.random.split(KEYS[0], 20_000)))
    assert np.std(each) / np.sqrt(20_000) < 0.0025
    assert abs(np.mean(each) + 0.51) < 0.01


def test_standing_still_has_a_return_38_3_below_0_on_average():
    environment = navigation()

    def standing(goal):
        state, _ = environment.reset(KEYS[0], goal)
        return environment.horizon * environment.step(goal, state, jnp.zeros(2)).reward

    returns = jax.vmap(standing)(jax.vmap(uniform_goal)(jax.random.split(KEYS[0], 40_000)))
    # 100 times the mean distance from a unit square's middle, (sqrt(2) + log(1 + sqrt(2))) / 6.
    mean = -100 * (np.sqrt(2) + np.log(1 + np.sqrt(2))) / 6
    assert abs(np.mean(returns) - mean) < 5 * np.std(returns) / np.sqrt(40_000)
    assert abs(np.mean(returns) + 38.3) < 0.3
    rollouts = WALKS["distance"](KEYS[0], np.float32([0.3, 0.4]), 0.0, NO_NOISE)
    np.testing.assert_allclose(rollouts.returns, -50, rtol=1e-4)


def test_episodes_start_at_the_origin_and_see_where_they_are():
    environment = navigation()
    assert (environment.observation_size, environment.action_size) == (2, 2)
    assert environment.horizon == 100
    goal = jnp.array([0.3, -0.4])
    state, observation = environment.reset(KEYS[0], goal)
    np.testing.assert_array_equal(observation, np.zeros(2))
    after = environment.step(goal, state, jnp.array([0.5, -0.25]))
    np.testing.assert_allclose(after.observation, [0.05, -0.025], rtol=1e-6)


def test_actions_are_clipped_to_a_tenth_along_each_axis():
    environment, goal = navigation(), jnp.array([0.3, -0.4])
    state, _ = environment.reset(KEYS[0], goal)
    after = environment.step(goal, state, jnp.array([7.0, -0.5]))
    np.testing.assert_allclose(after.observation, [0.1, -0.05], rtol=1e-6)
    after = environment.step(goal, state, jnp.array([-1.01, -1e9]))
    np.testing.assert_allclose(after.observation, [-0.1, -0.1], rtol=1e-6)


def test_rewards_are_minus_the_distance_after_the_step_or_its_square():
    goal = jnp.array([0.4, 0.4])
    for reward, expected in (("distance", -0.5), ("squared_distance", -0.25)):
        environment = navigation(reward)
        state, _ = environment.reset(KEYS[0], goal)
        after = environment.step(goal, state, jnp.array([1.0, 0.0]))
        np.testing.assert_allclose(after.reward, expected, rtol=1e-6)


def test_an_unknown_reward_and_an_empty_horizon_are_refused():
    with pytest.raises(OptionError, match="reward must be one of distance, squared_distance, not"):
        navigation("cubed_distance")
    with pytest.raises(OptionError, match="horizon must be at least 1, not 0"):
        navigation(horizon=0)


@pytest.mark.parametrize(("distance", "ends"), [(0.0, True), (0.0099, True), (0.0101, False)])
def test_an_episode_ends_within_a_hundredth_of_the_goal(distance, ends):
    assert REACHED == 0.01
    environment = navigation()
    goal = jnp.array([0.1, 0.1]) + distance * jnp.array([0.6, 0.8])
    state, _ = environment.reset(KEYS[0], goal)
    after = environment.step(goal, state, jnp.ones(2))
    assert bool(after.terminated) == ends
    np.testing.assert_allclose(after.reward, -distance, atol=1e-6)


def test_an_episode_that_arrives_is_over():
    rollouts = WALKS["distance"](KEYS[0], np.float32([0.25, 0.05]), 1.0, NO_NOISE)
    np.testing.assert_array_equal(rollouts.mask.sum(axis=1), np.full(8, 3))


def test_uniform_goals_fill_the_unit_square_around_the_origin():
    drawn = np.asarray(jax.vmap(GOALS["uniform"])(KEYS))
    assert np.abs(drawn).max() <= 0.5
    # The means within 5 standard errors, the corners approached, the axes independent.
    assert np.abs(drawn.mean(axis=0)).max() < 5 / np.sqrt(12 * 4000)
    assert np.all(drawn.min(axis=0) < -0.49)
    assert np.all(drawn.max(axis=0) > 0.49)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 5 / np.sqrt(4000)


def test_bimodal_goals_lie_around_two_opposite_corners():
    assert GOALS["bimodal"] is bimodal_goal
    drawn = np.asarray(jax.vmap(bimodal_goal)(KEYS), np.float64)

    def assert_mean(values, expected):
        assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(4000)

    assert_mean(drawn[:, 0], 0)
    assert_mean(drawn[:, 1], 0)
    # Across the diagonal N(0, 1/2); along it N(+-1, 1/2), each sign half of the time, whose fourth
    # moment is 1 + 6/2 + 3/4, where one mode of that variance would have 3 (3/2)^2.
    along, across = drawn.sum(axis=1), drawn[:, 0] - drawn[:, 1]
    assert_mean(across**2, 0.5)
    assert_mean(across**4, 0.75)
    assert_mean(along**2, 1.5)
    assert_mean(along**4, 4.75)
