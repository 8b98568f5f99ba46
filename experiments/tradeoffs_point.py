"""One point of figure 2(b), measured in a process of its own.

    python -m experiments.tradeoffs_point '{"algorithm": ..., "config": {...}, ...}'

A device remembers the most memory that a process had in use and never less, and one process keeps
programs that another would not have: so each point gets a fresh one. It takes a :class:`Point` as
JSON and prints a :class:`Cost`, or the sentence that says why there can be none.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

from experiments import command_line  # noqa: F401  before jax: it sets XLA's flags

# isort: split
import jax
import numpy as np

from experiments.few_shot_presets import FewShotConfig
from experiments.few_shot_problem import make_experiment
from experiments.provenance import provenance
from gembml import constants
from gembml.options import OptionError
from gembml.tasks.images import ImageClasses
from gembml.training import InputError


def clock() -> str:
    """``CPU`` or ``wall``.

    On a CPU these programs have one thread, and the time that it computes is what an idle machine
    takes; on a shared one the wall's clock also counts what others compute.
    """
    return "CPU" if jax.default_backend() == "cpu" else "wall"


class Point(NamedTuple):
    """What is measured: one meta-step on random images."""

    algorithm: str
    config: FewShotConfig
    image_size: int
    repeats: int
    """Timed meta-steps after a first one."""
    max_seconds: float
    """No more are timed if the first takes longer."""


class Cost(NamedTuple):
    """What one meta-step costs; None where it could not be measured, for ``untimed``'s reason."""

    ms_per_meta_step: float | None
    """The fastest of the repeats, by the clock that :func:`clock` names."""
    temporary_bytes: int | None
    """What the compiled program allocates beside its inputs and outputs."""
    device_peak_bytes: int | None
    """What the device had in use at most; None where it does not count, as on a CPU."""
    untimed: str | None


def random_images(image_size: int, config: FewShotConfig) -> ImageClasses:
    """Colour noise, enough of it for an episode."""
    shape = (config.ways, config.shots + config.queries, image_size, image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return jax.device_put(ImageClasses(images, np.full(shape[0], shape[1], np.int32)))


def measure(point: Point) -> Cost:
    """The cost of one meta-step, with the images as an argument of the program.

    Raises:
      OptionError: if the network or the grouping of tasks does not suit the images or the batch.
    """
    data = random_images(point.image_size, point.config)
    experiment = make_experiment(point.algorithm, point.config, data, 1_000)
    key = jax.random.key(0)
    state = jax.jit(experiment.learner.init)(key)

    def meta_step(state: Any, key: jax.Array) -> Any:
        task_key, update_key = jax.random.split(key)
        return experiment.learner.update(state, update_key, experiment.sample_tasks(task_key))

    now = time.process_time if clock() == "CPU" else time.perf_counter
    run, images = constants.hoisted(meta_step, state, key)
    size, fastest, reason = None, None, None
    try:
        program = jax.jit(run).lower(images, state, key).compile()
        analysis = program.memory_analysis()
        size = None if analysis is None else int(analysis.temp_size_in_bytes)

        def seconds() -> float:
            began = now()
            jax.block_until_ready(program(images, state, key))
            return now() - began

        first = seconds()
        if first > point.max_seconds:
            reason = f"the first meta-step took {first:.0f} s"
        else:
            fastest = 1e3 * min(seconds() for _ in range(point.repeats))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = "out of memory"
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return Cost(fastest and round(fastest, 3), size, peak, reason)


def measure_apart(point: Point) -> tuple[Cost, dict[str, Any]]:
    """:func:`measure` in a fresh process; also the device, the versions and the clock there.

    A process that the system ends, as it does when memory is short, is a cost that is not known.

    Raises:
      InputError: for what :func:`measure` refuses.
    """
    request = point._asdict() | {"config": dataclasses.asdict(point.config)}
    finished = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode < 0:
        return Cost(None, None, None, f"ended by signal {-finished.returncode}"), {}
    if finished.returncode:
        raise RuntimeError(f"{point.algorithm} could not be measured:\n{finished.stderr}")
    reply = json.loads(finished.stdout.splitlines()[-1])
    if "refused" in reply:
        raise InputError(reply["refused"])
    return Cost(**reply["cost"]), reply["about"]


def _main(text: str) -> None:
    request = json.loads(text)
    point = Point(**request | {"config": FewShotConfig(**request["config"])})
    try:
        reply: dict[str, Any] = {"cost": measure(point)._asdict(), "about": provenance()}
        reply["about"]["clock"] = clock()
    except OptionError as error:
        reply = {"refused": str(error)}
    print(json.dumps(reply), flush=True)
    os._exit(0)  # no farewell to the device: it takes seconds after large programs


if __name__ == "__main__":
    _main(sys.argv[1])
