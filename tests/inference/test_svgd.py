"""Stein variational gradient descent: the direction, its limits, and what it samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gembml import Delta
from gembml.inference import infer, point, svgd
from gembml.inference.stein import stein_direction
from gembml.inference.svgd import log_prior
from gembml.particles import Particles
from tests.problems import log_likelihood, make_task, make_weights

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
RTOL = 1e-9  # float64 rounding

# Compiled once per shape.
direction = jax.jit(stein_direction)


@jax.jit
def kernel(a, b, bandwidth):
    return jnp.exp(-jnp.sum((a - b) ** 2) / bandwidth)


kernel_gradient = jax.jit(jax.grad(kernel))


def random_particles(number: int, seed: int = 0) -> Particles:
    keys = jax.random.split(jax.random.key(seed), 3)
    return Particles(
        {
            "w": jax.random.normal(keys[0], (number, 2, 3)),
            "b": jax.random.normal(keys[1], (number,)),
        },
        jax.random.normal(keys[2], (number,)),
    )


@pytest.mark.parametrize("number", [2, 3, 6])
def test_the_direction_is_the_equation_as_a_double_loop(number):
    particles, gradients = random_particles(number), random_particles(number, seed=1)

    def rows(tree) -> np.ndarray:
        leaves = jax.tree.leaves(tree)
        return np.concatenate([np.reshape(leaf, (number, -1)) for leaf in leaves], axis=1)

    x, g = rows(particles), rows(gradients)
    squares = [np.sum((x[i] - x[j]) ** 2) for i in range(number) for j in range(i)]
    h = np.median(squares) / np.log(number + 1)

    phi = np.zeros_like(x)
    for m in range(number):
        for j in range(number):
            attraction = kernel(x[j], x[m], h) * g[j]
            phi[m] += (attraction + kernel_gradient(x[j], x[m], h)) / number
    np.testing.assert_allclose(rows(direction(particles, gradients)), phi, rtol=RTOL)


def test_the_direction_of_one_particle_is_its_gradient():
    particles, gradients = random_particles(1), random_particles(1, seed=1)
    moved = direction(particles, gradients)
    for a, b in zip(*map(jax.tree.leaves, (moved, gradients)), strict=True):
        np.testing.assert_allclose(a, b, rtol=RTOL)


def test_two_particles_share_a_common_gradient_and_push_each_other_away():
    # At the median distance the kernel is 1 / (M + 1) = 1/3. The common gradient 1 then moves each
    # by (1 + 1/3) / 2, and the repulsion 2 / h |x - y| k / 2 parts them, h = |x - y|^2 / log 3.
    gap = 1e-3
    particles = Particles(jnp.array([[0.0], [gap]]))
    moved = direction(particles, Particles(jnp.ones((2, 1)))).weights
    repulsion = np.log(3) / gap / 3
    np.testing.assert_allclose(moved[:, 0], [2 / 3 - repulsion, 2 / 3 + repulsion], rtol=1e-9)


@pytest.mark.parametrize("number", [2, 5])
def test_particles_repel_each_other_under_a_flat_target(number):
    particles = Particles(jax.random.normal(KEY, (number, 3)))
    flat = jax.tree.map(jnp.zeros_like, particles)
    moved = direction(particles, flat).weights
    # Every force has an equal and opposite one, and the spread grows.
    np.testing.assert_allclose(moved.sum(axis=0), 0.0, atol=1e-12)
    centred = particles.weights - particles.weights.mean(axis=0)
    assert float(jnp.vdot(centred, moved)) > 0.1


def test_particles_in_one_place_stay_together_and_finite():
    particles = Particles(jnp.ones((3, 2)))
    moved = direction(particles, Particles(jnp.full((3, 2), 0.7))).weights
    np.testing.assert_allclose(moved, 0.7, rtol=1e-12)


def test_the_direction_has_a_finite_derivative_where_particles_coincide():
    def length(weights):
        return jnp.sum(stein_direction(Particles(weights), Particles(-weights)).weights ** 2)

    assert bool(jnp.isfinite(jax.jit(jax.grad(length))(jnp.ones((3, 2)))).all())


def test_svgd_samples_a_gaussian():
    mean, std, number = 1.5, 0.6, 40

    def move(particles, _):
        gradients = Particles(-(particles.weights - mean) / std**2)
        phi = stein_direction(particles, gradients)
        return jax.tree.map(lambda x, p: x + 0.05 * p, particles, phi), None

    start = Particles(3 * jax.random.normal(KEY, (number, 1)) - 2)
    end, _ = jax.jit(lambda x: jax.lax.scan(move, x, length=2000))(start)
    # At the fixed point the gradients sum to zero, kernel-weighted, and the mean is nearly exact;
    # 40 particles understate the spread by some per cent and leave the tails bare.
    np.testing.assert_allclose(end.weights.mean(), mean, atol=1e-3)
    np.testing.assert_allclose(end.weights.std(), std, rtol=0.1)
    ranks = np.sort(end.weights[:, 0])
    quantiles = stats.norm.ppf((np.arange(number) + 0.5) / number, mean, std)
    np.testing.assert_allclose(ranks[5:-5], quantiles[5:-5], atol=0.2 * std)


def test_the_particle_s_prior_is_normal_in_the_weights_and_gamma_in_their_precision():
    weights = {"w": jnp.array([[0.3, -1.2], [0.5, 2.0]]), "b": jnp.array([0.1])}

    def density(weights, log_precision) -> float:
        precision = np.exp(log_precision)
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights)])
        of_weights = stats.norm.logpdf(flat, 0.0, precision**-0.5).sum()
        # + log precision: the change of variables to the log precision.
        return of_weights + stats.gamma.logpdf(precision, 1.0, scale=10.0) + log_precision

    other = jax.tree.map(lambda leaf: leaf - 0.4, weights)
    difference = log_prior(weights, jnp.array(0.7)) - log_prior(other, jnp.array(-0.3))
    np.testing.assert_allclose(difference, density(weights, 0.7) - density(other, -0.3), rtol=RTOL)


@pytest.mark.parametrize("prior_weight", [1.0, 0.2])
def test_one_particle_ascends_its_log_joint_density(prior_weight):
    support = make_task(0).support
    inference = svgd(log_likelihood, optax.sgd(0.05), prior_weight=prior_weight)
    start = Particles(make_weights(0)[None], jnp.array([0.4]))
    end = infer(inference, KEY, start, lambda *_: support, 4)

    def log_joint(weights, log_precision):
        return log_likelihood(weights, support) + prior_weight * log_prior(weights, log_precision)

    ascend = jax.jit(jax.grad(log_joint, (0, 1)))
    weights, log_precision = make_weights(0), jnp.array(0.4)
    for _ in range(4):
        in_weights, in_precision = ascend(weights, log_precision)
        # The log precision in its Fisher metric: 3 / 2 + 1 for 3 weights.
        weights, log_precision = (
            weights + 0.05 * in_weights,
            log_precision + 0.05 * in_precision / 2.5,
        )
    np.testing.assert_allclose(end.weights[0], weights, rtol=RTOL)
    np.testing.assert_allclose(end.log_precision[0], log_precision, rtol=RTOL)


def test_a_step_in_log_precision_is_shortened_as_a_whole_which_keeps_the_fixed_points():
    # Dividing its gradient alone would let the repulsion spread the precisions: another target.
    support = make_task(2).support
    start = Particles(jnp.stack([make_weights(seed) for seed in range(3)]), jnp.arange(3.0))

    def log_joint(weights, log_precision):
        return log_likelihood(weights, support) + log_prior(weights, log_precision)

    gradients = jax.jit(jax.vmap(jax.grad(log_joint, (0, 1))))(*start)
    phi = direction(start, Particles(*gradients))
    end = infer(svgd(log_likelihood, optax.sgd(0.1)), KEY, start, lambda *_: support, 1)
    np.testing.assert_allclose(end.weights, start.weights + 0.1 * phi.weights, rtol=RTOL)
    moved = end.log_precision - start.log_precision
    np.testing.assert_allclose(moved, 0.1 * phi.log_precision / 2.5, rtol=RTOL)


def test_one_particle_without_a_prior_is_maml_s_inner_loop():
    support = make_task(1).support
    start = Particles(make_weights(1)[None], jnp.zeros(1))
    inference = svgd(log_likelihood, optax.sgd(0.1), prior_weight=0.0)
    end = infer(inference, KEY, start, lambda *_: support, 3)
    expected = infer(
        point(log_likelihood, optax.sgd(0.1)), KEY, Delta(make_weights(1)), lambda *_: support, 3
    )
    np.testing.assert_allclose(end.weights[0], expected.mean, rtol=RTOL)


def test_every_particle_collects_its_own_data():
    # The data are a goal one to the right of the particle that asks for it: particles far from
    # each other, each of which is drawn to its own goal.
    weights = jnp.array([[0.0], [1e3]])
    inference = svgd(
        lambda w, goal: -0.5 * jnp.sum((w - goal) ** 2), optax.sgd(0.3), prior_weight=0.0
    )
    moved = infer(inference, KEY, Particles(weights, jnp.zeros(2)), lambda _, w: w + 1.0, 1)
    # Both gradients are 1, whichever the kernel; the repulsion is equal and opposite. A goal of the
    # other particle's would be 1,000 away.
    total = moved.weights.sum() - weights.sum()
    np.testing.assert_allclose(total, 0.3 * (1 + 1 / 3), rtol=1e-9)
