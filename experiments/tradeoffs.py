"""Time and memory of a meta-step against inner steps: figure 2(b) of the paper.

    python -m experiments.tradeoffs --workdir=DIR [--inner_steps=1,5,10,20,50] [--algorithms=maml]

The network, shots and meta-batch of 5-way 1-shot miniImageNet, on random images. Writes
``DIR/results.json`` and ``DIR/figure_2b.png`` after every point; the same command goes on where it
was stopped, and further algorithms or numbers of steps may join the same directory. The numbers are
of the machine it runs on.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
from experiments import style
from experiments.few_shot_presets import FewShotConfig, preset
from experiments.refusals import refuse
from experiments.report_tradeoffs import figure_2b
from experiments.tradeoffs_point import Point, measure_apart
from gembml import ALGORITHMS
from gembml.training import InputError, open_workdir, write_json

# Pre-training has no inner steps.
MEASURED = {
    name: ALGORITHMS[name] for name in sorted(ALGORITHMS, key=style.place) if name != "pretrain"
}
_DEFAULT = ["gem_bml_plus", "gem_bml", "maml", "fomaml", "reptile", "imaml", "amortized_bml"]
# The same for every point of a figure.
_SHARED = ("ways", "shots", "queries", "filters", "meta_batch")
_NO_EFFECT = "has no effect on the cost of a meta-step"
_REFUSED = {
    "inner_steps": "is what is compared, and written --inner_steps=1,5",
    **dict.fromkeys(
        (
            "test_queries",
            "test_steps",
            "test_samples",
            "test_std_multiplier",
            "test_tasks",
            "validation_tasks",
            "steps_per_dispatch",
            "evaluate_every",
            "checkpoint_every",
        ),
        _NO_EFFECT,
    ),
}

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of all points; resumed if it has some")
_ALGORITHMS = flags.DEFINE_list("algorithms", _DEFAULT, f"of {', '.join(MEASURED)}")
_INNER_STEPS = flags.DEFINE_list("inner_steps", ["1", "5", "10", "20", "50"], "on the support set")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 84, "pixels a side")
_REPEATS = flags.DEFINE_integer("repeats", 3, "timed meta-steps of each point, after a first one")
_MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", 600.0, "of a point whose first meta-step takes longer only memory is recorded"
)


def _measured(point: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The algorithm of a point and the options it was measured with: presets change."""
    return point["row"]["algorithm"], point["config"]


def _kept(directory: pathlib.Path) -> list[dict[str, Any]]:
    """The points that were measured before."""
    points = []
    for path in sorted((directory / "points").glob("*.json")):
        try:
            point = json.loads(path.read_text(encoding="utf-8"))
            usable = all(_measured(point)) and point["about"]["device"]
        except (OSError, ValueError, TypeError, LookupError):
            usable = False
        if not usable:
            raise InputError(f"{path} is no point of this program: delete it.")
        points.append(point)
    return points


def _check_device(directory: pathlib.Path, device: str) -> None:
    others = {point["about"]["device"] for point in _kept(directory)} - {device}
    if others:
        raise InputError(
            f"{directory} holds points of another device ({others.pop()}) than this ({device}): "
            "name another --workdir."
        )


def _gather(directory: pathlib.Path, identity: dict[str, Any], command: str) -> dict[str, Any]:
    """``results.json`` and the figure, from all points in the directory."""
    points = _kept(directory)
    rows = [point["row"] for point in points]
    order = list(MEASURED)
    rows.sort(key=lambda row: (order.index(row["algorithm"]), row["inner_steps"]))
    results = identity | {"rows": rows, "command": command, **points[0]["about"]}
    write_json(directory / "results.json", results)
    figure_2b(results, directory / "figure_2b.png")
    return results


def _line(row: dict[str, Any]) -> str:
    steps = row["inner_steps"]
    time, size = row["ms_per_meta_step"], row["temporary_bytes"]
    measured = [f"{time:,.1f} ms" if time is not None else f"not timed: {row['untimed']}"]
    measured += [f"{size / 2**20:,.1f} MiB"] if size is not None else []
    name = style.label(row["algorithm"])
    return f"{name}, {steps} inner step{'' if steps == 1 else 's'}: {', '.join(measured)}"


def _configs(names: list[str]) -> dict[str, FewShotConfig]:
    """Each algorithm's preset with the options that were given."""
    if not names:
        raise InputError(f"--algorithms must name one or more of {', '.join(MEASURED)}.")
    refuse(_REFUSED)
    configs = {}
    for name in names:
        command_line.choose("algorithms", MEASURED, name)
        configs[name] = command_line.override(preset("tuned", name, "mini_imagenet", 5, 1), name)
    return configs


def measure_points(
    points: Iterable[Point], directory: pathlib.Path, identity: dict[str, Any], command: str
) -> None:
    """Measure those that the directory does not hold yet, each into a file of its own."""
    (directory / "points").mkdir(exist_ok=True)
    known = [_measured(point) for point in _kept(directory)]
    for point in points:
        config = dataclasses.asdict(point.config)
        if (point.algorithm, config) in known:
            continue
        cost, about = measure_apart(point)
        number = point.config.inner_steps
        row = {"algorithm": point.algorithm, "inner_steps": number, **cost._asdict()}
        of_support = (
            point.algorithm == "amortized_bml" and config["amortized_posterior"] == "support"
        )
        if ALGORITHMS[point.algorithm].query_loop and not of_support:
            row["query_steps"] = point.config.query_steps or number
        print(_line(row), flush=True)
        if about:  # otherwise ended by the system, which may have the memory another time
            _check_device(directory, about["device"])
            path = directory / "points" / f"{point.algorithm}_{number}.json"
            write_json(path, {"row": row, "config": config, "about": about})
            _gather(directory, identity, command)
    if not _kept(directory):
        raise InputError("No point could be measured here: choose smaller ones.")
    _gather(directory, identity, command)


def main(argv: list[str]) -> None:
    """Measure what the flags name."""
    command_line.no_arguments(argv)
    workdir = command_line.given("workdir", _WORKDIR.value)
    configs = _configs(_ALGORITHMS.value)
    numbers = command_line.whole_numbers("inner_steps", _INNER_STEPS.value, 1)
    image_size = command_line.in_range("image_size", _IMAGE_SIZE.value, 8, 512)
    repeats = command_line.in_range("repeats", _REPEATS.value, 1)
    if not _MAX_SECONDS.value > 0:
        raise InputError(f"--max_seconds must be above 0, not {_MAX_SECONDS.value:g}.")
    points = [
        Point(
            algorithm,
            dataclasses.replace(config, inner_steps=number),
            image_size,
            repeats,
            _MAX_SECONDS.value,
        )
        for number in numbers  # the cheap ones first
        for algorithm, config in configs.items()
    ]
    shared = dataclasses.asdict(points[0].config)
    identity = {
        "experiment": "tradeoffs",
        **{name: shared[name] for name in _SHARED},
        "image_size": image_size,
        "options": {
            name.removeprefix("config."): flags.FLAGS[name].value
            for name in flags.FLAGS
            if name.startswith("config.") and flags.FLAGS[name].value is not None
        },
    }
    directory = open_workdir(workdir, identity)
    measure_points(points, directory, identity, command_line.command("experiments.tradeoffs"))
    print(f"Results and figure: {directory / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(FewShotConfig)
    command_line.run(main)
