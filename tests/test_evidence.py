"""The library against exact answers: Gradient-EM is the gradient of the evidence (Theorem 1)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Gaussian, gaussian, gem_gradient
from gembml.base import Inference
from gembml.inference import infer, variational, weight_samples
from gembml.inference.variational import elbo
from gembml.meta_gradients import gem
from gembml.optimizers import natural_gradient
from gembml.tasks import linear_regression as regression
from tests.conjugate import (
    NOISE_STD,
    PROBLEM,
    exact_inference,
    exact_posterior,
    log_evidence,
    log_likelihood,
    log_predictive,
    make_prior,
    make_task,
    union,
)

pytestmark = pytest.mark.usefixtures("float64")
SEEDS = range(5)
KEY_SEED = 0

evidence_gradient = jax.jit(jax.grad(log_evidence))
predictive_gradient = jax.jit(jax.grad(log_predictive))


def assert_close(left: Gaussian, right: Gaussian, rtol: float = 1e-6, atol: float = 1e-9) -> None:
    # float64 leaves about 1e-12; 1e-6 is the precision that the claim is made to.
    np.testing.assert_allclose(left.mean, right.mean, rtol, atol)
    np.testing.assert_allclose(left.log_std, right.log_std, rtol, atol)


def minus(left: Gaussian, right: Gaussian) -> Gaussian:
    return jax.tree.map(jnp.subtract, left, right)


@pytest.mark.parametrize("seed", SEEDS)
def test_gem_gradient_equals_exact_evidence_gradient(seed):
    prior, task = make_prior(seed), make_task(seed)
    for data in (task.support, union(*task)):
        assert_close(
            gem_gradient(prior, exact_posterior(prior, data)), evidence_gradient(prior, data)
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_difference_of_gem_gradients_equals_exact_predictive_gradient(seed):
    prior, task = make_prior(seed), make_task(seed)
    difference = minus(
        gem_gradient(prior, exact_posterior(prior, union(*task))),
        gem_gradient(prior, exact_posterior(prior, task.support)),
    )
    assert_close(difference, predictive_gradient(prior, task))


@pytest.mark.parametrize("seed", SEEDS)
def test_gem_l1_with_exact_inference_is_the_gradient_of_the_evidence_of_all_data(seed):
    prior, task = make_prior(seed), make_task(seed)
    estimate = gem(PROBLEM, gaussian.family(0.0), exact_inference(), 3, objective="L1")
    expected = evidence_gradient(prior, union(*task))
    assert_close(estimate(jax.random.key(KEY_SEED), prior, task), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_gem_l2_with_exact_inference_is_the_gradient_of_the_predictive(seed):
    prior, task = make_prior(seed), make_task(seed)
    estimate = gem(PROBLEM, gaussian.family(0.0), exact_inference(), 3, objective="L2")
    expected = predictive_gradient(prior, task)
    assert_close(estimate(jax.random.key(KEY_SEED), prior, task), expected)


def test_sequential_bayes_is_the_posterior_of_the_union():
    prior, task = make_prior(0), make_task(0)
    in_sequence = exact_posterior(exact_posterior(prior, task.support), task.query)
    assert_close(in_sequence, exact_posterior(prior, union(*task)))


@pytest.mark.parametrize("kl_weight", [0.1, 1.0, 3.0])
def test_a_kl_weight_is_a_power_of_the_likelihood_in_the_posterior_and_in_gem_s_evidence(kl_weight):
    prior, task = make_prior(0), make_task(0)
    tempered_std = np.sqrt(kl_weight) * NOISE_STD
    posterior = regression.exact_posterior(prior, task.support, tempered_std)
    slope = jax.grad(elbo, argnums=1)(
        jax.random.key(KEY_SEED),
        posterior,
        prior,
        task.support,
        expected_log_likelihood=regression.exact_expectation(NOISE_STD),
        kl_weight=kl_weight,
    )
    assert_close(slope, jax.tree.map(jnp.zeros_like, slope))
    evidence = jax.grad(regression.log_evidence)(prior, task.support, tempered_std)
    assert_close(gem_gradient(prior, posterior), evidence)


def converged_inference(num_steps: int) -> Inference:
    """Natural-gradient VI, 8 antithetic pairs, steps decaying to 0 over ``num_steps``."""
    return variational(
        weight_samples(log_likelihood, num_samples=16, antithetic=True),
        natural_gradient(
            optax.cosine_decay_schedule(0.3, num_steps),
            log_std_multiplier=1.0,
            max_mean_norm=1e6,
            max_log_std_step=1e6,
        ),
    )


# Antithetic pairs make the mean's gradient exact here, so the mean converges geometrically. The
# log-std's gradient keeps the noise of 8 chi-squared numbers, sqrt(2 / 8) / 2 = 0.25 per step,
# which the decaying steps average down to about 0.02; 0.07 leaves four standard deviations.
MEAN_TOLERANCE, LOG_STD_TOLERANCE = 1e-6, 0.07
STEPS = 3000


def assert_converged(posterior: Gaussian, exact: Gaussian, mean_tolerance: float) -> None:
    np.testing.assert_allclose(posterior.mean, exact.mean, atol=mean_tolerance)
    np.testing.assert_allclose(posterior.log_std, exact.log_std, atol=LOG_STD_TOLERANCE)


def test_variational_inference_converges_to_the_exact_posterior():
    prior, task = make_prior(0), make_task(0)
    inference = converged_inference(STEPS)
    key = jax.random.key(KEY_SEED)
    posterior = infer(inference, key, prior, lambda *_: task.support, STEPS)
    assert_converged(posterior, exact_posterior(prior, task.support), MEAN_TOLERANCE)


def test_variational_inference_twice_is_the_posterior_of_the_union():
    prior, task = make_prior(1), make_task(1)
    inference = converged_inference(STEPS)
    first_key, second_key = jax.random.split(jax.random.key(KEY_SEED))
    first = infer(inference, first_key, prior, lambda *_: task.support, STEPS)
    second = infer(inference, second_key, first, lambda *_: task.query, STEPS)
    # The first posterior's log-std error shifts the weight of its mean in the second: a relative
    # error of 0.14 in precision moves the mean by as much of the distance that it moves.
    assert_converged(second, exact_posterior(prior, union(*task)), mean_tolerance=0.1)


@pytest.mark.parametrize("objective", ["L1", "L2"])
def test_gem_with_converged_variational_inference_approaches_the_exact_gradient(objective):
    prior, task = make_prior(2), make_task(2)
    exact = (
        evidence_gradient(prior, union(*task))
        if objective == "L1"
        else predictive_gradient(prior, task)
    )
    estimate = gem(
        PROBLEM, gaussian.family(0.0), converged_inference(STEPS), STEPS, objective=objective
    )(jax.random.key(KEY_SEED), prior, task)
    # The log-std errors of the posteriors above (a few 0.01 at most), doubled in s^2.
    np.testing.assert_allclose(estimate.mean, exact.mean, atol=0.15)
    np.testing.assert_allclose(estimate.log_std, exact.log_std, atol=0.15)


def test_the_designs_are_diagonal():
    for data in make_task(0):
        gram = data.x.T @ data.x
        np.testing.assert_allclose(gram, jnp.diag(jnp.diag(gram)), atol=1e-12)
