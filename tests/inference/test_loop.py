"""The inner loop: what it calls, how often, and that its two forms agree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta, Gaussian, gaussian
from gembml.base import Inference
from gembml.inference import infer, point, trajectory, variational, weight_samples
from gembml.optimizers import natural_gradient
from tests.problems import log_likelihood, make_task, make_weights

KEY = jax.random.key(0)


def with_natural_gradient() -> tuple[Inference, Gaussian]:
    return variational(weight_samples(log_likelihood), natural_gradient(0.1)), gaussian.around(
        make_weights(0), -2
    )


def with_sgd() -> tuple[Inference, Delta]:
    return point(log_likelihood, optax.sgd(0.1)), Delta(make_weights(0))


@pytest.mark.parametrize("make", [with_natural_gradient, with_sgd])
@pytest.mark.parametrize(("num_steps", "unroll"), [(1, False), (12, False), (5, True)])
def test_trajectory_starts_at_the_prior_and_ends_where_infer_ends(make, num_steps, unroll):
    inference, prior = make()
    support = make_task(0).support
    path = trajectory(inference, KEY, prior, lambda *_: support, num_steps)
    end = infer(inference, KEY, prior, lambda *_: support, num_steps, unroll=unroll)
    for states, first, last in zip(*map(jax.tree.leaves, (path, prior, end)), strict=True):
        assert states.shape == (num_steps + 1, *first.shape)
        np.testing.assert_array_equal(states[0], first)
        # Unrolled and rolled loops are compiled differently: float32 rounding, a few steps of it.
        np.testing.assert_allclose(states[-1], last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [with_natural_gradient, with_sgd])
def test_a_longer_trajectory_goes_on_from_a_shorter_one(make):
    inference, prior = make()
    support = make_task(0).support
    short, long = (trajectory(inference, KEY, prior, lambda *_: support, n) for n in (8, 12))
    for a, b in zip(*map(jax.tree.leaves, (short, long)), strict=True):
        np.testing.assert_allclose(a, b[:9], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_steps", [3, 8])
def test_data_are_collected_at_every_step_with_the_current_weights(num_steps):
    # The data are a goal one to the right of the current weights, as rollouts would be relative to
    # the current policy: a step of 0.1 towards the goal moves 0.1, every time. Stale weights would
    # converge to 1.
    inference = point(lambda w, goal: -0.5 * jnp.sum((w - goal) ** 2), optax.sgd(0.1))
    path = trajectory(inference, KEY, Delta(jnp.zeros(2)), lambda _, w: w + 1.0, num_steps)
    steps = np.arange(num_steps + 1)[:, None]
    np.testing.assert_allclose(path.mean, 0.1 * steps * np.ones(2), rtol=1e-5)


def test_variational_inference_collects_with_the_posterior_mean():
    inference = variational(
        weight_samples(lambda w, goal: -0.5 * jnp.sum((w - goal) ** 2)),
        optax.sgd(0.1),
        kl_weight=0.0,
    )
    prior = gaussian.around(jnp.zeros(2), -8.0)
    path = trajectory(inference, KEY, prior, lambda _, w: w + 1.0, 8)
    # Antithetic pairs: the samples' noise cancels in the mean's gradient.
    np.testing.assert_allclose(path.mean, 0.1 * np.arange(9)[:, None] * np.ones(2), rtol=1e-4)


@pytest.mark.parametrize("num_steps", [4, 9])
def test_data_are_collected_with_a_fresh_key_at_every_step(num_steps):
    # A linear likelihood, so that each step moves by what the key gave: mini-batches.
    inference = point(jnp.vdot, optax.sgd(1.0))
    collect = lambda key, _: jax.random.normal(key, (3,))  # noqa: E731
    path = trajectory(inference, KEY, Delta(jnp.zeros(3)), collect, num_steps)
    draws = np.diff(path.mean, axis=0)
    assert len(np.unique(draws.round(4))) == draws.size
    again = trajectory(inference, KEY, Delta(jnp.zeros(3)), collect, num_steps)
    np.testing.assert_array_equal(path.mean, again.mean)
    other = trajectory(inference, jax.random.key(1), Delta(jnp.zeros(3)), collect, num_steps)
    assert not np.any(np.isclose(path.mean[1:], other.mean[1:]))


def test_variational_noise_and_data_use_different_keys():
    # If the data's key were the noise's, data = noise would make every gradient deterministic: the
    # samples' product with the data would be their square, positive at every step.
    inference = variational(
        weight_samples(jnp.vdot, num_samples=1, antithetic=False),
        optax.sgd(1.0),
        kl_weight=0.0,
    )
    prior = gaussian.around(jnp.zeros(100), 0.0)
    path = trajectory(inference, KEY, prior, lambda key, _: jax.random.normal(key, (100,)), 1)
    moved = np.diff(path.log_std, axis=0)
    # d/d log_std of data * s * noise: a product of independent normals, of mean 0 and std 1.
    assert abs(moved.mean()) < 5 / np.sqrt(moved.size)
