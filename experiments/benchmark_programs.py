"""What the benchmark measures: compiled programs, their time and their memory."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments import command_line  # noqa: F401  before jax: it sets XLA's flags
from experiments.sinusoid_evaluation import Experiment, make_experiment
from experiments.sinusoid_presets import SinusoidConfig

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from gembml import distributed, meta_steps
from gembml.runs import many_runs

SETTING = "default"


class Speed(NamedTuple):
    """Meta-steps per second of one compiled program."""

    compile_seconds: float
    best: float
    median: float


class Program(NamedTuple):
    """A compiled dispatch of many meta-steps, and the state that it starts from."""

    run: Callable[[Any, Any], Any]
    state: Any
    length: int
    compile_seconds: float


def experiment(algorithm: str, config: SinusoidConfig) -> Experiment:
    """The sinusoid experiment that is measured; the length of the run does not matter."""
    return make_experiment(algorithm, SETTING, config, 40_000)


def compile_dispatch(
    algorithm: str, config: SinusoidConfig, length: int, random_bits: str = "threefry2x32"
) -> Program:
    """``length`` meta-steps as one program, compiled as the training loop compiles them.

    ``random_bits`` is the generator of every key in the program.
    """
    built = experiment(algorithm, config)
    root = jax.random.key(0, impl=random_bits)
    state = jax.jit(built.learner.init)(jax.random.fold_in(root, 0))
    run = meta_steps(built.learner, built.sample_tasks, jax.random.fold_in(root, 1), length)
    began = time.perf_counter()
    compiled = jax.jit(run).lower(state, np.int32(0)).compile()
    return Program(compiled, state, length, time.perf_counter() - began)


def compile_seeds(
    algorithm: str, config: SinusoidConfig, length: int, number: int, devices: int
) -> Program:
    """``length`` meta-steps of each of ``number`` seeds as one program for so many devices."""
    built = experiment(algorithm, config)
    mesh = distributed.seed_mesh(jax.devices()[:devices]) if devices > 1 else None
    many = many_runs(lambda _: built.learner, built.sample_tasks, length, mesh)
    keys = jax.vmap(jax.random.key)(jnp.arange(number))
    state = distributed.replicate(jax.jit(many.init)(keys, {}), mesh)
    # As the training loop, which evaluates and saves what all devices have.
    placed: dict[str, Any] = (
        {} if mesh is None else {"out_shardings": NamedSharding(mesh, PartitionSpec())}
    )

    def run(state: Any, first_step: jax.Array) -> Any:
        return many.run(state, keys, {}, first_step)

    began = time.perf_counter()
    compiled = jax.jit(run, **placed).lower(state, np.int32(0)).compile()
    return Program(compiled, state, length, time.perf_counter() - began)


def time_dispatches(program: Program, repeats: int, dispatches: int = 1) -> Speed:
    """Time ``repeats`` times ``dispatches`` calls after a warm-up.

    As in training, the host reads the metrics of each dispatch before it sends the next.
    """
    state, step = program.state, 0

    def dispatch() -> None:
        nonlocal state, step
        state, metrics = program.run(state, np.int32(step))
        np.asarray(metrics.meta_gradient_norm)
        step += program.length

    dispatch()
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(dispatches):
            dispatch()
        rates.append(program.length * dispatches / (time.perf_counter() - began))
    return Speed(program.compile_seconds, max(rates), statistics.median(rates))


def temporary_bytes(algorithm: str, config: SinusoidConfig) -> int:
    """Bytes of temporary buffers that the compiled single meta-step needs.

    Raises:
      RuntimeError: if the compiler does not say.

    """
    built = experiment(algorithm, config)
    key = jax.random.key(0)
    state = jax.eval_shape(built.learner.init, key)
    tasks = jax.eval_shape(built.sample_tasks, key)
    analysis = jax.jit(built.learner.update).lower(state, key, tasks).compile().memory_analysis()
    if analysis is None:
        raise RuntimeError("This device's compiler does not report memory.")
    return int(analysis.temp_size_in_bytes)


def noise_seconds(config: SinusoidConfig, length: int, repeats: int, random_bits: str) -> float:
    """Seconds per meta-step, at best, of drawing the weight noise of a GEM meta-step and no more.

    For each task: the two inner loops' steps, each with its draws of a standard normal per weight.
    The sum keeps the compiler from dropping them, and is the only other work.
    """
    shapes = jax.eval_shape(
        experiment("gem_bml_plus", config).learner.init, jax.random.key(0)
    ).prior.mean
    draws = config.num_samples // 2 if config.antithetic else config.num_samples

    def meta_step(total: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
        step_key = jax.random.fold_in(jax.random.key(0, impl=random_bits), step)

        def of_task(key: jax.Array) -> jax.Array:
            keys = jax.random.split(key, 2 * config.inner_steps)

            def inner_step(carry: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
                noise = jax.random.normal(key, (draws, *shapes.shape), shapes.dtype)
                return carry + noise.sum(axis=0), None

            return lax.scan(inner_step, jnp.zeros(shapes.shape, shapes.dtype), keys)[0]

        noise = jax.vmap(of_task)(jax.random.split(step_key, config.meta_batch))
        return total + noise.sum(axis=0), None

    @jax.jit
    def run(first: jax.Array) -> jax.Array:
        start = jnp.zeros(shapes.shape, shapes.dtype)
        return lax.scan(meta_step, start, first + jnp.arange(length))[0]

    run(jnp.int32(0)).block_until_ready()
    seconds = []
    for repeat in range(repeats):
        began = time.perf_counter()
        run(jnp.int32(repeat)).block_until_ready()
        seconds.append((time.perf_counter() - began) / length)
    return min(seconds)
