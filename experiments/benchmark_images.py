"""Speed of few-shot meta-steps: convolutions with per-task weights, on the device at hand.

    python -m experiments.benchmark_images [--cpu_devices=2 --devices=all] [--workdir=DIR]

Five-way one-shot Omniglot's size, 15 queries per class, 32 tasks, 64 filters, on random images.
Prints Markdown: meta-steps per second of each form of convolution, of each precision, and the share
that they reach of the matrix products' own speed on this device; with ``--workdir`` also writes
``benchmark_images.json``. Nothing fails when a target is missed.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import devices, style
from experiments.few_shot_presets import FewShotConfig, preset
from experiments.few_shot_problem import make_experiment
from experiments.few_shot_run import on_devices
from experiments.output_directory import make_directory
from experiments.provenance import provenance
from experiments.report_tables import table
from gembml import constants, meta_steps
from gembml.distributed import AXIS
from gembml.models.convolution import matrix_product
from gembml.tasks.images import ImageClasses
from gembml.training import write_json

_SIZE, _CLASSES, _PER_CLASS = 28, 100, 20
# (algorithm, inner steps) -> meta-steps per second that 2 CPU cores should reach, and elsewhere.
_TARGETS = {
    ("fomaml", 1): (4.5, "learn2learn 1.95; PyTorch loop, channels last, torch.compile 2.23"),
    ("maml", 1): (3.7, "learn2learn 1.06; the PyTorch loop 1.87; JAX, vmapped convolution 0.034"),
    ("maml", 5): (1.5, "learn2learn 0.49; the PyTorch loop 0.72"),
}
_GROUPED_TARGET = 5.0


def config_of(algorithm: str, inner_steps: int, **changes: Any) -> FewShotConfig:
    """The workload, with what differs."""
    base = preset("tuned", algorithm, "omniglot", 5, 1)
    fixed = {"filters": 64, "meta_batch": 32, "queries": 15, "inner_steps": inner_steps}
    return dataclasses.replace(base, **fixed, **changes)


def random_images() -> ImageClasses:
    """As many as a meta-step needs, of Omniglot's size."""
    rng = np.random.default_rng(0)
    shape = (_CLASSES, _PER_CLASS, _SIZE, _SIZE, 1)
    images = rng.integers(0, 256, shape, np.uint8)
    return ImageClasses(images, np.full(_CLASSES, _PER_CLASS, np.int32))


