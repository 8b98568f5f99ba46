"""Rollouts that are not finite: the run stops, and says for which task."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from gembml import LearnerConfig, make_learner
from gembml.training import TaskFailedError, train
from tests.rl.small import problem_of

CONFIG = LearnerConfig(inner_optimizer="sgd", meta_natural=False, inner_steps=1)


def goals(key: jax.Array) -> jax.Array:
    """Four, of which the last two are nowhere."""
    drawn = jax.random.uniform(key, (4, 2), minval=-0.5, maxval=0.5)
    return drawn.at[2:].set(jnp.array([[jnp.nan, 0.25], [0.125, jnp.nan]]))


@pytest.mark.parametrize("at_once", [0, 1, 2])
def test_the_first_task_that_is_not_finite_is_named(at_once):
    config = dataclasses.replace(CONFIG, tasks_at_once=at_once)
    learner = make_learner("fomaml", problem_of(), config, 1)
    state, update = learner.init(jax.random.key(0)), jax.jit(learner.update)
    tasks = goals(jax.random.key(2))
    assert update(state, jax.random.key(1), tasks)[1].failed_task == 2
    fine = jnp.nan_to_num(tasks)
    assert update(state, jax.random.key(1), fine)[1].failed_task == -1


def test_a_run_stops_with_the_task_and_the_seed(tmp_path):
    with pytest.raises(TaskFailedError) as caught:
        train(
            make_learner("fomaml", problem_of(), CONFIG, 4),
            goals,
            num_meta_steps=4,
            directory=tmp_path,
            evaluate=lambda state: {"return": 0.0},
            progress="return",
            steps_per_dispatch=2,
            seed=7,
        )
    sentence = str(caught.value)
    assert "not finite at meta-step 0, first in task 2, [ nan 0.25], whose task batch" in sentence
    assert "jax.random.key(7)" in sentence
