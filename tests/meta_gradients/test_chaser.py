"""Chaser losses: KL between Gaussians, squared distances between particles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import gaussian, particles
from gembml.inference import svgd, variational, weight_samples
from gembml.inference.svgd import log_prior
from gembml.meta_gradients import chaser, gem
from gembml.particles import Particles
from tests import conjugate
from tests.conjugate import exact_inference, exact_posterior
from tests.problems import log_likelihood, make_task, make_weights, problem

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
# float64 rounding over a few steps.
RTOL = 1e-9
ALPHA = 0.05


@functools.cache  # compiled once for all seeds
def exact_kl_chaser():
    estimate = chaser(
        conjugate.PROBLEM,
        exact_inference(),
        2,
        leader=exact_inference(),
        leader_steps=2,
        leader_data=conjugate.PROBLEM.query,
        distance=gaussian.kl_divergence,
    )
    return jax.jit(estimate)


@pytest.mark.parametrize("seed", range(3))
def test_kl_chaser_s_gradient_is_the_chain_rule_by_hand(seed):
    prior, task = conjugate.make_prior(seed), conjugate.make_task(seed)
    chasing = exact_posterior(prior, task.support)
    leading = exact_posterior(chasing, task.query)
    moved = leading.mean - chasing.mean
    variance, leader_variance = jnp.exp(2 * chasing.log_std), jnp.exp(2 * leading.log_std)
    # -KL in the chaser's parameters m, log s ...
    in_mean = moved / variance
    in_log_std = (leader_variance + moved**2) / variance - 1
    # ... and theirs in Theta: with r = s^2 / sigma^2, dm/dmu = d log s/d log sigma = r and
    # dm/d log sigma = 2 r (m - mu).
    ratio = variance * jnp.exp(-2 * prior.log_std)
    mean = ratio * in_mean
    log_std = ratio * (in_log_std + 2 * (chasing.mean - prior.mean) * in_mean)
    gradient = exact_kl_chaser()(KEY, prior, task)
    np.testing.assert_allclose(gradient.mean, mean, rtol=RTOL)
    np.testing.assert_allclose(gradient.log_std, log_std, rtol=RTOL)


@pytest.mark.parametrize("seed", range(3))
def test_kl_chaser_with_exact_inference_is_gem_bml_plus_and_the_gradient_of_the_predictive(seed):
    # -KL(sg(lambda_all) || lambda_tr) = E_all [log P(theta | Theta) - log P(D^tr | Theta)] + const:
    # its gradient is g(lambda_all) - g(lambda_tr) by Fisher's identity.
    prior, task = conjugate.make_prior(seed), conjugate.make_task(seed)
    gradient = exact_kl_chaser()(KEY, prior, task)
    plus = gem(conjugate.PROBLEM, gaussian.family(0.0), exact_inference(), 2, objective="L2")
    predictive = jax.grad(conjugate.log_predictive)(prior, task)
    for expected in (plus(KEY, prior, task), predictive):
        np.testing.assert_allclose(gradient.mean, expected.mean, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(gradient.log_std, expected.log_std, rtol=1e-8, atol=1e-10)


def test_kl_chaser_differentiates_nothing_through_the_leader():
    @jax.custom_jvp
    def gradient_of(weights, data):
        return jax.grad(log_likelihood)(weights, data)

    @gradient_of.defjvp
    def _refuse(*_):
        raise AssertionError("a second derivative was asked for")

    @jax.custom_vjp
    def first_derivative_only(weights, data):
        return log_likelihood(weights, data)

    first_derivative_only.defvjp(
        lambda *arguments: (log_likelihood(*arguments), arguments),
        lambda saved, g: (g * gradient_of(*saved), jax.tree.map(jnp.zeros_like, saved[1])),
    )

    def inference(likelihood):
        return variational(weight_samples(likelihood), optax.sgd(ALPHA))

    def kl_chaser(chasing, leading):
        estimate = chaser(
            problem(),
            inference(chasing),
            2,
            leader=inference(leading),
            leader_steps=3,
            leader_data=problem().query,
            distance=gaussian.kl_divergence,
        )
        return jax.jit(estimate)

    prior, task = gaussian.around(make_weights(0), -1.0), make_task(0)
    without = kl_chaser(log_likelihood, first_derivative_only)(KEY, prior, task)
    with_it = kl_chaser(log_likelihood, log_likelihood)(KEY, prior, task)
    np.testing.assert_allclose(without.mean, with_it.mean, rtol=RTOL)
    np.testing.assert_allclose(without.log_std, with_it.log_std, rtol=RTOL)
    with pytest.raises(AssertionError, match="second derivative"):
        kl_chaser(first_derivative_only, log_likelihood)(KEY, prior, task)


def joint_ascent(particle, data_sets, steps: int, prior_weight: float):
    """Gradient ascent on log P(D | theta) + w log P(theta, precision), written out."""

    def log_joint(weights, log_precision):
        fit = sum(log_likelihood(weights, data) for data in data_sets)
        return fit + prior_weight * log_prior(weights, log_precision)

    weights, log_precision = particle
    for _ in range(steps):
        in_weights, in_precision = jax.grad(log_joint, (0, 1))(weights, log_precision)
        weights = weights + ALPHA * in_weights
        # 3 weights: the precision's Fisher information is 3 / 2 + 1.
        log_precision = log_precision + ALPHA * in_precision / 2.5
    return weights, log_precision


@pytest.mark.parametrize(("num_steps", "leader_steps"), [(1, 1), (3, 2)])
def test_bmaml_with_one_particle_chases_a_point_by_squared_distance(num_steps, leader_steps):
    task, weights, prior_weight = make_task(1), make_weights(1), 0.1
    log_precision = jnp.array(0.4)

    def inference(likelihood):
        return svgd(likelihood, optax.sgd(ALPHA), prior_weight=prior_weight)

    estimate = chaser(
        problem(),
        inference(log_likelihood),
        num_steps,
        leader=inference(lambda w, both: sum(log_likelihood(w, data) for data in both)),
        leader_steps=leader_steps,
        leader_data=lambda key, task, params: (task.support, task.query),
        distance=particles.squared_distance,
    )
    prior = Particles(weights[None], log_precision[None])
    gradient = jax.jit(estimate)(KEY, prior, task)

    def chase(start):
        return joint_ascent(start, [task.support], num_steps, prior_weight)

    start = (weights, log_precision)
    end = chase(start)
    leader, _ = joint_ascent(end, task, leader_steps, prior_weight)
    # The chaser's Jacobian, and by hand d/d end of -|end - leader|^2.
    _, pull_back = jax.vjp(lambda start: chase(start)[0], start)
    (expected,) = pull_back(2 * (leader - end[0]))
    np.testing.assert_allclose(gradient.weights[0], expected[0], rtol=RTOL)
    np.testing.assert_allclose(gradient.log_precision[0], expected[1], rtol=RTOL)


def test_a_leader_that_stands_still_pulls_nothing():
    estimate = chaser(
        problem(),
        svgd(log_likelihood, optax.sgd(ALPHA)),
        2,
        leader=svgd(log_likelihood, optax.sgd(0.0)),
        leader_steps=2,
        leader_data=problem().query,
        distance=particles.squared_distance,
    )
    prior = Particles(jnp.stack([make_weights(seed) for seed in range(3)]), jnp.zeros(3))
    gradient = jax.jit(estimate)(KEY, prior, make_task(2))
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0.0)
