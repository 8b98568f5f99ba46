"""Memory of the compiled meta-step against inner steps, in the compiler's own figures."""

import dataclasses

import jax
import pytest

from experiments.benchmark_memory import FLAT, from_values
from gembml import ALGORITHMS, make_learner
from gembml.models import MLP
from tests import toy

# One of each kind of posterior; the other programs through the loop take long to compile.
QUICK = ("amortized_bml", "bmaml", "maml")


def temporary_bytes(name: str, inner_steps: int) -> int:
    config = dataclasses.replace(toy.CONFIGS[name], inner_steps=inner_steps)
    learner = make_learner(name, toy.problem(network=MLP((40, 40))), config, 300)
    key = jax.random.key(0)
    arguments = jax.eval_shape(lambda key: (learner.init(key), key, toy.sample_tasks(key)), key)
    lowered = jax.jit(learner.update).lower(*arguments)
    # The same buffers as with optimised machine code, in half the time.
    compiled = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    memory = compiled.memory_analysis()
    assert memory is not None
    return memory.temp_size_in_bytes


def growth(name: str) -> float:
    """From 10 to 50 inner steps; loops of up to 5 are unrolled, which is another program."""
    return temporary_bytes(name, 50) / temporary_bytes(name, 10)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if from_values(name)])
def test_memory_of_meta_gradients_from_values_does_not_grow_with_inner_steps(name):
    assert growth(name) <= FLAT


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in ALGORITHMS
        if not from_values(name)
    ],
)
def test_memory_of_meta_gradients_through_the_inner_loop_is_linear_in_its_steps(name):
    first, middle, last = (temporary_bytes(name, steps) for steps in (10, 30, 50))
    assert last > 2 * first
    assert last - middle == pytest.approx(middle - first, rel=0.05)
