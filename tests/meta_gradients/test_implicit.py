"""iMAML: the implicit gradient against the proximal problem solved and differentiated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta, OptionError
from gembml.inference import infer, point
from gembml.meta_gradients import backprop, implicit
from tests.problems import (
    log_likelihood,
    make_task,
    make_weights,
    problem,
    quadratic_log_likelihood,
)

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
WEIGHT = 2.0
# The curvature of support plus proximal term lies within (2, 10) here: the optimum is approached
# by a factor of 0.8 or better per step, and 400 steps leave rounding.
ALPHA, STEPS = 0.1, 400
RTOL = 1e-8


def inner(likelihood):
    return point(likelihood, optax.sgd(ALPHA), proximal_weight=WEIGHT)


@functools.cache  # compiled once for all seeds
def imaml(likelihood, *, cg_steps: int = 3, num_steps: int = STEPS):
    return jax.jit(
        implicit(
            problem(likelihood),
            inner(likelihood),
            num_steps,
            proximal_weight=WEIGHT,
            cg_steps=cg_steps,
        )
    )


@functools.cache
def unrolled(likelihood):
    return jax.jit(backprop(problem(likelihood), inner(likelihood), STEPS))


@pytest.mark.parametrize("seed", range(3))
def test_the_implicit_gradient_on_a_quadratic_is_the_closed_form(seed):
    task, weights = make_task(seed), make_weights(seed)
    hessian = task.support.x.T @ task.support.x
    optimum = jnp.linalg.solve(
        hessian + WEIGHT * jnp.eye(3), task.support.x.T @ task.support.y + WEIGHT * weights
    )
    query_gradient = task.query.x.T @ (task.query.y - task.query.x @ optimum)
    expected = jnp.linalg.solve(jnp.eye(3) + hessian / WEIGHT, query_gradient)
    gradient = imaml(quadratic_log_likelihood)(KEY, Delta(weights), task)
    np.testing.assert_allclose(gradient.mean, expected, rtol=RTOL)


def test_gauss_newton_and_hessian_agree_where_outputs_are_linear():
    task, prior = make_task(0), Delta(make_weights(0))
    # -log P = |y - x.w|^2 / 2: the outputs x.w have the Fisher matrix x^T x as they are.
    linear = problem(quadratic_log_likelihood)._replace(
        whitened_outputs=lambda weights, data: data.x @ weights
    )
    estimate = implicit(
        linear,
        inner(quadratic_log_likelihood),
        STEPS,
        proximal_weight=WEIGHT,
        cg_steps=3,
        curvature="gauss_newton",
    )
    expected = imaml(quadratic_log_likelihood)(KEY, prior, task)
    gradient = jax.jit(estimate)(KEY, prior, task)
    np.testing.assert_allclose(gradient.mean, expected.mean, rtol=RTOL)


@pytest.mark.parametrize(
    ("curvature", "sentence"),
    [
        ("fisher", "curvature must be one of hessian, gauss_newton, not 'fisher'."),
        ("gauss_newton", "curvature=gauss_newton needs the problem's whitened_outputs"),
    ],
)
def test_a_curvature_that_does_not_exist_is_refused(curvature, sentence):
    with pytest.raises(OptionError, match=sentence):
        implicit(
            problem(),
            inner(log_likelihood),
            1,
            proximal_weight=WEIGHT,
            cg_steps=1,
            curvature=curvature,
        )


@pytest.mark.parametrize("likelihood", [quadratic_log_likelihood, log_likelihood])
@pytest.mark.parametrize("seed", range(2))
def test_the_implicit_gradient_is_autodiff_through_the_converged_proximal_loop(seed, likelihood):
    task, prior = make_task(seed), Delta(make_weights(seed))
    expected = unrolled(likelihood)(KEY, prior, task)
    gradient = imaml(likelihood)(KEY, prior, task)
    np.testing.assert_allclose(gradient.mean, expected.mean, rtol=1e-7)


def test_the_inner_loop_ends_at_the_proximal_optimum():
    task, weights = make_task(0), make_weights(0)
    end = infer(inner(log_likelihood), KEY, Delta(weights), lambda *_: task.support, STEPS).mean
    stationary = jax.grad(log_likelihood)(end, task.support) - WEIGHT * (end - weights)
    np.testing.assert_allclose(stationary, 0.0, atol=1e-10)


def test_one_conjugate_gradient_step_is_the_best_multiple_of_the_query_s_gradient():
    # In one step from zero, A x = b is answered by x = b (b.b) / (b.A b).
    task, weights = make_task(1), make_weights(1)
    matrix = jnp.eye(3) + task.support.x.T @ task.support.x / WEIGHT
    loop = inner(quadratic_log_likelihood)
    end = infer(loop, KEY, Delta(weights), lambda *_: task.support, 4).mean
    b = jax.grad(quadratic_log_likelihood)(end, task.query)
    gradient = imaml(quadratic_log_likelihood, cg_steps=1, num_steps=4)(KEY, Delta(weights), task)
    np.testing.assert_allclose(gradient.mean, b * (b @ b) / (b @ matrix @ b), rtol=RTOL)


def test_a_heavy_proximal_term_leaves_pre_training_on_the_query():
    # theta* = mu and (I + H / w)^-1 = I, up to terms of order 1 / w.
    task, weights = make_task(2), make_weights(2)
    heavy = 1e7
    estimate = implicit(
        problem(),
        point(log_likelihood, optax.sgd(1 / heavy), proximal_weight=heavy),
        20,
        proximal_weight=heavy,
        cg_steps=5,
    )
    expected = jax.grad(log_likelihood)(weights, task.query)
    gradient = jax.jit(estimate)(KEY, Delta(weights), task)
    np.testing.assert_allclose(gradient.mean, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_more_conjugate_gradient_steps_than_weights_do_no_harm(dtype):
    # The residual then shrinks to zero, and a step along it must not divide 0 by 0.
    task, prior = jax.tree.map(lambda a: a.astype(dtype), (make_task(3), Delta(make_weights(3))))
    enough = imaml(log_likelihood, num_steps=20)(KEY, prior, task)
    many = imaml(log_likelihood, num_steps=20, cg_steps=300)(KEY, prior, task)
    tolerance = 1e-4 if dtype == jnp.float32 else 1e-9
    np.testing.assert_allclose(many.mean, enough.mean, rtol=tolerance)
