"""The ELBO's estimate against its exact value, and the options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import OptionError, gaussian
from gembml.inference import elbo, infer, variational, weight_samples
from gembml.optimizers import on_mean
from tests.conjugate import (
    NOISE_STD,
    exact_posterior,
    log_evidence,
    log_likelihood,
    make_prior,
    make_task,
)

pytestmark = pytest.mark.usefixtures("float64")


def exact_elbo(posterior, prior, data, kl_weight):
    """E log N(y | X theta, noise^2) = log N(y | X m, .) - tr(X diag(s^2) X^T) / (2 noise^2)."""
    spread = jnp.sum((data.x * jnp.exp(posterior.log_std)) ** 2) / (2 * NOISE_STD**2)
    expected = log_likelihood(posterior.mean, data) - spread
    return expected - kl_weight * gaussian.kl_divergence(posterior, prior)


@pytest.mark.parametrize(("num_samples", "antithetic"), [(1, False), (2, False), (2, True)])
def test_elbo_is_unbiased_and_so_is_its_gradient(num_samples, antithetic):
    posterior, prior, data = make_prior(0), make_prior(1), make_task(0).support
    estimate = functools.partial(
        elbo,
        expected_log_likelihood=weight_samples(
            log_likelihood, num_samples=num_samples, antithetic=antithetic
        ),
        kl_weight=0.7,
    )
    num = 10_000
    draw = jax.jit(jax.vmap(jax.value_and_grad(estimate, argnums=1), in_axes=(0, None, None, None)))
    draws = draw(jax.random.split(jax.random.key(0), num), posterior, prior, data)
    exact = jax.value_and_grad(exact_elbo)(posterior, prior, data, 0.7)
    for sampled, expected in zip(*map(jax.tree.leaves, (draws, exact)), strict=True):
        standard_error = np.std(sampled, axis=0) / np.sqrt(num)
        # An antithetic pair leaves no noise in the mean's gradient: rounding only.
        assert np.all(np.abs(np.mean(sampled, axis=0) - expected) < 5 * standard_error + 1e-9)


def test_polyak_s_step_is_of_the_mean_by_the_objective_and_the_kl():
    prior, data = make_prior(1), make_task(0).support
    inference = variational(
        weight_samples(log_likelihood, num_samples=2),
        on_mean(optax.polyak_sgd(max_learning_rate=1.0, eps=3.0)),
        kl_weight=0.7,
        objective=lambda data: jnp.float64(-5.0),
    )
    start, end = (
        infer(inference, jax.random.key(0), prior, lambda *_: data, steps) for steps in (1, 2)
    )
    # Antithetic pairs make the mean's gradient exact.
    gradient = jax.grad(lambda m: exact_elbo(start._replace(mean=m), prior, data, 0.7))(start.mean)
    gap = 5.0 + 0.7 * gaussian.kl_divergence(start, prior)
    rate = jnp.minimum(gap / (jnp.sum(gradient**2) + 3.0), 1.0)
    np.testing.assert_allclose(end.mean, start.mean + rate * gradient, rtol=1e-9)
    np.testing.assert_array_equal(end.log_std, prior.log_std)


def test_antithetic_pairs_make_the_mean_s_gradient_exact_for_a_quadratic():
    posterior, prior, data = make_prior(0), make_prior(1), make_task(0).support
    gradient = jax.grad(elbo, argnums=1)(
        jax.random.key(0),
        posterior,
        prior,
        data,
        expected_log_likelihood=weight_samples(log_likelihood, num_samples=2, antithetic=True),
        kl_weight=1.0,
    )
    exact = jax.grad(exact_elbo)(posterior, prior, data, 1.0)
    np.testing.assert_allclose(gradient.mean, exact.mean, rtol=1e-10)


def test_elbo_at_the_exact_posterior_is_the_log_evidence():
    prior, data = make_prior(0), make_task(0).support
    bound = exact_elbo(exact_posterior(prior, data), prior, data, 1.0)
    np.testing.assert_allclose(bound, log_evidence(prior, data), rtol=1e-10)


@pytest.mark.parametrize("num_samples", [1, 4])
def test_more_samples_lower_the_variance(num_samples):
    posterior, data = make_prior(0), make_task(0).support
    keys = jax.random.split(jax.random.key(0), 2000)

    def variance(n: int) -> float:
        estimate = weight_samples(log_likelihood, num_samples=n, antithetic=False)
        return float(jnp.var(jax.vmap(lambda k: estimate(k, posterior, data))(keys)))

    # Var = Var_1 / n; 2000 draws give a ratio within 20%.
    np.testing.assert_allclose(variance(2 * num_samples) / variance(num_samples), 0.5, rtol=0.2)


def test_any_optax_optimizer_works():
    prior, data = make_prior(0), make_task(0).support
    for optimizer in (optax.sgd(1e-3), optax.adam(0.01), optax.rmsprop(1e-3)):
        inference = variational(weight_samples(log_likelihood), optimizer)
        posterior = infer(inference, jax.random.key(0), prior, lambda *_: data, 50)
        assert exact_elbo(posterior, prior, data, 1.0) > exact_elbo(prior, prior, data, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, not 0"),
        ({"num_samples": 3, "antithetic": True}, "must be even with antithetic pairs, not 3"),
    ],
)
def test_nonsense_is_refused_when_the_estimator_is_built(options, message):
    with pytest.raises(OptionError, match=message):
        weight_samples(log_likelihood, **options)


def test_a_negative_kl_weight_is_refused():
    with pytest.raises(OptionError, match="kl_weight must not be negative"):
        variational(weight_samples(log_likelihood), optax.sgd(0.1), kl_weight=-1.0)
