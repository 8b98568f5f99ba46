"""What a function closes over becomes an argument of its program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from gembml import constants

TABLE = jnp.arange(30_000.0)
WEIGHTS = {"a": jnp.array(3), "b": jnp.arange(4)}


def plain(tree: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {"sum": jnp.sum(TABLE[tree["b"]]) + tree["a"]}


def scanned(tree: dict[str, jax.Array]) -> dict[str, jax.Array]:
    def add(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        return total + TABLE[index], None

    return {"sum": jax.lax.scan(add, jnp.float32(tree["a"]), tree["b"])[0]}


def sharded(tree: dict[str, jax.Array]) -> dict[str, jax.Array]:
    mesh = Mesh(np.array(jax.devices()[:1]), ("i",))
    gather = jax.shard_map(
        lambda indices: jax.lax.psum(jnp.sum(TABLE[indices]), "i"),
        mesh=mesh,
        in_specs=PartitionSpec("i"),
        out_specs=PartitionSpec(),
    )
    return {"sum": gather(tree["b"]) + tree["a"]}


@pytest.mark.parametrize("fun", [plain, scanned, sharded])
def test_a_closed_over_array_is_an_argument_and_no_text(fun: Callable):
    run, consts = constants.hoisted(fun, WEIGHTS)
    assert any(const is TABLE for const in consts)
    text = jax.jit(run).lower(consts, WEIGHTS).as_text()
    assert len(text) < 20_000
    assert run(consts, WEIGHTS) == {"sum": 0 + 1 + 2 + 3 + 3}
    doubled = [2 * const if const is TABLE else const for const in consts]
    assert run(doubled, WEIGHTS) == {"sum": 2 * (0 + 1 + 2 + 3) + 3}


@pytest.mark.parametrize("fun", [plain, scanned, sharded])
def test_the_compiled_function_is_the_same_function(fun: Callable):
    program = constants.compiled(fun, WEIGHTS)
    assert program({"a": jnp.array(5), "b": jnp.array([9, 9, 0, 0])}) == {"sum": 23}
