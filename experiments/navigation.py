"""2D navigation: Section 5.3, figure 3 and appendix C.4.3 of the paper.

    python -m experiments.navigation --algorithm=gem_bml_plus --workdir=DIR

A point walks to a goal that it cannot see. Trains on random goals, adapts to 40 test goals by up to
3 policy-gradient updates, and writes into ``--workdir`` ``results.json`` (returns by number of
updates), figures, metrics (JSON lines and TensorBoard) and checkpoints. The same command goes on
where it was stopped.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import numpy as np

from experiments import devices
from experiments.algorithm_table import algorithm_table
from experiments.navigation_figures import trajectories
from experiments.rl_experiment import (
    TEST_SEED,
    AdaptedPolicies,
    Setting,
    adapted_policies,
    held_out,
)
from experiments.rl_presets import PRESETS, NavigationConfig, navigation_preset
from experiments.rl_run import Named, run_experiment, summary
from gembml import ALGORITHMS, distributed
from gembml.base import Distribution
from gembml.rl import roll_out
from gembml.tasks.navigation import GOALS, best_return, navigation

_ALGORITHM = flags.DEFINE_string("algorithm", "gem_bml_plus", f"one of {', '.join(ALGORITHMS)}")
_PRESET = flags.DEFINE_string("preset", "tuned", f"one of {', '.join(PRESETS)}")
_META_STEPS = flags.DEFINE_integer("meta_steps", 400, "meta-steps in all")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the prior and of the training tasks")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run; resumed if it holds it")
_LIST = flags.DEFINE_boolean("list", False, "print the table of algorithms and do nothing else")
# More goals, episodes or steps than these, and lines hide each other.
_DRAWN_GOALS, _DRAWN_EPISODES, _DRAWN_STEPS = 5, 2, 30


def oracle(setting: Setting, config: NavigationConfig) -> float:
    """The best possible return, averaged over the test goals."""
    _, goals = held_out(setting, TEST_SEED, config.test_tasks)
    best = jax.vmap(lambda goal: best_return(goal, config.reward, config.horizon))(goals)
    return round(float(best.mean()), 4)


def walks(adapted: AdaptedPolicies, setting: Setting) -> np.ndarray:
    """Positions of the first steps of episodes, ``[goals, updates + 1, episodes, steps, 2]``."""
    keys = jax.random.split(jax.random.key(TEST_SEED), len(adapted.tasks))
    of_update = jax.vmap(
        lambda key, weights, goal: roll_out(
            key, setting.environment, adapted.policy, weights, goal, _DRAWN_EPISODES
        ),
        in_axes=(None, 0, None),
    )
    episodes = jax.jit(jax.vmap(of_update))(keys, adapted.weights, adapted.tasks)
    running = np.asarray(episodes.mask)[..., None] > 0
    paths = np.where(running, np.asarray(episodes.observations), np.nan)
    return paths[..., :_DRAWN_STEPS, :]


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    if _LIST.value:
        print(algorithm_table())
        return
    command_line.choose("algorithm", ALGORITHMS, _ALGORITHM.value)
    command_line.choose("preset", PRESETS, _PRESET.value)
    workdir = command_line.given("workdir", _WORKDIR.value)
    config = command_line.override(
        navigation_preset(_PRESET.value, _ALGORITHM.value), _ALGORITHM.value
    )
    setting = Setting(navigation(config.reward, config.horizon), GOALS[config.goals])

    def draw(prior: Distribution, directory: pathlib.Path) -> None:
        adapted = adapted_policies(
            _ALGORITHM.value,
            config,
            setting,
            prior,
            lambda goals: list(range(_DRAWN_GOALS))[: len(goals)],
        )
        paths = walks(adapted, setting)
        trajectories(paths, np.asarray(adapted.tasks), directory / "trajectories.png")

    results: dict[str, Any] = run_experiment(
        _ALGORITHM.value,
        setting,
        config,
        Named("navigation", {}),
        seed=command_line.in_range("seed", _SEED.value, 0, 2**32 - 1),
        meta_steps=command_line.in_range("meta_steps", _META_STEPS.value, 1),
        workdir=workdir,
        command=command_line.command("experiments.navigation"),
        mesh=devices.run_mesh(config.meta_batch, 1),
        references={"oracle": oracle(setting, config)},
        draw=draw,
    )
    if distributed.team().first:
        print(summary(results))
        print(f"Results and figures: {pathlib.Path(workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(NavigationConfig)
    command_line.run(main)
