"""Online EM against the moments of the mixture of the tasks' posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gembml import Delta, Gaussian, OptionError, gem_gradient
from gembml.optimizers import online_em
from tests.strategies import gaussians

pytestmark = pytest.mark.usefixtures("float64")
batches = st.lists(gaussians, min_size=1, max_size=4)
# Low enough not to act: the standard deviations of `gaussians` lie within a factor of 20.
INACTIVE_FLOOR = 1e-9


def step(prior: Gaussian, posteriors: list[Gaussian], size: float, floor: float) -> Gaussian:
    """One step on the negative L1 gradient, averaged over the tasks."""
    gradients = [gem_gradient(prior, posterior) for posterior in posteriors]
    descent = jax.tree.map(lambda *g: -sum(g) / len(g), *gradients)
    optimizer = online_em(size, min_variance_ratio=floor)
    return optax.apply_updates(prior, optimizer.update(descent, optimizer.init(prior), prior)[0])


def moments(posteriors: list[Gaussian]) -> tuple[np.ndarray, np.ndarray]:
    """E theta and E theta^2 of the mixture."""
    first = np.mean([q.mean for q in posteriors], axis=0)
    second = np.mean([q.mean**2 + np.exp(2 * q.log_std) for q in posteriors], axis=0)
    return first, second


@given(gaussians, batches)
def test_a_step_of_one_is_the_exact_m_step(prior, posteriors):
    new = step(prior, posteriors, 1.0, INACTIVE_FLOOR)
    first, second = moments(posteriors)
    # The variance is a difference of moments up to 20: absolute rounding 1e-14 in it, relative
    # 1e-12 at the smallest variance, e^-4.
    np.testing.assert_allclose(new.mean, first, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.exp(2 * new.log_std), second - first**2, rtol=1e-9, atol=1e-9)


@given(gaussians, batches, st.floats(0.01, 1.0))
def test_a_smaller_step_interpolates_the_expectation_parameters(prior, posteriors, size):
    new = step(prior, posteriors, size, INACTIVE_FLOOR)
    for after, before, target in zip(
        moments([new]), moments([prior]), moments(posteriors), strict=True
    ):
        expected = (1 - size) * before + size * target
        np.testing.assert_allclose(after, expected, rtol=1e-9, atol=1e-9)


@given(gaussians, batches, st.floats(0.01, 1.0), st.floats(0.1, 0.9))
def test_the_variance_stays_above_the_floor(prior, posteriors, size, floor):
    new = step(prior, posteriors, size, floor)
    assert np.all(new.log_std - prior.log_std >= 0.5 * np.log(floor) - 1e-12)


@given(gaussians)
def test_a_prior_that_is_every_posterior_stays(prior):
    new = step(prior, [prior, prior], 0.7, INACTIVE_FLOOR)
    np.testing.assert_allclose(new.mean, prior.mean, atol=1e-12)
    np.testing.assert_allclose(new.log_std, prior.log_std, atol=1e-12)


@pytest.mark.parametrize("size", [0.0, -0.1, 1.1])
def test_a_step_outside_zero_to_one_is_refused(size):
    with pytest.raises(OptionError, match=r"must lie in \(0, 1\]"):
        online_em(size)


@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_a_floor_outside_zero_to_one_is_refused(floor):
    with pytest.raises(OptionError, match="min_variance_ratio must lie in"):
        online_em(0.5, min_variance_ratio=floor)


def test_a_delta_prior_is_refused():
    delta = Delta(jnp.zeros(3))
    with pytest.raises(OptionError, match="needs a Gaussian prior"):
        online_em(0.5).update(delta, optax.EmptyState(), delta)


def test_a_schedule_gives_the_step_at_each_update():
    prior, posterior = (Gaussian(jnp.full(3, m), jnp.zeros(3)) for m in (0.0, 1.0))
    optimizer = online_em(lambda count: 1.0 / (1.0 + count))
    state, moved = optimizer.init(prior), []
    for _ in range(3):
        descent = jax.tree.map(jnp.negative, gem_gradient(prior, posterior))
        updates, state = optimizer.update(descent, state, prior)
        moved.append(updates.mean[0])
    np.testing.assert_allclose(moved, [1.0, 1 / 2, 1 / 3], rtol=1e-12)
