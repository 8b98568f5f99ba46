"""Classification measures by hand, and the average over samples."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gembml.evaluation import classification_metrics


def test_metrics_of_one_sample_by_hand():
    probabilities = jnp.array([[[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]]])
    metrics = classification_metrics(jnp.log(probabilities), jnp.array([0, 2]))
    assert metrics.accuracy == 0.5
    np.testing.assert_allclose(metrics.nll, -(np.log(0.7) + np.log(0.1)) / 2, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(metrics.bins15.confidence), 1.3, rtol=1e-5)
    # 10 bins: 0.7 is in (0.6, 0.7], 0.6 in (0.5, 0.6], closed on the right up to rounding of log.
    assert jnp.sum(metrics.bins10.count) == 2
    assert metrics.bins15.count.shape == (15,)
    assert metrics.bins10.count.shape == (10,)


def test_probabilities_are_averaged_and_not_their_logarithms():
    probabilities = jnp.array([[[0.9, 0.1]], [[0.3, 0.7]]])
    metrics = classification_metrics(jnp.log(probabilities), jnp.array([0]))
    np.testing.assert_allclose(metrics.nll, -np.log(0.6), rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(metrics.bins15.confidence), 0.6, rtol=1e-5)
    assert metrics.accuracy == 1.0


def test_a_sample_without_any_probability_leaves_the_others():
    log_probs = jnp.array([[[-jnp.inf, 0.0]], [[0.0, -jnp.inf]]])
    metrics = classification_metrics(log_probs, jnp.array([0]))
    np.testing.assert_allclose(metrics.nll, np.log(2.0), rtol=1e-5)


@given(seed=st.integers(0, 1000), samples=st.integers(1, 4))
def test_the_predictive_is_at_least_as_good_as_its_samples_are_on_average(seed, samples):
    # Jensen's inequality for -log.
    keys = jax.random.split(jax.random.key(seed), 2)
    log_probs = jax.nn.log_softmax(jax.random.normal(keys[0], (samples, 10, 5)))
    labels = jax.random.randint(keys[1], (10,), 0, 5)
    together = classification_metrics(log_probs, labels)
    apart = [classification_metrics(one[None], labels).nll for one in log_probs]
    assert together.nll <= np.mean(apart) + 1e-5
    for bins in (together.bins15, together.bins10):
        np.testing.assert_allclose(jnp.sum(bins.correct) / 10, together.accuracy, rtol=1e-5)
