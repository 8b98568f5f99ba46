"""Errors of the meta-gradient's estimators on problems whose gradient is known: appendix C.1.

All of it is meant for float64. An error is |g - g*| / |g*| with g* the exact gradient; that of an
inner loop that diverged is infinite.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gembml import gaussian
from gembml.base import Key, MetaGradient
from gembml.gaussian import Gaussian
from gembml.inference import ExpectedLogLikelihood, variational, weight_samples
from gembml.meta_gradients import elbo_gradient, gem
from gembml.meta_gradients.error_bound import chi_squared, score_norm
from gembml.meta_gradients.gem import sequential_posteriors
from gembml.tasks import linear_regression as regression

POINTS, FEATURES, NOISE_STD = 10, 5, 0.5
_PROBLEM = regression.linear_regression(FEATURES, NOISE_STD)


class Regime(NamedTuple):
    """How the inner loop sees the expectation in its ELBO, and what its step size does."""

    expectation: ExpectedLogLikelihood
    decaying: bool
    label: str


_ONE_SAMPLE = weight_samples(_PROBLEM.log_likelihood, num_samples=1, antithetic=False)
_PAIR = weight_samples(_PROBLEM.log_likelihood, num_samples=2, antithetic=True)
REGIMES: dict[str, Regime] = {
    "exact": Regime(regression.exact_expectation(NOISE_STD), False, "exact expectations"),
    "one_sample": Regime(_ONE_SAMPLE, False, "one sample per step"),
    "antithetic_pair": Regime(_PAIR, False, "one antithetic pair per step"),
    "one_sample_decaying": Regime(_ONE_SAMPLE, True, "one sample per step, rate decaying to 0"),
}

# Name -> the objective whose exact gradient is the truth, and the estimator.
ESTIMATORS: dict[str, tuple[str, str]] = {
    "L1_gem": ("L1", "gem"),
    "L1_elbo": ("L1", "L1"),
    "L2_gem": ("L2", "gem"),
    "L2_elbo": ("L2", "L2"),
    "L2_elbo_difference": ("L2", "L2_difference"),
}


class Instances(NamedTuple):
    """Problems with their exact gradients; leaves are ``[instances, ...]``."""

    noise: Key
    prior: Gaussian
    task: regression.Task
    truth: dict[str, Gaussian]
    """``"L1"`` and ``"L2"`` -> gradient of log P(D^tr u D^val | Theta), log P(D^val | D^tr, Theta).
    """


@functools.partial(jax.jit, static_argnums=1)
def sample_instances(key: Key, number: int) -> Instances:
    """Independent problems: a prior, a task, and the key of its inner loop's noise."""

    def sample(key: Key) -> Instances:
        noise, prior_key, task_key = jax.random.split(key, 3)
        prior = regression.sample_prior(prior_key, FEATURES)
        task = regression.sample_task(task_key, POINTS, FEATURES, NOISE_STD)
        truth = {
            "L1": jax.grad(regression.log_evidence)(prior, regression.union(*task), NOISE_STD),
            "L2": jax.grad(regression.log_predictive)(prior, task, NOISE_STD),
        }
        return Instances(noise, prior, task, truth)

    return jax.vmap(sample)(jax.random.split(key, number))


def step_sizes(num_steps: int, most: int, rate: float, *, decaying: bool) -> np.ndarray:
    """The rates of ``num_steps`` inner steps, then 0 up to ``most``; ``[most]``.

    Steps of rate 0 change neither the posterior nor its derivative, so that one compiled program
    serves every number of steps.
    """
    step = np.arange(most)
    shape = 0.5 * (1 + np.cos(np.pi * step / max(num_steps, 1))) if decaying else np.ones(most)
    return np.where(step < num_steps, rate * shape, 0.0)


def _estimator(
    name: str, expectation: ExpectedLogLikelihood, rates: jax.Array, most: int
) -> MetaGradient:
    _, kind = ESTIMATORS[name]
    inference = variational(expectation, optax.sgd(lambda step: rates[step]))
    if kind == "gem":
        objective, _ = ESTIMATORS[name]
        return gem(_PROBLEM, gaussian.family(0.0), inference, most, objective=objective)
    return elbo_gradient(_PROBLEM, inference, expectation, most, objective=kind)


def _distance(left: Gaussian, right: Gaussian) -> jax.Array:
    return optax.global_norm(jax.tree.map(jnp.subtract, left, right))


