"""Conjugate gradients that stop where the matrix is not positive, and where they are done."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gembml.base import Params


class _Iterate(NamedTuple):
    solution: jax.Array
    residual: jax.Array
    direction: jax.Array
    square: jax.Array
    """|residual|^2."""
    going: jax.Array


def conjugate_gradients(
    product: Callable[[Params], Params], target: Params, num_steps: int
) -> Params:
    """``num_steps`` steps for x in A x = b, from x = 0, with ``product``: v -> A v.

    For a positive definite A these are the iterates of Hestenes & Stiefel 1952. Along a direction p
    with p.A p <= 0 the quadratic x.A x / 2 - b.x has no minimum, and the step would lead away from
    what is sought, arbitrarily far: there x stays as it is (Steihaug 1983), or becomes b, if p is
    the first direction, b. The number of steps is the same for every task.
    """
    b, unravel = ravel_pytree(target)
    # The square of the residual that rounding leaves: a step along it would divide noise by noise.
    noise = jnp.finfo(b.dtype).eps ** 2 * jnp.vdot(b, b)

    def step(at: _Iterate, first: jax.Array) -> tuple[_Iterate, None]:
        image = ravel_pytree(product(unravel(at.direction)))[0]
        curvature = jnp.vdot(at.direction, image)
        going = at.going & (curvature > 0) & (at.square > noise)
        length = jnp.where(going, at.square / jnp.where(going, curvature, 1.0), 0.0)
        residual = at.residual - length * image
        square = jnp.vdot(residual, residual)
        ratio = jnp.where(going, square / jnp.where(going, at.square, 1.0), 0.0)
        fallback = first & ~going
        solution = jnp.where(fallback, b, at.solution + length * at.direction)
        return _Iterate(solution, residual, residual + ratio * at.direction, square, going), None

    start = _Iterate(jnp.zeros_like(b), b, b, jnp.vdot(b, b), jnp.array(True))
    end, _ = jax.lax.scan(step, start, jnp.arange(num_steps) == 0)
    return unravel(end.solution)
