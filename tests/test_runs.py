"""Many runs in one program: each as if it were alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import LearnerState, MetaLearner, make_learner, meta_steps
from gembml.runs import Hyperparameters, many_runs
from tests import toy

LENGTH = 5


def make(algorithm: str):
    def with_numbers(numbers: Hyperparameters) -> MetaLearner:
        config = dataclasses.replace(toy.CONFIGS[algorithm], **numbers)
        return make_learner(algorithm, toy.problem(), config, 12)

    return with_numbers


def alone(learner: MetaLearner, seeds: list[int]) -> list[tuple[LearnerState, jax.Array]]:
    """One run after the other, by a program for one; its key is an argument to compile it once."""

    @jax.jit
    def whole(key: jax.Array) -> tuple[LearnerState, jax.Array]:
        state = learner.init(jax.random.fold_in(key, 0))
        run = meta_steps(learner, toy.sample_tasks, jax.random.fold_in(key, 1), LENGTH)
        state, metrics = run(state, jnp.int32(0))
        return state, metrics.meta_gradient_norm

    return [whole(jax.random.key(seed)) for seed in seeds]


def together(algorithm: str, seeds: list[int], numbers: Hyperparameters):
    runs = many_runs(make(algorithm), toy.sample_tasks, LENGTH)
    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    return jax.jit(runs.run)(jax.jit(runs.init)(keys, numbers), keys, numbers, jnp.int32(0))


@pytest.mark.parametrize("algorithm", ["gem_bml_plus", "maml"])
def test_each_seed_ends_where_its_single_run_ends(algorithm):
    seeds = [0, 3, 4_294_967_295]
    states, metrics = together(algorithm, seeds, {})
    assert metrics.meta_gradient_norm.shape == (len(seeds), LENGTH)
    for run, (state, norms) in enumerate(alone(make(algorithm)({}), seeds)):
        # Batched products sum in another order: float32 rounding, which 5 steps amplify.
        np.testing.assert_allclose(metrics.meta_gradient_norm[run], norms, rtol=1e-3)
        for a, b in zip(*map(jax.tree.leaves, (states, state)), strict=True):
            np.testing.assert_allclose(a[run], b, rtol=1e-3, atol=1e-5)


def test_each_setting_ends_where_its_single_run_ends():
    numbers = {
        "inner_learning_rate": jnp.array([1e-3, 1e-2]),
        "meta_learning_rate": jnp.array([1e-3, 1e-2]),
    }
    states, _ = together("maml", [7, 7], numbers)
    for run in range(2):
        single = {name: float(values[run]) for name, values in numbers.items()}
        [(state, _)] = alone(make("maml")(single), [7])
        np.testing.assert_allclose(states.prior.mean[run], state.prior.mean, rtol=1e-3, atol=1e-5)
    assert not np.allclose(*states.prior.mean)


def test_a_run_that_diverges_leaves_the_others_as_they_are():
    rates = jnp.array([1e-3, 1e30])
    states, metrics = together("maml", [7, 7], {"inner_learning_rate": rates})
    assert not metrics.finite[1].all()
    assert metrics.finite[0].all()
    [(state, _)] = alone(make("maml")({}), [7])
    np.testing.assert_allclose(states.prior.mean[0], state.prior.mean, rtol=1e-3, atol=1e-5)
