"""Every row of the algorithm table against its method's equation, written out step by step.

A row is what its builder wires together: which data, which objective, which of the configuration's
numbers go where. Estimators assembled by hand, as elsewhere, say nothing about that. Hence here a
meta-step of plain SGD with rate 1, whose length is the meta-gradient, of learners made by name; and
as reference loops in Python, which share no estimator and no inference with the library. No number
of the configuration is a neutral one, or equal to another.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import ALGORITHMS, Delta, Gaussian, LearnerConfig, Problem, make_learner
from gembml.base import Key, LearnerState
from gembml.gaussian import kl_divergence, standard_normal_like
from gembml.inference.learned_rates import LearnedRates
from gembml.inference.stein import stein_direction
from gembml.inference.svgd import log_prior
from gembml.particles import Particles
from gembml.platipus import Platipus
from tests import problems
from tests.problems import Data, Task, log_likelihood, quadratic_log_likelihood

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
RTOL, ATOL = 1e-9, 1e-11  # float64 rounding over a few steps
CONFIG = LearnerConfig(
    inner_optimizer="sgd",
    inner_learning_rate=0.07,
    inner_steps=3,
    query_steps=2,
    later_rate=0.8,
    expectation="local",
    kl_weight=0.6,
    log_std_init=-0.4,
    log_std_multiplier=1.7,
    hyperprior_weight=0.3,
    num_particles=3,
    leader_steps=2,
    proximal_weight=2.5,
    cg_steps=3,
    curvature_weight=0.2,
    meta_optimizer="sgd",
    meta_natural=False,
    meta_learning_rate=1.0,
    meta_schedule="constant",
)
RATE, STEPS, QUERY_STEPS, LATER = 0.07, 3, 2, 0.8
KL, LOG_STD, LOG_STD_MULTIPLIER, HYPERPRIOR = 0.6, -0.4, 1.7, 0.3
PARTICLES, LEADER_STEPS, PROXIMAL, CURVATURE = 3, 2, 2.5, 0.2

slope = jax.grad(log_likelihood)


def outputs(weights: jax.Array, data: Data) -> jax.Array:
    """In units of the noise, whose variance is 1/2 where log P(y) = -(f - y)^2."""
    return jnp.sqrt(2.0) * jnp.tanh(data.x @ weights)


POINTS = problems.problem()._replace(whitened_outputs=outputs)


def expected(posterior: Gaussian, data: Data) -> jax.Array:
    """E_{N(m, s^2)} of the quadratic log-likelihood: at m, minus tr(X diag(s^2) X^T) / 2."""
    spread = 0.5 * jnp.sum((data.x * jnp.exp(posterior.log_std)) ** 2)
    return quadratic_log_likelihood(posterior.mean, data) - spread


# Its expectations are exact, so that nothing is left to chance.
GAUSSIANS = problems.problem(quadratic_log_likelihood)._replace(
    local_log_likelihood=lambda key, posterior, data: expected(posterior, data)
)


def problem_of(name: str) -> Problem:
    return GAUSSIANS if ALGORITHMS[name].family == "gaussian" else POINTS


# The references.


def rate(step: int) -> float:
    return RATE * LATER**step


def descended(weights: jax.Array, data: Data, steps: int = STEPS, first: int = 0) -> jax.Array:
    for step in range(first, first + steps):
        weights = weights + rate(step) * slope(weights, data)
    return weights


def maml(prior: Delta, task: Task, key: Key) -> Delta:
    del key
    return Delta(
        jax.grad(lambda w: log_likelihood(descended(w, task.support), task.query))(prior.mean)
    )


def fomaml(prior: Delta, task: Task, key: Key) -> Delta:
    del key
    return Delta(slope(descended(prior.mean, task.support), task.query))


def reptile(prior: Delta, task: Task, key: Key) -> Delta:
    del key
    end = descended(descended(prior.mean, task.support), task.query, QUERY_STEPS, first=1)
    return Delta(end - prior.mean)


def pretrain(prior: Delta, task: Task, key: Key) -> Delta:
    del key
    return Delta(slope(prior.mean, task.support) + slope(prior.mean, task.query))


def proximal(prior: Delta, data: Data) -> jax.Array:
    weights = prior.mean
    for step in range(STEPS):
        pull = PROXIMAL * (prior.mean - weights)
        weights = weights + rate(step) * (slope(weights, data) + pull)
    return weights


def imaml(curvature: str, prior: Delta, task: Task) -> Delta:
    weights = proximal(prior, task.support)
    if curvature == "hessian":
        matrix = -jax.hessian(log_likelihood)(weights, task.support)
    else:
        jacobian = jax.jacfwd(outputs)(weights, task.support)
        matrix = jacobian.T @ jacobian
    gradient = slope(weights, task.query)
    return Delta(jnp.linalg.solve(jnp.eye(3) + matrix / PROXIMAL, gradient))


def rescaled(prior: LearnedRates, data: Data) -> jax.Array:
    weights = prior.mean
    for _ in range(STEPS):
        weights = weights + RATE * prior.multiplier * slope(weights, data)
    return weights


def meta_sgd(prior: LearnedRates, task: Task, key: Key) -> LearnedRates:
    del key
    return jax.grad(lambda p: log_likelihood(rescaled(p, task.support), task.query))(prior)


def emaml(prior: Particles, task: Task, key: Key) -> Particles:
    return Particles(jnp.stack([maml(Delta(w), task, key).mean for w in prior.weights]))


def precisions(weights: jax.Array, data: Data) -> jax.Array:
    """Diagonal of the Fisher matrix plus the prior's precision."""
    return jnp.sum(jax.jacfwd(outputs)(weights, data) ** 2, axis=0) + jnp.exp(-2 * LOG_STD)


