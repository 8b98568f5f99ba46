"""Speed and memory of the sinusoid's meta-steps: Section 5.1's workload, figure 2(b)'s question.

    python -m experiments.benchmark [--workdir=DIR] [--parts=throughput,memory,runs]

Prints Markdown tables; with ``--workdir`` also writes ``benchmark.json``, ``benchmark.md`` and
``memory.png``. The numbers are of the machine it runs on, and nothing fails when one is missed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import benchmark_programs as programs
from experiments import command_line  # before jax: it sets XLA's flags
from experiments.sinusoid_presets import SinusoidConfig, preset

# isort: split
import jax

from experiments import style
from experiments.benchmark_memory import memory, memory_figure
from experiments.benchmark_runs import whole_runs
from experiments.output_directory import make_directory
from experiments.provenance import provenance
from experiments.published import THROUGHPUT_ELSEWHERE
from experiments.report_tables import table
from gembml.training import write_json

# (algorithm, inner steps) -> the meta-steps per second that 2 CPU cores should reach.
_TARGETS = {("maml", 1): 9_000, ("maml", 5): 2_500, ("gem_bml_plus", 20): 300}
_COMPILE_TARGET = 10
# Every algorithm as its preset has it, and two with a single step.
_MEASURED = (
    ("maml", 1),
    ("fomaml", 1),
    *((name, preset("tuned", name, programs.SETTING).inner_steps) for name in style.LABELS),
)
_SEEDS, _SEEDS_DEVICES = 8, (1, 2)
_DISPATCH_LENGTHS = (1, 10, 100, 1000)


def _config(algorithm: str, inner_steps: int) -> SinusoidConfig:
    return dataclasses.replace(
        preset("tuned", algorithm, programs.SETTING), inner_steps=inner_steps
    )


def throughput(repeats: int, length: int) -> tuple[Any, str]:
    """Meta-steps per second, compile seconds and temporary bytes of each method."""
    rows, cells = [], []
    for algorithm, inner_steps in _MEASURED:
        config = _config(algorithm, inner_steps)
        program = programs.compile_dispatch(algorithm, config, length)
        speed = programs.time_dispatches(program, repeats)
        size = programs.temporary_bytes(algorithm, config)
        target = _TARGETS.get((algorithm, inner_steps))
        rows.append(
            {
                "algorithm": algorithm,
                "inner_steps": inner_steps,
                "target": target,
                "temp_size_in_bytes": size,
            }
            | {name: round(value, 2) for name, value in speed._asdict().items()}
        )
        elsewhere = "; ".join(
            f"{other.library} {other.one_step if inner_steps == 1 else other.five_steps:,.0f}"
            for other in (THROUGHPUT_ELSEWHERE if algorithm == "maml" else ())
        )
        cells.append(
            [
                style.label(algorithm),
                str(inner_steps),
                f"{speed.best:,.0f}",
                f"{speed.median:,.0f}",
                f"≥ {target:,}" if target else "–",
                f"{speed.compile_seconds:.1f}",
                f"{size / 1024:,.0f}",
                elsewhere or "–",
            ]
        )
    header = ["algorithm", "inner steps", "meta-steps/s, best", "median", "target on 2 cores"]
    header += [f"compile s (target < {_COMPILE_TARGET})", "temporary KiB"]
    header += ["elsewhere, on another 2-core machine"]
    title = f"Throughput: meta-batch 5, K = 10, {length} meta-steps per dispatch, {repeats} repeats"
    return rows, f"### {title}\n\n{table(header, cells)}"


def noise(repeats: int, length: int) -> tuple[Any, str]:
    """The time that weight noise takes in a GEM-BML+ meta-step, by generator of random bits."""
    config = _config("gem_bml_plus", 20)
    rows, cells = [], []
    for bits in ("threefry2x32", "rbg", "unsafe_rbg"):
        program = programs.compile_dispatch("gem_bml_plus", config, length, bits)
        step = 1 / programs.time_dispatches(program, repeats).best
        drawing = programs.noise_seconds(config, length, repeats, bits)
        rows.append({"random_bits": bits, "step_seconds": step, "noise_seconds": drawing})
        cells.append([bits, f"{1e3 * step:.2f}", f"{1e3 * drawing:.2f}", f"{drawing / step:.0%}"])
    header = ["random bits", "meta-step, ms", "drawing its noise alone, ms", "share"]
    return rows, f"### Noise: GEM-BML+, 20 inner steps\n\n{table(header, cells)}"


def dispatch(repeats: int, *_: int) -> tuple[Any, str]:
    """Meta-steps per second of MAML with 1 step, by meta-steps per dispatch."""
    rows, cells = [], []
    for length in _DISPATCH_LENGTHS:
        program = programs.compile_dispatch("maml", _config("maml", 1), length)
        speed = programs.time_dispatches(program, repeats, max(1, _DISPATCH_LENGTHS[-1] // length))
        rows.append({"meta_steps_per_dispatch": length, "best": speed.best, "median": speed.median})
        cells.append([f"{length:,}", f"{speed.best:,.0f}", f"{speed.median:,.0f}"])
    header = ["meta-steps per dispatch", "meta-steps/s, best", "median"]
    return rows, f"### Dispatch: MAML, 1 inner step\n\n{table(header, cells)}"


def seeds(repeats: int, length: int) -> tuple[Any, str]:
    """A meta-step of many seeds in one program against as many of one run, on the same cores."""
    rows, cells = [], []
    numbers = [n for n in _SEEDS_DEVICES if n <= len(jax.devices())]
    for algorithm, inner_steps in (("maml", 5), ("gem_bml_plus", 20)):
        config = _config(algorithm, inner_steps)
        single = programs.compile_dispatch(algorithm, config, length)
        one = 1 / programs.time_dispatches(single, repeats).best
        for devices in numbers:
            program = programs.compile_seeds(algorithm, config, length, _SEEDS, devices)
            many = 1 / programs.time_dispatches(program, repeats).best
            ratio = many * devices / (_SEEDS * one)  # runs, too, could go on side by side
            rows.append(
                {"algorithm": algorithm, "inner_steps": inner_steps, "seeds": _SEEDS}
                | {"devices": devices, "one_seconds": one, "many_seconds": many}
                | {"ratio": round(ratio, 3)}
            )
            cells.append([style.label(algorithm), str(inner_steps), str(devices)])
            cells[-1] += [f"{1e3 * one:.3f}", f"{1e3 * many:.3f}", f"{ratio:.2f}"]
    header = ["algorithm", "inner steps", "devices", "meta-step of one run, ms"]
    header += [f"of {_SEEDS} seeds in one program, ms", f"ratio to {_SEEDS} runs on as many cores"]
    return rows, f"### Seeds: {_SEEDS} runs at once\n\n{table(header, cells)}"


PARTS: dict[str, Callable[[int, int], tuple[Any, str]]] = {
    "throughput": throughput,
    "memory": memory,
    "noise": noise,
    "dispatch": dispatch,
    "seeds": seeds,
    "runs": whole_runs,
}

_WORKDIR = flags.DEFINE_string("workdir", None, "directory for benchmark.json and benchmark.md")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed repeats after one warm-up")
_LENGTH = flags.DEFINE_integer("steps_per_dispatch", 500, "meta-steps per compiled call")
_PARTS = flags.DEFINE_list("parts", list(PARTS), f"of {', '.join(PARTS)}")


def main(argv: list[str]) -> None:
    """Measure what the flags name."""
    command_line.no_arguments(argv)
    chosen = {name: command_line.choose("parts", PARTS, name) for name in _PARTS.value or [""]}
    repeats = command_line.in_range("repeats", _REPEATS.value, 1)
    length = command_line.in_range("steps_per_dispatch", _LENGTH.value, 1)
    directory = make_directory("workdir", _WORKDIR.value) if _WORKDIR.value else None
    if "seeds" in chosen:  # a CPU is one device unless it is told otherwise before it is used
        jax.config.update("jax_num_cpu_devices", max(_SEEDS_DEVICES))
    about = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    texts = [f"## Benchmark\n\n{about['device']}; {versions}."]
    print(texts[0], flush=True)
    measured = {}
    for name, part in chosen.items():
        measured[name], text = part(repeats, length)
        texts.append(text)
        print(f"\n{text}", flush=True)
        if directory is None:
            continue
        command = command_line.command("experiments.benchmark")
        content = {"experiment": "benchmark", **measured, "command": command, **about}
        write_json(directory / "benchmark.json", content)
        if name == "memory":
            memory_figure(measured["memory"], directory / "memory.png")
        text = "\n\n".join(texts) + "\n"
        (directory / "benchmark.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command_line.run(main)
