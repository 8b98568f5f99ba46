"""Returns and advantages against arithmetic by hand and against their recursions."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gembml.rl import returns

pytestmark = pytest.mark.usefixtures("float64")

discounted_sums = jax.jit(returns.discounted_sums)
generalized_advantages = jax.jit(returns.generalized_advantages)
standardized = jax.jit(returns.standardized)

HORIZON = 6
fractions = st.floats(0, 1, allow_subnormal=False)


def episodes(low: float = -10, high: float = 10) -> st.SearchStrategy[np.ndarray]:
    """``[HORIZON]`` numbers."""
    numbers = st.floats(low, high, allow_subnormal=False)
    lists = st.lists(numbers, min_size=HORIZON, max_size=HORIZON)
    return lists.map(np.array)


def mask_of(length: int) -> np.ndarray:
    return np.where(np.arange(HORIZON) < length, 1.0, 0.0)


masks = st.integers(1, HORIZON).map(mask_of)


def assert_close(left, right) -> None:
    # Rounding in float64 over a handful of operations on numbers up to 100.
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-10)


def test_discounted_sums_by_hand():
    values = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]])
    assert_close(discounted_sums(values, 0.5), [[1 + 1 + 0.75, 2 + 1.5, 3], [1, 2, 4]])


@given(episodes(), fractions)
def test_discounted_sums_obey_their_recursion(values, discount):
    sums = discounted_sums(values, discount)
    assert_close(sums[-1], values[-1])
    assert_close(sums[:-1], values[:-1] + discount * sums[1:])


@given(episodes())
def test_discount_0_sees_one_step_and_discount_1_all(values):
    assert_close(discounted_sums(values, 0.0), values)
    assert_close(discounted_sums(values, 1.0), np.cumsum(values[::-1])[::-1])


REWARDS, VALUES = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])


def test_advantages_by_hand():
    advantages = generalized_advantages(REWARDS, VALUES, np.ones(3), 0.5, 0.5)
    # delta = (1 + 5/2 - 4, 2 + 6/2 - 5, 3 - 6), each next one weighing a quarter.
    assert_close(advantages, [-0.5 + 0.25 * -0.75, 0.25 * -3, -3])


def test_advantages_of_an_episode_that_ends_after_its_second_step_by_hand():
    mask = np.array([1.0, 1.0, 0.0])
    advantages = generalized_advantages(REWARDS * mask, VALUES, mask, 0.5, 0.5)
    # There is no value to come after the end: delta = (1 + 5/2 - 4, 2 - 5).
    assert_close(advantages, [-0.5 + 0.25 * -3, -3, 0])


@given(episodes(), episodes(), masks, fractions, fractions)
def test_advantages_obey_their_recursion(rewards, values, mask, discount, gae_lambda):
    advantages = generalized_advantages(rewards * mask, values, mask, discount, gae_lambda)
    following = 0.0  # A_{t + 1}
    value = 0.0  # V(s_{t + 1})
    for t in reversed(range(int(mask.sum()))):
        following = rewards[t] + discount * value - values[t] + discount * gae_lambda * following
        value = values[t]
        assert_close(advantages[t], following)


@given(episodes(), episodes(), masks, fractions)
def test_lambda_1_is_the_return_minus_the_baseline(rewards, values, mask, discount):
    advantages = generalized_advantages(rewards * mask, values, mask, discount, 1.0)
    assert_close(advantages, (discounted_sums(rewards * mask, discount) - values) * mask)


@given(episodes(), episodes(), episodes(), episodes(), masks, fractions, fractions)
def test_masked_steps_contribute_nothing(
    rewards, values, others, other_values, mask, discount, gae_lambda
):
    running = mask > 0
    advantages = generalized_advantages(rewards, values, mask, discount, gae_lambda)
    changed = generalized_advantages(
        np.where(running, rewards, others),
        np.where(running, values, other_values),
        mask,
        discount,
        gae_lambda,
    )
    assert_close(advantages, changed)
    assert not np.any(advantages[~running])


def test_many_episodes_are_each_their_own():
    rewards, values = np.random.default_rng(0).normal(size=(2, 3, HORIZON))
    mask = np.stack([mask_of(length) for length in (2, 6, 4)])
    together = generalized_advantages(rewards, values, mask, 0.9, 0.7)
    for n in range(3):
        alone = generalized_advantages(rewards[n], values[n], mask[n], 0.9, 0.7)
        assert_close(together[n], alone)


@given(episodes(), episodes(), masks)
def test_standardized_advantages_have_mean_0_and_standard_deviation_1(first, second, mask):
    advantages = np.stack([first, second])
    masks = np.stack([np.ones(HORIZON), mask])
    running = masks > 0
    scaled = np.asarray(standardized(advantages, masks))
    assert not np.any(scaled[~running])
    if np.std(advantages[running]) > 0.1:  # else the 1e-8 below shows
        assert abs(np.mean(scaled[running])) < 1e-7
        assert abs(np.std(scaled[running]) - 1) < 1e-6


@given(episodes(), episodes(), masks)
def test_standardizing_ignores_what_is_masked(advantages, others, mask):
    changed = np.where(mask > 0, advantages, others)
    assert_close(standardized(advantages, mask), standardized(changed, mask))


def test_equal_advantages_and_no_advantages_are_standardized_to_zero():
    equal = np.full((2, HORIZON), 3.0)
    np.testing.assert_array_equal(standardized(equal, np.ones_like(equal)), 0)
    np.testing.assert_array_equal(standardized(equal, np.zeros_like(equal)), 0)
