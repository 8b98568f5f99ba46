"""Gradient-EM with a second pass over the support set: the derivative through the inner loop."""

import jax
import numpy as np
import optax
import pytest

from gembml import Delta, OptionError, delta, gaussian
from gembml.inference import point, variational, weight_samples
from gembml.inference.loop import infer
from gembml.meta_gradients import backprop, gem
from gembml.meta_gradients.gem import sequential_posteriors
from gembml.optimizers import scale_by_fisher
from tests.problems import (
    log_likelihood,
    make_task,
    make_weights,
    problem,
    quadratic_log_likelihood,
)

pytestmark = pytest.mark.usefixtures("float64")
ALPHA = 0.1
KEY = jax.random.key(0)


def maml(likelihood, num_steps: int, seed: int, *, first_order: bool = False) -> np.ndarray:
    """ALPHA times MAML's meta-gradient."""
    inference = point(likelihood, optax.sgd(ALPHA), first_order=first_order)
    prior = Delta(make_weights(seed))
    gradient = backprop(problem(likelihood), inference, num_steps)(KEY, prior, make_task(seed))
    return ALPHA * np.asarray(gradient.mean)


def second_pass(likelihood, num_steps: int, seed: int, share: float) -> np.ndarray:
    """GEM-BML+'s with one query step, in the point limit."""
    inference = point(likelihood, optax.sgd(ALPHA))
    estimate = gem(
        problem(likelihood),
        delta.family(),
        inference,
        num_steps,
        query_steps=1,
        objective="L2",
        second_pass=share,
    )
    return np.asarray(estimate(KEY, Delta(make_weights(seed)), make_task(seed)).mean)


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_on_a_quadratic_it_is_maml_s_meta_gradient_from_values(num_steps, share):
    found = second_pass(quadratic_log_likelihood, num_steps, 0, share)
    np.testing.assert_allclose(found, maml(quadratic_log_likelihood, num_steps, 0), rtol=1e-9)
    first_order = maml(quadratic_log_likelihood, num_steps, 0, first_order=True)
    assert np.abs(found - first_order).max() > 1e-2 * np.abs(found).max()


def test_after_one_inner_step_it_tends_to_maml_s_as_its_share_goes_to_zero():
    expected = maml(log_likelihood, 1, 1)
    errors = [
        np.abs(second_pass(log_likelihood, 1, 1, share) - expected).max()
        for share in (0.1, 0.01, 0.001)
    ]
    # Of first order in the share.
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 10, rtol=0.2)
    assert errors[0] < np.abs(maml(log_likelihood, 1, 1, first_order=True) - expected).max()


def test_after_several_steps_it_is_the_jacobian_times_the_query_s_step_and_not_its_transpose():
    task, weights = make_task(2), make_weights(2)

    def adapted(w):
        for _ in range(3):
            w = w + ALPHA * jax.grad(log_likelihood)(w, task.support)
        return w

    step = ALPHA * jax.grad(log_likelihood)(adapted(weights), task.query)
    _, expected = jax.jvp(adapted, (weights,), (step,))
    found = second_pass(log_likelihood, 3, 2, 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - maml(log_likelihood, 3, 2)).max() > 1e-5 * np.abs(found).max()


def test_both_passes_see_the_same_noise():
    # With one sample of a wide posterior, noise of its own would be divided by the small share.
    task, prior = make_task(3), gaussian.around(make_weights(3), -1.0)
    expected = weight_samples(log_likelihood, num_samples=1, antithetic=False)
    inference = variational(expected, optax.sgd(ALPHA), kl_weight=0.0)

    def mean(share: float) -> jax.Array:
        estimate = gem(
            problem(), gaussian.family(-1.0), inference, 2, objective="L2", second_pass=share
        )
        natural, _ = scale_by_fisher().update(estimate(KEY, prior, task), optax.EmptyState(), prior)
        return natural.mean

    np.testing.assert_allclose(mean(1e-6), mean(1e-5), rtol=1e-3)


@pytest.mark.parametrize("random", ["all", "one of two arrays"])
def test_it_is_the_derivative_of_inference_in_means_and_log_stds(random):
    # Log-stds that move, the pull of the KL, an optimizer with a memory, weights that are points.
    def likelihood(weights, data):
        return log_likelihood(weights["a"] + weights["b"], data)

    task = make_task(5)
    start = {"a": make_weights(5), "b": make_weights(6)}
    family = gaussian.family(-1.0, random=lambda name: random == "all" or name == "a")
    prior = family.init(KEY, lambda key: start)
    expected = weight_samples(likelihood, num_samples=2)
    inference = variational(expected, optax.sgd(ALPHA, momentum=0.9), kl_weight=0.3)

    def posteriors(share: float):
        return sequential_posteriors(problem(likelihood), inference, 2, second_pass=share)(
            KEY, prior, task
        )

    support_key, _ = jax.random.split(KEY)
    support, query = posteriors(0.0)
    step = jax.tree.map(lambda a, t: a - t, query, support)
    _, along = jax.jvp(
        lambda p: infer(inference, support_key, p, lambda *_: task.support, 2), (prior,), (step,)
    )
    _, found = posteriors(1e-6)
    wanted = jax.tree.map(lambda t, d: t + d, support, along)
    for left, right in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    assert np.abs(found.mean["a"] - query.mean["a"]).max() > 1e-2


def test_gem_bml_has_the_support_s_displacement_beside_it():
    task, prior = make_task(4), Delta(make_weights(4))
    inference = point(log_likelihood, optax.sgd(ALPHA))

    def gradient(objective: str) -> jax.Array:
        estimate = gem(
            problem(), delta.family(), inference, 2, objective=objective, second_pass=0.1
        )
        return estimate(KEY, prior, task).mean

    adapted = prior.mean
    for _ in range(2):
        adapted = adapted + ALPHA * jax.grad(log_likelihood)(adapted, task.support)
    np.testing.assert_allclose(gradient("L1") - gradient("L2"), adapted - prior.mean, rtol=1e-9)


@pytest.mark.parametrize("share", [-1.0, float("nan")])
def test_a_negative_share_is_refused(share):
    with pytest.raises(OptionError, match="second_pass must not be negative, not"):
        gem(
            problem(),
            delta.family(),
            point(log_likelihood, optax.sgd(1.0)),
            1,
            objective="L2",
            second_pass=share,
        )
