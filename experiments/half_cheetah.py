"""Half-cheetah: Section 5.3, figure 3 and appendix C.4.3 of the paper.

    python -m experiments.half_cheetah --task=direction --algorithm=gem_bml_plus --workdir=DIR

Trains on running forward or backward (``--task=direction``) or at a goal velocity
(``--task=velocity``), adapts to 40 test tasks by up to 3 policy-gradient updates, and writes into
``--workdir`` ``results.json`` (returns by number of updates), figures, metrics (JSON lines and
TensorBoard) and checkpoints. The same command goes on where it was stopped.

``--goal=1`` trains and tests on that one task: with ``--algorithm=pretrain`` an oracle. Needs brax:
``pip install -e '.[rl]'``.
"""

import math
import pathlib
from typing import Any

from absl import flags

from experiments import physics_flags  # noqa: F401  before command_line, which sets XLA's too

# isort: split
from experiments import command_line  # before jax

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

from experiments import devices
from experiments.half_cheetah_pictures import coordinates, drawable, film_strip, viewer
from experiments.rl_experiment import TEST_SEED, Setting, adapted_policies
from experiments.rl_presets import PRESETS, HalfCheetahConfig, half_cheetah_preset
from experiments.rl_run import Named, run_experiment, summary
from experiments.training_flags import training_flags
from gembml import distributed
from gembml.base import Distribution, Key, Params
from gembml.rl import Environment
from gembml.tasks.half_cheetah import (
    GOAL_SPEEDS,
    PHYSICS_STEPS,
    TIMINGS,
    half_cheetah,
    sample_directions,
    sample_velocities,
)
from gembml.training import InputError

_SAMPLERS = {"direction": sample_directions, "velocity": sample_velocities}
_TASK = flags.DEFINE_string("task", "direction", f"one of {', '.join(_SAMPLERS)}")
_BACKEND = flags.DEFINE_string("backend", "mjx", f"physics: one of {', '.join(PHYSICS_STEPS)}")
_TIMING = flags.DEFINE_string(
    "timing", "brax", "brax: an action lasts 0.05 s; rllab: 0.01 s, as in MAML's experiments"
)
_GOAL = flags.DEFINE_float("goal", None, "train and test on this one task, for an oracle")
_VIEWER = flags.DEFINE_boolean("viewer", False, "also write the episodes as pages of HTML, in 3D")
_read = training_flags(PRESETS, meta_steps=300)


def _setting(environment: Environment, task: str, goal: float | None) -> Setting:
    if goal is None:
        return Setting(environment, _SAMPLERS[task])
    if task == "direction" and goal not in (-1.0, 1.0):
        raise InputError(f"--goal must be 1 (forward) or -1 with --task=direction, not {goal:g}.")
    if task == "velocity" and not (
        math.isfinite(goal) and GOAL_SPEEDS[0] <= goal <= GOAL_SPEEDS[1]
    ):
        raise InputError(
            f"--goal must be at least {GOAL_SPEEDS[0]:g} and at most {GOAL_SPEEDS[1]:g} m/s with "
            f"--task=velocity, not {goal:g}."
        )
    return Setting(environment, lambda key, number: jnp.full(number, goal, jnp.float32))


def _label(task: str, goal: float) -> str:
    if task == "direction":
        return "forward" if goal > 0 else "backward"
    return f"goal {goal:.1f} m/s"


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    if (run := _read(1)) is None:
        return
    for flag, table, name in (
        ("task", _SAMPLERS, _TASK.value),
        ("backend", PHYSICS_STEPS, _BACKEND.value),
        ("timing", TIMINGS, _TIMING.value),
    ):
        command_line.choose(flag, table, name)
    config = command_line.override(
        half_cheetah_preset(run.preset, run.algorithm, _TASK.value), run.algorithm
    )
    mesh = devices.run_mesh(config.meta_batch, 1)  # before brax makes JAX's devices
    environment = half_cheetah(
        _TASK.value, backend=_BACKEND.value, timing=_TIMING.value, horizon=config.horizon
    )
    setting = _setting(environment, _TASK.value, _GOAL.value)

    def draw(prior: Distribution, directory: pathlib.Path) -> None:
        _draw(run.algorithm, config, setting, prior, directory)

    about = {"task": _TASK.value, "backend": _BACKEND.value, "timing": _TIMING.value}
    results: dict[str, Any] = run_experiment(
        run.algorithm,
        setting,
        config,
        Named("half_cheetah", about if _GOAL.value is None else about | {"goal": _GOAL.value}),
        seed=run.seed,
        meta_steps=run.meta_steps,
        workdir=run.workdir,
        command=command_line.command("experiments.half_cheetah"),
        mesh=mesh,
        draw=draw,
    )
    if distributed.team().first:
        print(summary(results))
        print(f"Results and figures: {pathlib.Path(run.workdir) / 'results.json'}")


def _draw(
    algorithm: str,
    config: HalfCheetahConfig,
    setting: Setting,
    prior: Distribution,
    directory: pathlib.Path,
) -> None:
    """One episode of the two most different test tasks, before and after all updates."""

    def extremes(goals: jax.Array) -> list[int]:
        return sorted({int(jnp.argmin(goals)), int(jnp.argmax(goals))}, reverse=True)

    adapted = adapted_policies(algorithm, config, setting, prior, extremes)

    @jax.jit
    def episode(goal: jax.Array, weights: Params) -> jax.Array:
        def act(_: Key, observation: jax.Array) -> jax.Array:
            return adapted.policy(weights, observation)[0]

        return coordinates(setting.environment, jax.random.key(TEST_SEED), goal, act)

    rows = {}
    for number, goal in enumerate(np.asarray(adapted.tasks)):
        for update in (0, config.test_steps):
            weights = jax.tree.map(lambda leaf, n=number, u=update: leaf[n, u], adapted.weights)
            updates = f"{update} update{'' if update == 1 else 's'}"
            label = f"{_label(_TASK.value, float(goal))}\n{updates}"
            rows[label] = np.asarray(episode(jnp.float32(goal), weights))
    seconds = TIMINGS[_TIMING.value]
    for label in [label for label, row in rows.items() if not drawable(row)]:
        del rows[label]
        print(f"No picture of {' after '.join(label.splitlines())}: its physics blew up.")
    if not rows:
        return
    film_strip(directory / "film_strip.png", rows, seconds)
    if _VIEWER.value:
        for number, row in enumerate(rows.values()):
            viewer(directory / f"episode_{number}.html", row, seconds)


if __name__ == "__main__":
    command_line.define_config_flags(HalfCheetahConfig)
    command_line.run(main)
