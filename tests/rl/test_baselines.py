"""The linear baseline: what it can represent, what it ignores, and where it must not break."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.rl import baselines
from gembml.rl.baselines import BASELINES, linear_features, no_baseline

KEY = jax.random.key(0)
linear_baseline = jax.jit(baselines.linear_baseline)


def random_episodes(rollouts: int = 12, horizon: int = 30, size: int = 2):
    return jax.random.uniform(KEY, (rollouts, horizon, size), minval=-1.0, maxval=1.0)


def ends(rollouts: int, horizon: int) -> jax.Array:
    """A mask of episodes with different ends."""
    lengths = jax.random.randint(jax.random.key(1), (rollouts, 1), 3, horizon + 1)
    return (jnp.arange(horizon) < lengths).astype(jnp.float32)


def test_both_baselines_are_in_the_table():
    assert {"linear": baselines.linear_baseline, "none": no_baseline} == BASELINES


def test_no_baseline_is_zero():
    values = no_baseline(random_episodes(), jnp.ones((12, 30)), jnp.ones((12, 30)))
    np.testing.assert_array_equal(values, np.zeros((12, 30)))


def test_features_span_those_of_duan_et_al():
    observations = random_episodes(3, 20)
    t = np.broadcast_to(np.arange(20.0)[:, None] / 20, (3, 20, 1))
    theirs = np.concatenate([observations, observations**2, t, t**2, t**3, t**0], axis=-1)
    ours = np.asarray(linear_features(observations)).reshape(60, -1)
    assert ours.shape == (60, 2 * 2 + 4)
    theirs = theirs.reshape(60, -1)
    coefficients = np.linalg.lstsq(ours, theirs)[0]
    np.testing.assert_allclose(ours @ coefficients, theirs, atol=1e-5)


def test_features_clip_observations_at_10():
    far = jnp.array([[[12.0, -30.0]]])
    np.testing.assert_array_equal(
        linear_features(far), linear_features(jnp.array([[[10.0, -10.0]]]))
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 1000.0])
def test_a_return_that_is_linear_in_the_features_is_recovered(scale):
    observations = random_episodes()
    features = linear_features(observations)
    weights = jax.random.normal(KEY, (features.shape[-1],))
    returns = scale * features @ weights
    mask = ends(12, 30)
    values = linear_baseline(observations, returns * mask, mask)
    # The ridge of 1e-5 and single precision, against returns of size `scale`.
    np.testing.assert_allclose(values * mask, returns * mask, atol=2e-3 * scale)


def test_a_return_of_time_alone_is_recovered():
    t = jnp.arange(100.0)
    returns = jnp.broadcast_to(-((100 - t) ** 2), (5, 100))  # like that of a steady cost
    values = linear_baseline(jnp.zeros((5, 100, 2)), returns, jnp.ones((5, 100)))
    np.testing.assert_allclose(values, returns, atol=1e-3 * 100**2)


def test_what_is_left_is_uncorrelated_with_the_features():
    observations = random_episodes()
    returns = jax.random.normal(KEY, (12, 30))
    left = returns - linear_baseline(observations, returns, jnp.ones((12, 30)))
    features = linear_features(observations)
    correlation = jnp.einsum("nh,nhf->f", left, features) / left.size
    np.testing.assert_allclose(correlation, 0, atol=1e-4)  # the ridge's share
    assert np.var(left) < np.var(returns)


def test_masked_steps_are_ignored():
    observations, mask = random_episodes(), ends(12, 30)
    returns = jax.random.normal(KEY, (12, 30))
    running = mask > 0
    values = linear_baseline(observations, returns, mask)
    changed = linear_baseline(
        jnp.where(running[..., None], observations, 7.0), jnp.where(running, returns, -99.0), mask
    )
    np.testing.assert_allclose(values * mask, changed * mask, rtol=1e-5, atol=1e-5)


def walks(rollouts: int, horizon: int, size: int, seed: int) -> np.ndarray:
    """Observations like a robot's, neighbours alike, up to magnitude 10."""
    steps = np.random.default_rng(seed).normal(size=(rollouts, horizon, size))
    walk = np.cumsum(steps, axis=1)
    return 10 * walk / np.max(np.abs(walk), axis=(0, 1))


AWKWARD = {
    "zeros": np.zeros((20, 200, 17)),
    "constant": np.full((20, 200, 17), 9.9),
    "one rollout": walks(1, 200, 17, 1),
    "one step": walks(1, 1, 17, 0),
    "one step of many": walks(20, 1, 17, 0),
    "17 dimensions": walks(20, 200, 17, 2),
    "17 equal dimensions": np.repeat(walks(20, 200, 1, 3), 17, axis=-1),
    "17 steps of magnitude 10": 10 * np.sign(walks(20, 200, 17, 4)),
    "beyond the clip": 1e4 * walks(20, 200, 17, 5),
    "tiny": 1e-8 * walks(20, 200, 17, 6),
}


@pytest.mark.parametrize("awkward", AWKWARD)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_values_are_finite_and_no_worse_than_none_in_single_precision(awkward, size):
    observations = AWKWARD[awkward].astype(np.float32)
    shape = observations.shape[:2]
    noise = np.random.default_rng(0).normal(size=shape)
    returns = (size * (np.arange(shape[1])[::-1] + noise)).astype(np.float32)
    values = linear_baseline(observations, returns, np.ones(shape, np.float32))
    assert values.dtype == np.float32
    assert np.all(np.isfinite(values))
    # Least squares with a ridge is never above the zero it could have chosen.
    assert np.mean((returns - values) ** 2) <= np.mean(returns**2) * (1 + 1e-3)


def test_values_are_finite_where_nothing_runs_and_where_one_step_does():
    observations, returns = random_episodes(), jnp.ones((12, 30))
    nothing = jnp.zeros((12, 30))
    assert np.all(np.isfinite(linear_baseline(observations, returns * 0, nothing)))
    one = nothing.at[:, 0].set(1.0)
    assert np.all(np.isfinite(linear_baseline(observations, returns * one, one)))