def error_of(
    name: str, expectation: ExpectedLogLikelihood, most: int
) -> Callable[[Instances, jax.Array], jax.Array]:
    """``(instances, rates [most])`` -> relative errors ``[instances]``, compiled."""
    objective, _ = ESTIMATORS[name]

    @jax.jit
    def errors(instances: Instances, rates: jax.Array) -> jax.Array:
        estimate = _estimator(name, expectation, rates, most)
        gradients = jax.vmap(estimate)(instances.noise, instances.prior, instances.task)
        truth = instances.truth[objective]
        relative = jax.vmap(lambda g, t: _distance(g, t) / optax.global_norm(t))(gradients, truth)
        return jnp.where(jnp.isfinite(relative), relative, jnp.inf)

    return errors


def estimation_errors(
    instances: Instances, inner_steps: list[int], rate: float, progress: Callable[[str], None]
) -> dict[str, dict[str, dict[int, np.ndarray]]]:
    """Regime -> estimator -> number of inner steps -> relative errors ``[instances]``.

    In one regime all estimators and all numbers of steps share their noise.
    """
    most = max(inner_steps)
    found: dict[str, dict[str, dict[int, np.ndarray]]] = {name: {} for name in REGIMES}
    for name in ESTIMATORS:
        # One program for the regimes that differ in their rates only.
        programs: dict[Any, Callable[[Instances, jax.Array], jax.Array]] = {}
        for regime_name, regime in REGIMES.items():
            program = programs.setdefault(
                regime.expectation, error_of(name, regime.expectation, most)
            )
            found[regime_name][name] = {
                steps: np.asarray(
                    program(
                        instances,
                        jnp.asarray(step_sizes(steps, most, rate, decaying=regime.decaying)),
                    )
                )
                for steps in inner_steps
            }
            progress(f"{name}, {regime.label}")
    return found


class Bounds(NamedTuple):
    """Appendix A.3 for GEM's L1 gradient, relative to |g*|; all ``[instances]``."""

    error: np.ndarray
    printed: np.ndarray
    """M (2 KL(Q || P))^1/2 with M = E_P[|f|^2]^1/2."""
    valid: np.ndarray
    """M chi2(Q || P)^1/2; infinite where a variance of Q is at least twice P's."""


def error_bounds(instances: Instances, inner_steps: list[int], rate: float) -> dict[int, Bounds]:
    """Number of inner steps, exact expectations -> the error and its two bounds.

    0 steps are allowed: Q is then the prior.
    """
    most = max(*inner_steps, 1)

    @jax.jit
    def bounds(instances: Instances, rates: jax.Array) -> tuple[jax.Array, ...]:
        inference = variational(REGIMES["exact"].expectation, optax.sgd(lambda step: rates[step]))
        posteriors = sequential_posteriors(_PROBLEM, inference, most)

        def of_one(instance: Instances) -> tuple[jax.Array, ...]:
            prior, truth = instance.prior, instance.truth["L1"]
            _, found = posteriors(instance.noise, prior, instance.task)
            exact = regression.exact_posterior(prior, regression.union(*instance.task), NOISE_STD)
            scale = score_norm(prior, exact)
            absolute = (
                _distance(gaussian.gem_gradient(prior, found), truth),
                scale * jnp.sqrt(2 * gaussian.kl_divergence(found, exact)),
                scale * jnp.sqrt(chi_squared(found, exact)),
            )
            return tuple(value / optax.global_norm(truth) for value in absolute)

        return jax.vmap(of_one)(instances)

    def at(steps: int) -> Bounds:
        rates = jnp.asarray(step_sizes(steps, most, rate, decaying=False))
        return Bounds(*map(np.asarray, bounds(instances, rates)))

    return {steps: at(steps) for steps in inner_steps}


def worst_start() -> dict[str, float]:
    """The largest error over printed bound before the first inner step, for one weight.

    Prior N(0, 100), exact posterior N(0, 100 v) and Q the prior, over v in (0, 1).
    """
    prior = Gaussian(jnp.zeros(1), jnp.log(jnp.full(1, 10.0)))

    def quotient(v: jax.Array) -> jax.Array:
        exact = Gaussian(prior.mean, prior.log_std + 0.5 * jnp.log(v))
        error = _distance(gaussian.gem_gradient(prior, prior), gaussian.gem_gradient(prior, exact))
        divergence = gaussian.kl_divergence(prior, exact)
        return error / (score_norm(prior, exact) * jnp.sqrt(2 * divergence))

    grid = jnp.linspace(0.01, 0.99, 99)
    quotients = np.asarray(jax.vmap(quotient)(grid))
    worst = int(quotients.argmax())
    return {"v": float(grid[worst]), "error_over_printed": float(quotients[worst])}