def llama(prior: Delta, task: Task, key: Key) -> Delta:
    del key

    def evidence(weights: jax.Array) -> jax.Array:
        weights = descended(weights, task.support)
        log_determinant = jnp.log(precisions(weights, task.query)).sum()
        return log_likelihood(weights, task.query) - CURVATURE * log_determinant

    return Delta(jax.grad(evidence)(prior.mean))


def stein(particles: Particles, steps: int, *sets: Data) -> Particles:
    """SVGD on the sum of the sets' log-likelihoods and ``KL`` times the particles' own prior."""

    def target(weights: jax.Array, log_precision: jax.Array) -> jax.Array:
        fit = sum((log_likelihood(weights, data) for data in sets), start=jnp.zeros(()))
        return fit + KL * log_prior(weights, log_precision)

    for _ in range(steps):
        gradients = [jax.grad(target, (0, 1))(*pair) for pair in zip(*particles, strict=True)]
        stacked = Particles(*map(jnp.stack, zip(*gradients, strict=True)))
        direction = stein_direction(particles, stacked)
        particles = Particles(
            particles.weights + RATE * direction.weights,
            # The Fisher information of three weights in their log precision: 3 / 2 + 1.
            jnp.asarray(particles.log_precision)
            + RATE * jnp.asarray(direction.log_precision) / 2.5,
        )
    return particles


def bmaml(prior: Particles, task: Task, key: Key) -> Particles:
    del key
    leader = stein(stein(prior, STEPS, task.support), LEADER_STEPS, task.support, task.query)

    def closeness(prior: Particles) -> jax.Array:
        return -jnp.sum((leader.weights - stein(prior, STEPS, task.support).weights) ** 2)

    return jax.grad(closeness)(prior)


def platipus(prior: Platipus, task: Task, key: Key) -> Platipus:
    noise = standard_normal_like(jax.random.split(key, 3)[2], prior.prior.mean)

    def bound(prior: Platipus) -> jax.Array:
        mean = prior.prior.mean
        prior_rate, query_rate = RATE * prior.prior_multiplier, RATE * prior.query_multiplier
        p = Gaussian(mean + prior_rate * slope(mean, task.support), prior.prior.log_std)
        q = Gaussian(mean + query_rate * slope(mean, task.query), prior.query_log_std)
        weights = q.mean + jnp.exp(q.log_std) * noise
        for _ in range(STEPS):
            weights = weights + RATE * slope(weights, task.support)
        return log_likelihood(weights, task.query) - KL * kl_divergence(q, p)

    return jax.grad(bound)(prior)


