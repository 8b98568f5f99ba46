"""Memory of one compiled meta-step against inner steps: figure 2(b)'s question, for every row."""

import dataclasses
import pathlib
from typing import Any

from experiments import benchmark_programs as programs  # before jax: it sets XLA's flags

# isort: split
import numpy as np

from experiments import style
from experiments.report_tables import table
from experiments.sinusoid_presets import preset
from gembml import ALGORITHMS

STEPS = (1, 5, 10, 20, 50)
# Short loops that are differentiated are unrolled (gembml/inference/loop.py): programs apart.
_FROM = 10
# What a meta-gradient from values may grow by, from 10 steps to 50: a pair of keys per step.
FLAT = 1.05


def from_values(algorithm: str) -> bool:
    """Whether the meta-gradient is made of values, with nothing stored along the inner loop."""
    return not ALGORITHMS[algorithm].estimator.differentiates


def memory(*_: int) -> tuple[list[dict[str, Any]], str]:
    """Temporary bytes of the compiled meta-step of every algorithm, by inner steps."""
    rows, cells = [], []
    for algorithm in sorted(style.LABELS, key=lambda name: not from_values(name)):
        config = preset("tuned", algorithm, programs.SETTING)
        sizes = [
            programs.temporary_bytes(algorithm, dataclasses.replace(config, inner_steps=steps))
            for steps in STEPS
        ]
        first = STEPS.index(_FROM)
        slope = float(np.polyfit(STEPS[first:], sizes[first:], 1)[0])
        ratio = sizes[-1] / sizes[first]
        rows.append(
            {
                "algorithm": algorithm,
                "temp_size_in_bytes": dict(zip(map(str, STEPS), sizes, strict=True)),
                "ratio": round(ratio, 4),
                "bytes_per_inner_step": round(slope, 1),
            }
        )
        promise = f" (promise ≤ {FLAT})" if from_values(algorithm) else ""
        cells.append([style.label(algorithm), *(f"{size:,}" for size in sizes)])
        cells[-1] += [f"{ratio:.2f}{promise}", f"{round(slope):,}"]
    header = ["algorithm", *(f"{n} inner step{'s' * (n > 1)}" for n in STEPS)]
    header += [f"ratio {STEPS[-1]}:{_FROM}", f"bytes per inner step, from {_FROM} on"]
    title = "### Memory: temporary bytes of one compiled meta-step, meta-batch 5, K = 10"
    return rows, f"{title}\n\n{table(header, cells)}"


def memory_figure(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Those bytes as curves: left without, right with a derivative through the inner loop."""
    titles = {True: "from values", False: "through the inner loop"}
    with style.figure(path, 7.6, 3.4) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, values in zip(panels, titles, strict=True):
            for row in rows:
                algorithm, sizes = row["algorithm"], row["temp_size_in_bytes"]
                if from_values(algorithm) != values:
                    continue
                axes.plot(
                    [int(steps) for steps in sizes],
                    [size / 2**20 for size in sizes.values()],
                    **style.look(algorithm),
                    markersize=5,
                    label=style.label(algorithm),
                )
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(STEPS, [str(steps) for steps in STEPS])
            axes.set_xticks([], minor=True)
            axes.set_title(titles[values], fontsize=9)
            axes.set_xlabel("inner steps")
            axes.legend(fontsize=7, ncols=2, handlelength=1.6, columnspacing=1.0)
        panels[0].set_ylim(bottom=0.02)  # room for a legend below the curves
        panels[0].set_ylabel("temporary memory, MiB")
