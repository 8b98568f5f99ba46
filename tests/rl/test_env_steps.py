"""The environment steps that a meta-step is said to take, against those that it takes."""

import dataclasses

import jax
import pytest

from experiments.rl_experiment import Setting, independent, make_experiment
from experiments.rl_presets import navigation_preset
from gembml import ALGORITHMS, OptionError
from gembml.tasks.navigation import navigation, uniform_goal

HORIZON = 2
SMALL = {"hidden_layers": 0, "meta_batch": 2, "rollouts": 2, "horizon": HORIZON}
TRPO = {"meta_optimizer": "trpo", "surrogate": "ratio"}


def rows() -> list[tuple[str, dict[str, object]]]:
    """Every algorithm that a preset has."""
    found = []
    for name in ALGORITHMS:
        try:
            navigation_preset("tuned", name)
        except OptionError:
            continue
        found.append((name, {}))
    return found


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        *rows(),
        ("gem_bml_plus", {"inner_steps": 2, "query_steps": 0}),
        ("gem_bml_plus", {"inner_steps": 2, "second_pass": 0.1}),
        ("maml", {"inner_steps": 2}),
        ("maml", {"tasks_at_once": 1} | TRPO),
        ("amortized_bml", {"amortized_posterior": "all", "query_steps": 3}),
        ("elbo_difference", {"query_steps": 2}),
    ],
)
def test_a_meta_step_takes_the_environment_steps_that_it_is_said_to_take(algorithm, options):
    calls = []
    environment = navigation(horizon=HORIZON)

    def reset(key, goal):
        # Under vmap a callback is called for each of what it is given.
        jax.debug.callback(lambda _: calls.append(HORIZON), jax.random.key_data(key))
        return environment.reset(key, goal)

    # The one without a preset takes PMAML's.
    preset = navigation_preset("tuned", "pmaml" if algorithm == "elbo_difference" else algorithm)
    config = dataclasses.replace(preset, **(SMALL | options))
    setting = Setting(environment._replace(reset=reset), independent(uniform_goal))
    experiment = make_experiment(algorithm, config, setting, 1)
    key = jax.random.key(0)
    state, tasks = experiment.learner.init(key), experiment.sample_tasks(key)
    jax.block_until_ready(jax.jit(experiment.learner.update)(state, key, tasks))
    jax.effects_barrier()
    assert sum(calls) == experiment.env_steps