def first_order_flops(config: FewShotConfig) -> float:
    """Multiplications and additions of a first-order meta-step's convolutions.

    Forward and two products backward, but one for the first layer, whose input needs no gradient.
    """
    size, channels, flops = _SIZE, 1, 0.0
    for layer in range(config.layers):
        size = -(-size // 2)
        product = 2 * size**2 * 9 * channels * config.filters
        flops += product * (2 if layer == 0 else 3)
        channels = config.filters
    images = config.ways * (config.inner_steps * config.shots + config.queries)
    return config.meta_batch * images * flops


def meta_steps_program(
    algorithm: str, config: FewShotConfig, mesh: Mesh | None, length: int
) -> tuple[Callable[[], Any], float]:
    """A call of ``length`` meta-steps, and the seconds that its compilation took."""
    built = make_experiment(algorithm, config, on_devices(random_images(), mesh), 1000, mesh)
    state = built.learner.init(jax.random.key(0))
    if mesh is not None:
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    run = meta_steps(built.learner, built.sample_tasks, jax.random.key(1), length)
    began = time.perf_counter()
    placed = {} if mesh is None else {"out_shardings": NamedSharding(mesh, PartitionSpec())}
    program = constants.compiled(run, state, np.int32(0), **placed)
    seconds = time.perf_counter() - began
    return lambda: program(state, np.int32(0)), seconds


def matrix_product_program(precision: str, mesh: Mesh | None) -> tuple[Callable[[], Any], float]:
    """A call that multiplies 3675 x 576 and 576 x 64 matrices, and its floating-point operations.

    These are the second layer's for one task's queries; on a GPU of square matrices of 8192.
    """
    cpu = jax.default_backend() == "cpu"
    rows, inner, columns = (3675, 576, 64) if cpu else (8192, 8192, 8192)
    x, w = jnp.ones((rows, inner)), jnp.ones((columns, inner))
    rounds = 50

    def many(x: jax.Array, w: jax.Array) -> jax.Array:
        def again(total: jax.Array, _: None) -> tuple[jax.Array, None]:
            return total + matrix_product(x, w + 1e-9 * total[0, 0], precision)[:1], None

        return jax.lax.scan(again, jnp.zeros((1, columns)), length=rounds)[0]

    run = many
    if mesh is not None:
        run = jax.shard_map(
            lambda x, w: jax.lax.pmean(many(x, w), AXIS),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec()),
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        x, w = jax.device_put((x, w), NamedSharding(mesh, PartitionSpec()))
    program = jax.jit(run).lower(x, w).compile()
    number = 1 if mesh is None else mesh.size
    return lambda: program(x, w), number * rounds * 2.0 * rows * inner * columns


def _best(repeats: int, *calls: Callable[[], Any]) -> list[float]:
    """Seconds of each one's fastest call after a warm-up, in turn: a machine's speed may drift."""
    for call in calls:
        jax.block_until_ready(call())
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, took in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            took.append(time.perf_counter() - began)
    return [min(took) for took in seconds]


def measure(mesh: Mesh | None, repeats: int, length: int) -> tuple[list[dict[str, Any]], str]:
    """All rows, and as a table."""
    products = {
        name: matrix_product_program(name, mesh)
        for name in ("float32", "tensorfloat32", "bfloat16")
    }
    one = ("fomaml", 1)
    measured = [
        *((*key, "im2col", -1, "float32") for key in _TARGETS),
        *((*one, "im2col", -1, name) for name in ("tensorfloat32", "bfloat16")),
        *((*one, "im2col", at_once, "float32") for at_once in (0, 1)),
        *((*one, "direct", at_once, "float32") for at_once in (1, 0)),  # the last: grouped
    ]
    rows, cells = [], []
    for algorithm, steps, form, at_once, precision in measured:
        config = config_of(
            algorithm, steps, precision=precision, convolution=form, tasks_at_once=at_once
        )
        slow = form == "direct" and jax.default_backend() == "cpu"
        steps_per_call = 1 if slow else length
        program, seconds = meta_steps_program(algorithm, config, mesh, steps_per_call)
        product, product_flops = products[precision]
        took, product_took = _best(1 if slow else repeats, program, product)
        rate, peak = steps_per_call / took, product_flops / product_took
        decided = config.on_this_device()
        flops = first_order_flops(config) * rate if algorithm == "fomaml" else None
        usual = form == "im2col" and at_once < 0 and precision == "float32"
        target, elsewhere = _TARGETS[algorithm, steps]
        rows.append(
            {
                "algorithm": algorithm,
                "inner_steps": steps,
                "convolution": decided.convolution,
                "tasks_at_once": decided.tasks_at_once,
                "precision": precision,
                "meta_steps_per_second": round(rate, 3),
                "compile_seconds": round(seconds, 1),
                "gflops": flops and round(flops / 1e9, 1),
                "matrix_product_gflops": round(peak / 1e9, 1),
            }
        )
        cells.append(
            [
                style.label(algorithm),
                str(steps),
                f"{decided.convolution}, {decided.tasks_at_once or 'all'} at once",
                precision,
                f"{rate:,.3g}",
                f"≥ {target}" if usual else "–",
                f"{flops / 1e9:,.0f}" if flops else "–",
                f"{peak / 1e9:,.0f}",
                f"{flops / peak:.0%}" if flops else "–",
                f"{seconds:.0f}",
                elsewhere if usual else "–",
            ]
        )
    header = ["algorithm", "inner steps", "convolution, tasks", "precision", "meta-steps/s"]
    header += ["target on 2 CPU cores", "GFLOP/s", "matrix products alone", "share of them"]
    header += ["compile s", "elsewhere, on another 2-core machine"]
    lines = [
        "### Few-shot meta-steps: 5-way 1-shot, 15 queries, 32 tasks, 64 filters",
        table(header, cells),
        "Matrix products alone are timed in turn with each row. Faster than the grouped form: "
        f"{_ratio(rows):.1f} times (target {_GROUPED_TARGET:g}).",
    ]
    return rows, "\n\n".join(lines)


def _ratio(rows: list[dict[str, Any]]) -> float:
    """How much faster first-order MAML's first row is than its last, the grouped form."""
    rates = [row["meta_steps_per_second"] for row in rows if row["algorithm"] == "fomaml"]
    return rates[0] / rates[-1]


_WORKDIR = flags.DEFINE_string("workdir", None, "directory for benchmark_images.json")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed calls per row, of which the fastest counts")
_LENGTH = flags.DEFINE_integer("steps_per_dispatch", 2, "meta-steps per call")


def main(argv: list[str]) -> None:
    """Run the benchmark that the flags describe."""
    command_line.no_arguments(argv)
    repeats = command_line.in_range("repeats", _REPEATS.value, 1, 1000)
    length = command_line.in_range("steps_per_dispatch", _LENGTH.value, 1, 100_000)
    mesh = devices.run_mesh(32, 1)
    output = make_directory("workdir", _WORKDIR.value) if _WORKDIR.value else None
    rows, text = measure(mesh, repeats, length)
    print(text)
    about = provenance()
    number = 1 if mesh is None else mesh.size
    print(f"\n{about['device']}, {number} JAX device{'s' if number > 1 else ''}")
    if output is not None:
        content = {"experiment": "benchmark_images", "rows": rows, "devices": number, **about}
        content["command"] = command_line.command("experiments.benchmark_images")
        write_json(output / "benchmark_images.json", content)


if __name__ == "__main__":
    command_line.run(main)
