"""Conjugate gradients: exact where the matrix is positive, and an end where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.conjugate_gradients import conjugate_gradients

pytestmark = pytest.mark.usefixtures("float64")
B = np.array([1.0, -2.0, 0.5])


def solve(matrix: jax.Array, num_steps: int, b: jax.Array | np.ndarray = B) -> jax.Array:
    return jax.jit(lambda b: conjugate_gradients(lambda v: matrix @ v, b, num_steps))(b)


def positive(seed: int) -> jax.Array:
    root = jax.random.normal(jax.random.key(seed), (3, 3))
    return root @ root.T + 0.1 * jnp.eye(3)


@pytest.mark.parametrize("seed", range(5))
def test_as_many_steps_as_unknowns_solve_a_positive_system_and_more_do_no_harm(seed):
    for num_steps in (3, 30):
        solution = solve(positive(seed), num_steps)
        np.testing.assert_allclose(solution, jnp.linalg.solve(positive(seed), B), rtol=1e-7)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_iterates_are_those_of_jax(num_steps):
    expected, _ = jax.scipy.sparse.linalg.cg(positive(0), B, maxiter=num_steps, tol=0.0)
    np.testing.assert_allclose(solve(positive(0), num_steps), expected, rtol=1e-10)


def test_a_negative_first_direction_leaves_the_target_itself():
    for num_steps in (1, 5):
        np.testing.assert_array_equal(solve(-jnp.eye(3), num_steps), B)


def test_a_later_negative_direction_leaves_the_iterate_before_it():
    # The first direction is B, with B.A B = 3.25; those that follow meet the negative entry.
    matrix = jnp.diag(jnp.array([1.0, 1.0, -7.0]))
    first = solve(matrix, 1)
    np.testing.assert_allclose(first, B * (B @ B) / (B @ matrix @ B), rtol=1e-12)
    np.testing.assert_array_equal(solve(matrix, 5), first)


def test_pytrees_nothing_and_what_is_not_finite_go_through():
    target = {"a": jnp.asarray(B), "b": jnp.ones((2, 2))}
    double = conjugate_gradients(lambda v: jax.tree.map(lambda a: 2 * a, v), target, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / 2), double, target)
    np.testing.assert_array_equal(solve(jnp.eye(3), 3, jnp.zeros(3)), jnp.zeros(3))
    assert jnp.isnan(solve(jnp.eye(3), 3, jnp.full(3, jnp.nan))).all()