def elbo(posterior: Gaussian, prior: Gaussian, *sets: Data) -> jax.Array:
    fit = sum((expected(posterior, data) for data in sets), start=jnp.zeros(()))
    return fit - KL * kl_divergence(posterior, prior)


def inferred(prior: Gaussian, data: Data, steps: int = STEPS, first: int = 0) -> Gaussian:
    posterior = prior
    for step in range(first, first + steps):
        gradient = jax.grad(elbo)(posterior, prior, data)
        posterior = Gaussian(
            posterior.mean + rate(step) * gradient.mean,
            posterior.log_std + LOG_STD_MULTIPLIER * rate(step) * gradient.log_std,
        )
    return posterior


def both(prior: Gaussian, task: Task) -> tuple[Gaussian, Gaussian]:
    """lambda_tr and lambda_all."""
    support = inferred(prior, task.support)
    return support, inferred(support, task.query, QUERY_STEPS, first=1)


def score(prior: Gaussian, posterior: Gaussian) -> Gaussian:
    """grad_Theta E_posterior log P(theta | Theta), up to the posterior's entropy."""
    return jax.grad(lambda prior: -kl_divergence(posterior, prior))(prior)


def gem_bml(prior: Gaussian, task: Task, key: Key) -> Gaussian:
    del key
    return score(prior, both(prior, task)[1])


def gem_bml_plus(prior: Gaussian, task: Task, key: Key) -> Gaussian:
    del key
    support, everything = both(prior, task)
    return jax.tree.map(jnp.subtract, score(prior, everything), score(prior, support))


def log_hyperprior(prior: Gaussian) -> jax.Array:
    """N(0, 1) on each mean and Gamma(1, 0.01) on each precision, up to a constant."""
    return -HYPERPRIOR * jnp.sum(0.5 * prior.mean**2 + 0.01 * jnp.exp(-2 * prior.log_std))


def amortized_bml(prior: Gaussian, task: Task, key: Key) -> Gaussian:
    del key
    return jax.grad(lambda p: elbo(inferred(p, task.support), p, *task) + log_hyperprior(p))(prior)


def amortized_by_all(prior: Gaussian, task: Task, key: Key) -> Gaussian:
    del key
    return jax.grad(lambda p: elbo(both(p, task)[1], p, *task) + log_hyperprior(p))(prior)


def pmaml(prior: Gaussian, task: Task, key: Key) -> Gaussian:
    del key

    def bound(prior: Gaussian) -> jax.Array:
        support, everything = both(prior, task)
        return elbo(everything, support, task.query)

    return jax.grad(bound)(prior)


def elbo_difference(prior: Gaussian, task: Task, key: Key) -> Gaussian:
    del key

    def bound(prior: Gaussian) -> jax.Array:
        support, everything = both(prior, task)
        return elbo(everything, prior, *task) - elbo(support, prior, task.support)

    return jax.grad(bound)(prior)


def kl_chaser(prior: Gaussian, task: Task, key: Key) -> Gaussian:
    del key
    leader = both(prior, task)[1]
    return jax.grad(lambda p: -kl_divergence(leader, inferred(p, task.support)))(prior)


class Case(NamedTuple):
    """A row with some numbers of its own, and what it should do."""

    row: str
    gradient: Callable[[Any, Task, Key], Any]
    changes: Mapping[str, Any] = types.MappingProxyType({})


