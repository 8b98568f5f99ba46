"""Programs whose large constants stay arrays on the device.

``jax.jit`` writes the arrays that a function closes over into the program as literals: a set of
images would be compiled, and copied, with every program that draws from it.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def hoisted(fun: Callable, *examples: Any) -> tuple[Callable, list[jax.Array]]:
    """``fun`` with the arrays that it closes over as a first argument, and those arrays.

    ``examples`` are arguments of the shapes and types that it will be called with.
    """
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*examples)
    structure = jax.tree.structure(shape)

    def run(constants: list[jax.Array], *arguments: Any) -> Any:
        program = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, constants))
        leaves = program(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(structure, leaves)

    return run, closed.consts


def compiled(fun: Callable, *examples: Any, **options: Any) -> Callable:
    """``fun`` compiled for arguments like ``examples``; what it closes over stays where it lies.

    ``options`` are those of ``jax.jit``; ``out_shardings`` is also where the closed-over arrays are
    put, unless it has devices of other processes: there they are sent at each call.
    """
    run, constants = hoisted(fun, *examples)
    place = options.get("out_shardings")
    if place is None or place.is_fully_addressable:
        constants = jax.device_put(constants, place)
    program = jax.jit(run, **options).lower(constants, *examples).compile()
    return lambda *arguments: program(constants, *arguments)
