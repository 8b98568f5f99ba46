"""2D navigation: Section 5.3, figure 3 and appendix C.4.3 of the paper.

    python -m experiments.navigation --algorithm=gem_bml_plus --workdir=DIR

A point walks to a goal that it cannot see. Trains on random goals, adapts to 40 test goals by up to
3 policy-gradient updates, and writes into ``--workdir`` ``results.json`` (returns by number of
updates), figures, metrics (JSON lines and TensorBoard) and checkpoints. The same command goes on
where it was stopped.
"""

import pathlib
from typing import Any

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import numpy as np

from experiments import devices
from experiments.navigation_figures import trajectories
from experiments.rl_experiment import (
    TEST_SEED,
    AdaptedPolicies,
    Setting,
    adapted_policies,
    held_out,
    independent,
)
from experiments.rl_presets import PRESETS, NavigationConfig, navigation_preset
from experiments.rl_run import Named, run_experiment, summary
from experiments.training_flags import training_flags
from gembml import distributed
from gembml.base import Distribution
from gembml.rl import roll_out
from gembml.tasks.navigation import GOALS, best_return, navigation

_read = training_flags(PRESETS, meta_steps=400)
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
    if (run := _read(1)) is None:
        return
    config = command_line.override(navigation_preset(run.preset, run.algorithm), run.algorithm)
    setting = Setting(navigation(config.reward, config.horizon), independent(GOALS[config.goals]))

    def draw(prior: Distribution, directory: pathlib.Path) -> None:
        adapted = adapted_policies(
            run.algorithm,
            config,
            setting,
            prior,
            lambda goals: list(range(_DRAWN_GOALS))[: len(goals)],
        )
        paths = walks(adapted, setting)
        trajectories(paths, np.asarray(adapted.tasks), directory / "trajectories.png")

    results: dict[str, Any] = run_experiment(
        run.algorithm,
        setting,
        config,
        Named("navigation", {}),
        seed=run.seed,
        meta_steps=run.meta_steps,
        workdir=run.workdir,
        command=command_line.command("experiments.navigation"),
        mesh=devices.run_mesh(config.meta_batch, 1),
        references={"oracle": oracle(setting, config)},
        draw=draw,
    )
    if distributed.team().first:
        print(summary(results))
        print(f"Results and figures: {pathlib.Path(run.workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(NavigationConfig)
    command_line.run(main)
