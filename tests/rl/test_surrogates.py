"""Surrogates against exact derivatives of the expected return, by enumerating every trajectory.

A Markov decision process with two states, two actions, a state in which episodes end, and three
steps has 212 trajectories. Expectations over them are sums, and the expected return is known by
dynamic programming, without trajectories.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.rl.returns import discounted_sums, generalized_advantages
from gembml.rl.surrogates import SURROGATES

pytestmark = pytest.mark.usefixtures("float64")

HORIZON, STATES, ACTIONS, END = 3, 2, 2, 2
START = np.array([0.6, 0.4])
# From state and action to the next state; the last column ends the episode.
TRANSITIONS = np.array(
    [[[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]], [[0.8, 0.1, 0.1], [0.25, 0.25, 0.5]]],
)
REWARDS = np.array([[1.0, -0.5], [0.3, 2.0]])
LOGITS = np.array([[0.2, -0.4], [0.7, 0.1]])

every_surrogate = pytest.mark.parametrize("name", SURROGATES)


class Trajectories(NamedTuple):
    """All trajectories; each array is ``[N, HORIZON]``, except the first, ``[N]``."""

    chance: np.ndarray
    """The factor of a trajectory's probability that is not the policy's."""
    states: np.ndarray
    actions: np.ndarray
    mask: np.ndarray


def enumerate_trajectories() -> Trajectories:
    rows = []
    steps = list(itertools.product(range(ACTIONS), range(STATES + 1)))
    for start, path in itertools.product(range(STATES), itertools.product(steps, repeat=HORIZON)):
        chance, state, row = START[start], start, []
        for action, following in path:
            row.append((0, 0, 0.0) if state == END else (state, action, 1.0))
            if state == END:  # goes on in one way only
                chance *= (action, following) == (0, END)
            else:
                chance *= TRANSITIONS[state, action, following]
            state = following
        if chance > 0:
            rows.append((chance, *zip(*row, strict=True)))
    chance, states, actions, mask = (np.array(column) for column in zip(*rows, strict=True))
    return Trajectories(chance, states, actions, mask)


ALL = enumerate_trajectories()


def value(logits: jax.Array) -> jax.Array:
    """The expected return at each step and state, ``[HORIZON + 1, STATES + 1]``."""
    pi = jax.nn.softmax(logits)
    values = [jnp.zeros(STATES + 1)]
    for _ in range(HORIZON):
        now = jnp.sum(pi * (REWARDS + TRANSITIONS @ values[-1]), axis=1)
        values.append(jnp.append(now, 0.0))
    return jnp.stack(values[::-1])


def expected_return(logits: jax.Array) -> jax.Array:
    return START @ value(logits)[0, :STATES]


def log_probs(logits: jax.Array) -> jax.Array:
    """Of every action of every trajectory, 0 where masked."""
    return jax.nn.log_softmax(logits)[ALL.states, ALL.actions] * ALL.mask


def probabilities(logits: jax.Array) -> jax.Array:
    return ALL.chance * jnp.exp(jnp.sum(log_probs(logits), axis=1))


def rewards() -> jax.Array:
    return jnp.asarray(REWARDS[ALL.states, ALL.actions] * ALL.mask)


def returns_to_go() -> jax.Array:
    return discounted_sums(rewards(), 1.0)


def with_baseline() -> jax.Array:
    """Returns minus an arbitrary function of the step and the state."""
    baseline = np.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.5]])
    values = jnp.asarray(baseline[np.arange(HORIZON), ALL.states])
    return generalized_advantages(rewards(), values, jnp.asarray(ALL.mask), 1.0, 1.0)


def with_exact_values() -> jax.Array:
    """Generalised advantages at lambda 0.5, unbiased where the values are the policy's own."""
    values = value(jnp.asarray(LOGITS))[np.arange(HORIZON), ALL.states]
    return generalized_advantages(rewards(), values, jnp.asarray(ALL.mask), 1.0, 0.5)


ADVANTAGES = {
    "returns to go": returns_to_go,
    "with a baseline": with_baseline,
    "with the exact values": with_exact_values,
}


def expected_surrogate(name: str, advantages: jax.Array):
    """The expectation over the policy of ``LOGITS``, as a function of other logits."""
    old = jnp.asarray(LOGITS)

    def expected(logits: jax.Array) -> jax.Array:
        terms = SURROGATES[name](log_probs(logits), log_probs(old), advantages)
        return probabilities(old) @ jnp.sum(terms, axis=1)

    return expected


def hessian(function) -> np.ndarray:
    return np.asarray(jax.jit(jax.hessian(function))(jnp.asarray(LOGITS))).reshape(LOGITS.size, -1)


