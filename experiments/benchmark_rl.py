"""Speed of reinforcement-learning meta-steps against the bare environment's, in one run.

    python -m experiments.benchmark_rl [--environment=half_cheetah --backend=spring --timing=rllab]
        [--config.meta_batch=8] [--workdir=DIR]

Environment steps per second (a) of the environment alone with random actions, as many episodes at
once as in training, (b) of episodes under the policy, (c) of whole meta-steps, with the tuned
preset unless ``--config`` says otherwise; and the share of training that is spent outside the
environment. Prints Markdown; with ``--workdir`` also writes
``benchmark_rl.json``. Nothing fails when a target is missed.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from absl import flags

# XLA reads its flags before absl reads these, in whatever form they are written.
if any(argument.split("=")[-1] == "half_cheetah" for argument in sys.argv):
    from experiments import physics_flags  # noqa: F401
# isort: split
from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import devices, style
from experiments.output_directory import make_directory
from experiments.provenance import provenance
from experiments.report_tables import table
from experiments.rl_experiment import Experiment, Setting, independent, make_experiment
from experiments.rl_presets import (
    HalfCheetahConfig,
    NavigationConfig,
    RLConfig,
    half_cheetah_preset,
    navigation_preset,
)
from gembml import ALGORITHMS, constants, meta_steps
from gembml.base import Key, Params, Task
from gembml.distributed import AXIS
from gembml.rl import Environment, roll_out
from gembml.tasks.half_cheetah import PHYSICS_STEPS, TIMINGS, half_cheetah, sample_directions
from gembml.tasks.navigation import GOALS, navigation
from gembml.training import InputError, write_json

_ENVIRONMENTS = ("navigation", "half_cheetah")
# What is aimed at: steps/s on 2 CPU cores, and the share of the bare environment's speed.
_NAVIGATION_TARGET, _HALF_CHEETAH_SHARE = 1e6, 0.7


def _fastest(
    run: Callable[..., Any], arguments: tuple, mesh: Mesh | None, repeats: int
) -> tuple[float, float]:
    """Seconds of the fastest call, and of compiling."""
    placed: dict[str, Any] = (
        {} if mesh is None else {"out_shardings": NamedSharding(mesh, PartitionSpec())}
    )
    began = time.perf_counter()
    compiled = constants.compiled(run, *arguments, **placed)
    jax.block_until_ready(compiled(*arguments))
    compiling = time.perf_counter() - began
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - began)
    return min(seconds), compiling


def _bare(environment: Environment, number: int) -> Callable[[Key, Task], jax.Array]:
    """The sum of rewards of ``number`` episodes of a task with random actions."""

    def run(key: Key, task: Task) -> jax.Array:
        reset_key, action_key = jax.random.split(key)
        shape = (environment.horizon, number, environment.action_size)
        actions = jax.random.normal(action_key, shape)
        states, _ = jax.vmap(environment.reset, in_axes=(0, None))(
            jax.random.split(reset_key, number), task
        )

        def step(carry: tuple[Any, jax.Array], action: jax.Array) -> tuple[Any, None]:
            states, total = carry
            after = jax.vmap(environment.step, in_axes=(None, 0, 0))(task, states, action)
            return (after.state, total + jnp.sum(after.reward)), None

        return jax.lax.scan(step, (states, jnp.zeros(())), actions)[0][1]

    return run


def _over_tasks(
    one: Callable[..., jax.Array], config: RLConfig, mesh: Mesh | None
) -> Callable[..., jax.Array]:
    """``one`` for each task, as many at once as in training."""

    def every(keys: Key, tasks: Task) -> jax.Array:
        if config.tasks_at_once == 1:
            return jax.lax.map(lambda xs: one(*xs), (keys, tasks))
        at_once = config.tasks_at_once or len(keys)
        return jax.lax.map(lambda xs: one(*xs), (keys, tasks), batch_size=at_once)

    if mesh is None:
        return every
    spec = PartitionSpec(AXIS)
    return jax.shard_map(every, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def measure(
    experiment: Experiment, config: RLConfig, mesh: Mesh | None, repeats: int, length: int
) -> dict[str, float]:
    """Environment steps per second of the three, and seconds of compiling the meta-steps."""
    key = jax.random.key(0)
    tasks = experiment.sample_tasks(key)
    keys = jax.random.split(key, config.meta_batch)
    state = jax.jit(experiment.learner.init)(key)
    params: Params = state.prior.mean
    environment, policy = experiment.setting.environment, experiment.policy
    batch = config.meta_batch * config.rollouts * config.horizon

    def under_policy(key: Key, task: Task) -> jax.Array:
        return roll_out(key, environment, policy, params, task, config.rollouts).returns

    rates = {}
    for name, one in (
        ("bare", _bare(environment, config.rollouts)),
        ("policy", under_policy),
    ):
        seconds, _ = _fastest(_over_tasks(one, config, mesh), (keys, tasks), mesh, repeats)
        rates[name] = batch / seconds
    run = meta_steps(experiment.learner, experiment.sample_tasks, key, length)
    if mesh is not None:
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    seconds, compiling = _fastest(
        run, (state, jnp.int32(0) if mesh is None else np.int32(0)), mesh, repeats
    )
    rates["training"] = experiment.env_steps * length / seconds
    return rates | {"compile_seconds": compiling}


_ENVIRONMENT = flags.DEFINE_string("environment", "navigation", f"{' or '.join(_ENVIRONMENTS)}")
_BACKEND = flags.DEFINE_string(
    "backend", "mjx", f"physics of half_cheetah: one of {', '.join(PHYSICS_STEPS)}"
)
_TIMING = flags.DEFINE_string("timing", "brax", f"of half_cheetah: one of {', '.join(TIMINGS)}")
_ALGORITHM = flags.DEFINE_string("algorithm", "gem_bml_plus", f"one of {', '.join(ALGORITHMS)}")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory for benchmark_rl.json")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed calls of each, of which the fastest counts")
_LENGTH = flags.DEFINE_integer("steps_per_dispatch", 2, "meta-steps per call")
command_line.define_config_flags(
    RLConfig, only=("meta_batch", "rollouts", "horizon", "tasks_at_once")
)


def _config() -> NavigationConfig | HalfCheetahConfig:
    preset = navigation_preset if _ENVIRONMENT.value == "navigation" else half_cheetah_preset
    config = preset("tuned", _ALGORITHM.value)
    return command_line.override(config, _ALGORITHM.value)


def main(argv: list[str]) -> None:
    """Run the benchmark that the flags describe."""
    command_line.no_arguments(argv)
    command_line.choose("environment", dict.fromkeys(_ENVIRONMENTS), _ENVIRONMENT.value)
    command_line.choose("backend", PHYSICS_STEPS, _BACKEND.value)
    command_line.choose("timing", TIMINGS, _TIMING.value)
    for flag in (_BACKEND, _TIMING):
        if _ENVIRONMENT.value == "navigation" and flag.present:
            raise InputError(
                f"--{flag.name} has no effect with --environment=navigation: leave it out."
            )
    command_line.choose("algorithm", ALGORITHMS, _ALGORITHM.value)
    repeats = command_line.in_range("repeats", _REPEATS.value, 1, 1000)
    length = command_line.in_range("steps_per_dispatch", _LENGTH.value, 1, 100_000)
    config = _config()
    mesh = devices.run_mesh(config.meta_batch, 1)
    config = config.on_this_device()  # not before: it starts JAX
    output = make_directory("workdir", _WORKDIR.value) if _WORKDIR.value else None
    if isinstance(config, NavigationConfig):
        environment = navigation(config.reward, config.horizon)
        setting = Setting(environment, independent(GOALS[config.goals]))
    else:
        environment = half_cheetah(
            "direction", backend=_BACKEND.value, horizon=config.horizon, timing=_TIMING.value
        )
        setting = Setting(environment, sample_directions)
    experiment = make_experiment(_ALGORITHM.value, config, setting, 1, mesh)
    rates = measure(experiment, config, mesh, repeats, length)
    share = rates["training"] / rates["bare"]
    cells = [
        ["environment alone, random actions", f"{rates['bare']:,.0f}"],
        ["episodes under the policy", f"{rates['policy']:,.0f}"],
        [f"meta-steps of {style.label(_ALGORITHM.value)}", f"{rates['training']:,.0f}"],
    ]
    print(table(["", "environment steps/s"], cells))
    print(
        f"\nOf training {1 - share:.0%} is spent outside the environment; its speed is {share:.0%} "
        f"of the environment's alone (aim for half-cheetah: {_HALF_CHEETAH_SHARE:.0%}; for "
        f"navigation: {_NAVIGATION_TARGET:,.0f} steps/s on 2 CPU cores)."
    )
    about = provenance()
    number = 1 if mesh is None else mesh.size
    batch = {
        "meta_batch": config.meta_batch,
        "rollouts": config.rollouts,
        "horizon": config.horizon,
        "tasks_at_once": config.tasks_at_once,
    }
    print(
        f"{about['device']}, {number} JAX device{'s' if number > 1 else ''}; "
        + ", ".join(f"config.{name}={value}" for name, value in batch.items())
    )
    if output is not None:
        about |= {"environment": _ENVIRONMENT.value, "algorithm": _ALGORITHM.value}
        about |= {"devices": number, **batch}
        if _ENVIRONMENT.value == "half_cheetah":
            about |= {"backend": _BACKEND.value, "timing": _TIMING.value}
        about["command"] = command_line.command("experiments.benchmark_rl")
        write_json(output / "benchmark_rl.json", {"experiment": "benchmark_rl", **rates, **about})


if __name__ == "__main__":
    command_line.run(main)