_BY_NAME = (
    *(gem_bml, gem_bml_plus, pmaml, elbo_difference, kl_chaser),
    *(maml, fomaml, reptile, pretrain, meta_sgd, emaml, llama, platipus),
)
CASES = {reference.__name__: Case(reference.__name__, reference) for reference in _BY_NAME} | {
    # It takes no step on the query set.
    "amortized_bml": Case("amortized_bml", amortized_bml, {"query_steps": 0}),
    "amortized_by_all": Case("amortized_bml", amortized_by_all, {"amortized_posterior": "all"}),
    # Its leader goes on from the chaser's end, whether or not at a smaller rate.
    "bmaml": Case("bmaml", bmaml, {"later_rate": 1.0}),
    "imaml": Case("imaml", lambda prior, task, key: imaml("hessian", prior, task)),
    "imaml_gauss_newton": Case(
        "imaml",
        lambda prior, task, key: imaml("gauss_newton", prior, task),
        {"curvature": "gauss_newton"},
    ),
}


def make_prior(name: str) -> Any:
    """A prior whose numbers are all different."""
    keys = jax.random.split(jax.random.key(11), 4)
    mean = 0.7 * jax.random.normal(keys[0], (3,))
    uniform = jax.random.uniform(keys[1], (3,), minval=-0.8, maxval=0.1)
    if name == "platipus":
        rates = jnp.array([0.7, 1.2, 0.9])
        return Platipus(Gaussian(mean, uniform), uniform[::-1] - 0.3, rates, 2.0 - rates)
    if name == "meta_sgd":
        return LearnedRates(mean, jnp.array([0.6, 1.0, 1.7]))
    if ALGORITHMS[name].family == "gaussian":
        return Gaussian(mean, uniform)
    if ALGORITHMS[name].family == "particles":
        weights = 0.7 * jax.random.normal(keys[2], (PARTICLES, 3))
        return Particles(weights, jnp.array([0.4, -0.2, 0.9]) if name == "bmaml" else None)
    return Delta(mean)