@functools.cache
def exact_gradient() -> np.ndarray:
    return np.asarray(jax.jit(jax.grad(expected_return))(jnp.asarray(LOGITS)))


@functools.cache
def exact_hessian() -> np.ndarray:
    return hessian(expected_return)


def test_the_trajectories_are_all_there_and_their_mean_return_is_the_expected_one():
    p = probabilities(jnp.asarray(LOGITS))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    assert np.any(ALL.mask == 0)  # some end before the horizon
    mean = p @ rewards().sum(axis=1)
    np.testing.assert_allclose(mean, expected_return(jnp.asarray(LOGITS)), rtol=1e-12)


@every_surrogate
@pytest.mark.parametrize("advantages", ADVANTAGES)
def test_the_expected_gradient_is_the_exact_policy_gradient(name, advantages):
    surrogate = expected_surrogate(name, ADVANTAGES[advantages]())
    exact = exact_gradient()
    ours = jax.jit(jax.grad(surrogate))(jnp.asarray(LOGITS))
    np.testing.assert_allclose(ours, exact, rtol=1e-10)
    assert np.abs(exact).max() > 0.1


@every_surrogate
def test_every_trajectory_has_the_gradient_of_advantage_times_score(name):
    old = jnp.asarray(LOGITS)
    advantages = with_baseline()

    def terms(logits: jax.Array) -> jax.Array:
        return SURROGATES[name](log_probs(logits), log_probs(old), advantages)

    scores = jax.jacobian(log_probs)(old)
    np.testing.assert_allclose(
        jax.jacobian(terms)(old), advantages[..., None, None] * scores, atol=1e-12
    )


@pytest.mark.parametrize("advantages", ["returns to go", "with a baseline"])
def test_dice_s_expected_hessian_is_that_of_the_expected_return(advantages):
    exact = exact_hessian()
    ours = hessian(expected_surrogate("dice", ADVANTAGES[advantages]()))
    np.testing.assert_allclose(ours, exact, rtol=1e-10, atol=1e-12)
    assert np.abs(exact).max() > 0.1


@pytest.mark.parametrize("advantages", ["returns to go", "with a baseline"])
def test_dice_s_expectation_is_the_gain_in_expected_return_of_any_policy(advantages):
    expected = expected_surrogate("dice", ADVANTAGES[advantages]())
    for seed in range(3):
        logits = 2 * jax.random.normal(jax.random.key(seed), LOGITS.shape)
        gain = expected_return(logits) - expected_return(jnp.asarray(LOGITS))
        np.testing.assert_allclose(expected(logits), gain, rtol=1e-10)


@pytest.mark.parametrize("name", ["ratio", "log_prob"])
def test_the_other_surrogates_hessians_miss_terms(name):
    exact = exact_hessian()
    ours = hessian(expected_surrogate(name, returns_to_go()))
    assert np.linalg.norm(ours - exact) > 0.1 * np.linalg.norm(exact)


def test_ratio_s_hessian_lacks_only_how_later_states_and_actions_move():
    # In an episode of one step there are none.
    ends_at_once = jnp.asarray(np.where(np.arange(HORIZON) == 0, returns_to_go(), 0.0))
    ratio, dice, log_prob = (
        hessian(expected_surrogate(name, ends_at_once)) for name in ("ratio", "dice", "log_prob")
    )
    np.testing.assert_allclose(ratio, dice, atol=1e-12)
    assert np.linalg.norm(log_prob - dice) > 0.1 * np.linalg.norm(dice)


def test_log_prob_s_hessian_is_ratio_s_without_the_square_of_the_score():
    advantages, old = returns_to_go(), jnp.asarray(LOGITS)
    scores = np.asarray(jax.jacobian(log_probs)(old)).reshape(*ALL.mask.shape, -1)
    weights = np.asarray(probabilities(old))[:, None] * advantages
    squares = np.einsum("nt,nti,ntj->ij", weights, scores, scores)
    np.testing.assert_allclose(
        hessian(expected_surrogate("ratio", advantages)),
        hessian(expected_surrogate("log_prob", advantages)) + squares,
        rtol=1e-10,
        atol=1e-12,
    )


@every_surrogate
def test_nothing_is_added_after_the_end(name):
    old, new = log_probs(jnp.asarray(LOGITS)), log_probs(jnp.asarray(LOGITS[::-1]))
    terms = SURROGATES[name](new, old, returns_to_go())
    np.testing.assert_array_equal(np.asarray(terms)[ALL.mask == 0], 0)
