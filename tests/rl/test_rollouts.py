"""Episodes: their length, their mask, and that they are the policy's and the environment's."""

import jax
import jax.numpy as jnp
import numpy as np

from gembml.rl import Environment, Transition, roll_out
from gembml.rl.rollouts import log_prob

HORIZON, ROLLOUTS = 7, 5
KEY = jax.random.key(0)


def countdown() -> Environment:
    """A point that drifts with its actions from a random start; a task is when the episode ends.

    The state goes on after the end, and every step has a reward of at least 1.
    """

    def reset(key, task):
        del task
        position = jax.random.normal(key, (2,))
        return (position, 0), position

    def step(task, state, action):
        position, count = state
        position, count = position + 0.1 * jnp.tanh(action), count + 1
        reward = 1 + jnp.sum(position**2)
        return Transition((position, count), position, reward, count >= task)

    return Environment(2, 2, HORIZON, reset, step)


def policy(params, observations):
    return observations @ params["weights"], params["log_std"]


PARAMS = {
    "weights": jnp.array([[0.5, -1.0], [0.3, 0.2]]),
    "log_std": jnp.array([-0.7, 0.4]),
}


def rollouts_of(task, key=KEY, number: int = ROLLOUTS):
    return roll_out(key, countdown(), policy, PARAMS, task, number)


def test_episodes_have_exactly_the_horizon_s_steps():
    rollouts = rollouts_of(jnp.int32(3))
    assert rollouts.observations.shape == rollouts.actions.shape == (ROLLOUTS, HORIZON, 2)
    assert rollouts.log_probs.shape == rollouts.rewards.shape == (ROLLOUTS, HORIZON)
    assert rollouts.mask.shape == (ROLLOUTS, HORIZON)
    assert rollouts.returns.shape == (ROLLOUTS,)


def test_the_mask_is_1_up_to_and_including_the_step_that_ends_the_episode():
    for last in (1, 3, HORIZON, HORIZON + 1):
        expected = np.arange(HORIZON) < last
        mask = rollouts_of(jnp.int32(last)).mask
        np.testing.assert_array_equal(mask, np.tile(expected, (ROLLOUTS, 1)))


def test_an_episode_that_has_ended_does_not_start_again():
    def step(task, state, action):
        after = countdown().step(task, state, action)
        return after._replace(terminated=after.state[1] == task)  # at one step only

    environment = countdown()._replace(step=step)
    rollouts = roll_out(KEY, environment, policy, PARAMS, jnp.int32(3), ROLLOUTS)
    np.testing.assert_array_equal(rollouts.mask, rollouts_of(jnp.int32(3)).mask)


def test_rewards_and_log_probs_are_0_after_the_end_and_only_there():
    rollouts = rollouts_of(jnp.int32(3))
    for values in (rollouts.rewards, rollouts.log_probs):
        assert np.all(values[:, :3] != 0)
        np.testing.assert_array_equal(values[:, 3:], 0)


def test_what_the_environment_does_after_the_end_is_not_seen():
    def step(task, state, action):
        after = countdown().step(task, state, action)
        position, count = after.state
        # The step that ends the episode has a reward still.
        return Transition(
            (jnp.where(count >= task, jnp.nan, position), count),
            jnp.where(count >= task, jnp.nan, after.observation),
            jnp.where(count > task, jnp.nan, after.reward),
            after.terminated,
        )

    broken = countdown()._replace(step=step)
    rollouts = roll_out(KEY, broken, policy, PARAMS, jnp.int32(3), ROLLOUTS)
    assert all(np.all(np.isfinite(leaf)) for leaf in rollouts)
    sound = rollouts_of(jnp.int32(3))
    for seen, expected in zip(rollouts, sound, strict=True):
        np.testing.assert_array_equal(seen[:, :3], expected[:, :3])
    np.testing.assert_array_equal(rollouts.returns, sound.returns)


def test_what_is_not_finite_before_the_end_shows():
    def step(task, state, action):
        after = countdown().step(task, state, action)
        return after._replace(reward=jnp.where(after.state[1] == 2, jnp.nan, after.reward))

    broken = countdown()._replace(step=step)
    rollouts = roll_out(KEY, broken, policy, PARAMS, jnp.int32(3), ROLLOUTS)
    assert np.all(np.isnan(rollouts.returns))


def test_rewards_are_the_environment_s():
    rollouts = rollouts_of(jnp.int32(HORIZON))
    after = rollouts.observations + 0.1 * jnp.tanh(rollouts.actions)
    np.testing.assert_allclose(rollouts.rewards, 1 + np.sum(after**2, axis=-1), rtol=1e-5)
    # What a step leads to is what the next action sees.
    np.testing.assert_allclose(after[:, :-1], rollouts.observations[:, 1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rollouts.returns, np.sum(rollouts.rewards, axis=1), rtol=1e-6)


def test_log_probs_are_the_policy_s_log_density_of_its_actions():
    rollouts = rollouts_of(jnp.int32(5))
    again = log_prob(policy, PARAMS, rollouts.observations, rollouts.actions)
    # Recomputing loses digits where an action is near its mean.
    np.testing.assert_allclose(rollouts.log_probs, again * rollouts.mask, rtol=1e-5, atol=1e-5)
    mean, std = rollouts.observations @ PARAMS["weights"], jnp.exp(PARAMS["log_std"])
    by_hand = jax.scipy.stats.norm.logpdf(rollouts.actions, mean, std).sum(axis=-1)
    np.testing.assert_allclose(again, by_hand, rtol=1e-5, atol=1e-5)


def test_actions_are_the_policy_s_with_independent_noise():
    number = 1_000
    rollouts = rollouts_of(jnp.int32(HORIZON), number=number)
    noise = (rollouts.actions - rollouts.observations @ PARAMS["weights"]) / jnp.exp(
        PARAMS["log_std"]
    )
    noise = np.asarray(noise).reshape(number, -1)
    # 5 standard errors of a mean, of a standard deviation, and of a correlation.
    assert np.abs(noise.mean(axis=0)).max() < 5 / np.sqrt(number)
    assert np.abs(noise.std(axis=0) - 1).max() < 5 / np.sqrt(2 * number)
    correlation = np.corrcoef(noise.T) - np.eye(noise.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(number)


def test_every_episode_has_a_start_and_noise_of_its_own():
    rollouts = rollouts_of(jnp.int32(HORIZON))
    for first in (rollouts.observations[:, 0, 0], rollouts.actions[:, 0, 0]):
        assert len(np.unique(first)) == ROLLOUTS


def test_the_same_key_gives_the_same_rollouts_and_another_key_others():
    task = jnp.int32(4)
    once, again, other = (rollouts_of(task, jax.random.key(seed)) for seed in (3, 3, 4))
    for left, right in zip(once, again, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.any(once.actions == other.actions)


def test_many_tasks_at_once_are_as_one_at_a_time():
    tasks, keys = jnp.array([1, 4, 9]), jax.random.split(KEY, 3)
    together = jax.vmap(rollouts_of)(tasks, keys)
    for index in range(3):
        alone = rollouts_of(tasks[index], keys[index])
        for batch, single in zip(together, alone, strict=True):
            # Batched matrix products are summed in another order.
            np.testing.assert_allclose(batch[index], single, rtol=1e-5, atol=1e-5)