def assert_close(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(*map(jax.tree.leaves, (left, right)), strict=True):
        np.testing.assert_allclose(a, b, rtol=RTOL, atol=ATOL)


def learner_of(case: Case):
    config = dataclasses.replace(CONFIG, **case.changes)
    return make_learner(case.row, problem_of(case.row), config, 1)


def test_every_row_has_a_reference():
    assert {case.row for case in CASES.values()} == set(ALGORITHMS)


@pytest.mark.parametrize("name", CASES)
def test_a_row_s_meta_step_is_its_method_s_equation(name):
    case = CASES[name]
    learner, prior = learner_of(case), make_prior(case.row)
    tasks = [problems.make_task(seed) for seed in (0, 1)]
    state = LearnerState(prior, learner.init(KEY).optimizer_state)
    new, _ = jax.jit(learner.update)(
        state, KEY, jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    )
    moved = jax.tree.map(jnp.subtract, new.prior, prior)

    reference = jax.jit(case.gradient)
    found = [
        reference(prior, task, key)
        for task, key in zip(tasks, jax.random.split(KEY, 2), strict=True)
    ]
    assert optax.global_norm(found[0]) > 1e-2
    assert_close(moved, jax.tree.map(lambda *leaves: sum(leaves) / 2, *found))


def adapted(name: str, prior: Any, start: Any, data: Data) -> Any:
    """What a row should make of a data set at meta-test."""
    match name:
        case _ if ALGORITHMS[name].family == "gaussian":
            end = inferred(prior, data)
        case "imaml":
            end = Delta(proximal(prior, data))
        case "meta_sgd":
            end = Delta(rescaled(prior, data))
        case "bmaml":
            end = stein(prior, STEPS, data)
        case "emaml":
            end = Particles(jnp.stack([descended(weights, data) for weights in prior.weights]))
        case "platipus":  # Algorithm 2; its start is drawn from p(theta)
            shift = prior.prior_multiplier * RATE * slope(prior.prior.mean, data)
            weights = start.weights + shift
            for _ in range(STEPS):
                weights = weights + RATE * jax.vmap(slope, (0, None))(weights, data)
            end = Particles(weights)
        case "llama":
            weights = descended(prior.mean, data)
            end = Gaussian(weights, -0.5 * jnp.log(precisions(weights, data)))
        case _:
            end = Delta(descended(prior.mean, data))
    return end


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_row_adapts_at_meta_test_as_its_inner_loop_says(name):
    case = CASES[name]
    learner, prior = learner_of(case), make_prior(name)
    data = problems.make_task(0).support
    path = jax.jit(lambda prior: learner.adapt(prior, KEY, lambda *_: data, STEPS))(prior)
    start, end = (jax.tree.map(lambda leaf, at=at: leaf[at], path) for at in (0, -1))
    assert_close(end, jax.jit(lambda *args: adapted(name, *args))(prior, start, data))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_row_s_prior_starts_with_the_configuration_s_numbers(name):
    prior = learner_of(CASES[name]).init(KEY).prior
    shape = lambda leaf: leaf.shape  # noqa: E731
    assert jax.tree.map(shape, prior) == jax.tree.map(shape, make_prior(name))
    if ALGORITHMS[name].family == "gaussian":
        np.testing.assert_array_equal(prior.log_std, LOG_STD)
    if name == "platipus":
        np.testing.assert_array_equal(prior.prior.log_std, LOG_STD)


class Drawn(NamedTuple):
    """Data that tell of what they were drawn for."""

    number: jax.Array
    of_query: jax.Array


# How often a case draws support and query: once per inner step, and where its objective is taken.
_IN_LEADER = PARTICLES * LEADER_STEPS  # each particle draws its own
DRAWS = {
    "gem_bml": (STEPS, QUERY_STEPS),
    "gem_bml_plus": (STEPS, QUERY_STEPS),
    "amortized_bml": (STEPS + 1, 1),
    "amortized_by_all": (STEPS + 1, QUERY_STEPS + 1),
    "pmaml": (STEPS, QUERY_STEPS + 1),
    "elbo_difference": (STEPS + 1, QUERY_STEPS + 1),
    "kl_chaser": (STEPS, QUERY_STEPS),
    "maml": (STEPS, 1),
    "fomaml": (STEPS, 1),
    "reptile": (STEPS, QUERY_STEPS),
    "pretrain": (1, 1),
    "meta_sgd": (STEPS, 1),
    "emaml": (STEPS, 1),  # the particles see the same data
    "llama": (STEPS, 1),
    "platipus": (1, 1),
    "bmaml": (PARTICLES * STEPS + _IN_LEADER, _IN_LEADER),
    "imaml": (STEPS + 1, 1),
    "imaml_gauss_newton": (STEPS, 1),  # its curvature needs no likelihood
}


@pytest.mark.parametrize("name", CASES)
def test_data_that_are_drawn_are_others_at_every_use(name):
    received: dict[bool, set[float]] = {False: set(), True: set()}

    def record(data: Drawn) -> None:
        received[bool(data.of_query)].add(float(data.number))

    def likelihood(weights: jax.Array, data: Drawn) -> jax.Array:
        jax.debug.callback(record, data)
        return -0.5 * jnp.sum((weights - data.number) ** 2)

    def draw(*, of_query: bool):
        return lambda key, task, params: Drawn(jax.random.normal(key), jnp.array(of_query))

    case = CASES[name]
    problem = Problem(
        init=lambda key: jax.random.normal(key, (3,)),
        log_likelihood=likelihood,
        support=draw(of_query=False),
        query=draw(of_query=True),
        whitened_outputs=lambda weights, data: weights - data.number,
    )
    config = dataclasses.replace(CONFIG, **case.changes, expectation="weights")
    meta_gradient = ALGORITHMS[case.row].build(problem, config).meta_gradient
    jax.block_until_ready(jax.jit(meta_gradient)(KEY, make_prior(case.row), jnp.zeros(())))
    jax.effects_barrier()
    assert (len(received[False]), len(received[True])) == DRAWS[name]
    assert not received[False] & received[True]
