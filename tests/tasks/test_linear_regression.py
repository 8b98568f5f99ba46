"""Linear regression with known truth: what is exact is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import gaussian
from gembml.tasks import linear_regression as regression

pytestmark = pytest.mark.usefixtures("float64")
NOISE_STD = 0.5
TASK, PRIOR_KEY = jax.random.key(0), jax.random.key(1)


def test_the_exact_expectation_equals_its_monte_carlo_estimate():
    data = regression.sample_task(TASK, 10, 5, NOISE_STD).support
    posterior = regression.sample_prior(PRIOR_KEY, 5)
    num = 20_000
    weights = gaussian.sample(jax.random.key(2), posterior, num)
    log_likelihood = jax.vmap(lambda w: regression.log_likelihood(w, data, NOISE_STD))
    draws = np.asarray(jax.jit(log_likelihood)(weights))
    exact = regression.exact_expectation(NOISE_STD)(jax.random.key(3), posterior, data)
    assert abs(draws.mean() - exact) < 5 * draws.std() / np.sqrt(num)


def test_evidence_factorises_into_support_and_predictive():
    task = regression.sample_task(TASK, 10, 5, NOISE_STD)
    prior = regression.sample_prior(PRIOR_KEY, 5)
    of_all = regression.log_evidence(prior, regression.union(*task), NOISE_STD)
    of_support = regression.log_evidence(prior, task.support, NOISE_STD)
    predictive = regression.log_predictive(prior, task, NOISE_STD)
    np.testing.assert_allclose(of_all - of_support, predictive, rtol=1e-10)


def test_the_evidence_lies_above_the_elbo_and_touches_it_at_the_posterior():
    data = regression.sample_task(TASK, 10, 5, NOISE_STD).support
    prior = regression.sample_prior(PRIOR_KEY, 5)
    expectation = regression.exact_expectation(NOISE_STD)

    def elbo(posterior):
        fit = expectation(jax.random.key(0), posterior, data)
        return fit - gaussian.kl_divergence(posterior, prior)

    evidence = regression.log_evidence(prior, data, NOISE_STD)
    exact = regression.exact_posterior(prior, data, NOISE_STD)
    np.testing.assert_allclose(elbo(exact), evidence, rtol=1e-10)
    assert elbo(prior) < evidence


def test_sampled_designs_are_orthogonal_with_lengths_in_range():
    for data in regression.sample_task(TASK, 10, 5, NOISE_STD):
        gram = data.x.T @ data.x
        np.testing.assert_allclose(gram, jnp.diag(jnp.diag(gram)), atol=1e-12)
        lengths = jnp.sqrt(jnp.diag(gram))
        assert jnp.all((lengths >= 0.3) & (lengths <= 2.0))
