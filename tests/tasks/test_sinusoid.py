"""The sinusoid tasks against their description in the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.tasks import sinusoid

KEYS = jax.random.split(jax.random.key(0), 4000)
settings = pytest.mark.parametrize("setting", sinusoid.SETTINGS.values(), ids=sinusoid.SETTINGS)


def test_settings_are_those_of_the_papers():
    pi = pytest.approx(np.pi)
    assert sinusoid.SETTINGS["default"] == ((0.1, 5.0), (0.0, pi), (1.0, 1.0), 0.0)
    two_pi = pytest.approx(2 * np.pi)
    assert sinusoid.SETTINGS["challenging"] == ((0.1, 5.0), (0.0, two_pi), (0.5, 2.0), 0.01)


@settings
def test_parameters_fill_their_ranges(setting):
    tasks = jax.vmap(lambda k: sinusoid.sample_sinusoid(k, setting))(KEYS)
    for values, (low, high) in zip(tasks, setting[:3], strict=True):
        # float32 rounds the ends.
        assert values.min() >= low - 1e-6
        assert values.max() <= high + 1e-6
        # A uniform's mean within 5 standard errors, and its ends approached.
        assert abs(values.mean() - (low + high) / 2) <= 5 * (high - low) / np.sqrt(12 * 4000) + 1e-6
        assert values.min() <= low + 0.01 * (high - low) + 1e-6
        assert values.max() >= high - 0.01 * (high - low) - 1e-6


def test_parameters_are_independent():
    tasks = jax.vmap(lambda k: sinusoid.sample_sinusoid(k, sinusoid.SETTINGS["challenging"]))(KEYS)
    correlation = np.corrcoef(np.stack(tasks))
    # 5 standard errors of a correlation of 4000 pairs.
    assert np.abs(correlation - np.eye(3)).max() < 5 / np.sqrt(4000)


@settings
def test_a_training_task_has_shots_and_queries_of_one_sinusoid(setting):
    task = sinusoid.sample_task(KEYS[0], setting, 10, 7)
    for points, number in ((task.support, 10), (task.query, 7)):
        assert points.x.shape == points.y.shape == (number, 1)
        assert np.all(np.abs(points.x) <= 5)
    assert not np.any(np.isin(task.support.x, task.query.x))


def test_the_default_setting_is_free_of_noise():
    task = sinusoid.sample_held_out_task(KEYS[0], sinusoid.SETTINGS["default"], 10, 100)
    np.testing.assert_array_equal(task.held_out.y, task.clean)
    np.testing.assert_allclose(
        task.support.y,
        task.sinusoid.amplitude * jnp.sin(task.support.x + task.sinusoid.phase),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_challenging_setting_s_noise_is_a_hundredth_of_the_amplitude():
    tasks = jax.vmap(
        lambda k: sinusoid.sample_held_out_task(k, sinusoid.SETTINGS["challenging"], 10, 100)
    )(KEYS[:200])
    relative = (tasks.held_out.y - tasks.clean) / tasks.sinusoid.amplitude[:, None, None]
    number = relative.size
    assert abs(relative.mean()) < 5 * 0.01 / np.sqrt(number)
    assert abs(relative.std() - 0.01) < 5 * 0.01 / np.sqrt(2 * number)
    assert tasks.support.x.shape == (200, 10, 1)
    # The support is noisy in the same way.
    support_noise = tasks.support.y - jax.vmap(lambda s, x: s(x))(tasks.sinusoid, tasks.support.x)
    assert np.all(support_noise != 0)


def test_inputs_are_uniform_in_minus_five_to_five():
    x = jax.vmap(lambda k: sinusoid.sample_task(k, sinusoid.SETTINGS["default"], 5, 5).support.x)(
        KEYS[:1000]
    )
    assert x.min() >= -5
    assert x.max() <= 5
    # A uniform's variance is 100 / 12; its relative standard error sqrt(0.8 / n).
    np.testing.assert_allclose(x.var(), 100 / 12, rtol=5 * np.sqrt(0.8 / x.size))
