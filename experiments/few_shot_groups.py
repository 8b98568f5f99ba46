"""Which few-shot runs are pooled, and how their numbers are printed with their batch-norm mode."""

import dataclasses
import json
import math
from typing import Any, NamedTuple

from experiments import style
from experiments.few_shot_presets import FewShotConfig, preset
from experiments.pooling import Curve, pool
from experiments.report_groups import Group
from experiments.report_inputs import Results
from gembml import ALGORITHMS
from gembml.options import OptionError


class Task(NamedTuple):
    """What the episodes are."""

    dataset: str
    ways: int
    shots: int

    @property
    def name(self) -> str:
        """As in tables."""
        return f"{self.ways}-way {self.shots}-shot"


# Batch norm's statistics at test -> what stands beside each number, and what it means.
MODES = {
    "transductive": ("T", "of all images that are classified together, which is transductive"),
    "support": ("S", "of the support set only"),
    "not stated": ("?", "not stated by the source"),
}
# These have columns of their own.
_COLUMNS = ("ways", "shots", "filters", "inner_steps", "normalisation", "rotations")
# These change what is printed and saved on the way, and not the result.
_WITHOUT_EFFECT = (
    "evaluate_every",
    "checkpoint_every",
    "steps_per_dispatch",
    "validation_tasks",
)
# What options with these values are called.
_WORDS = {
    ("test_std_multiplier", 0.0): "means alone",
    ("second_pass", 0.0): "no second pass",
    ("activation", "silu"): "SiLU",
    ("activation", "relu"): "ReLU",
}


def mode(group: Group) -> str:
    """The letter of a group's batch-norm mode, or its name if it has none."""
    name = group.members[0]["config"]["normalisation"]
    return MODES.get(name, (str(name), ""))[0]


def task_of(run: Results) -> Task:
    """The episodes of a run."""
    return Task(run["dataset"], run["config"]["ways"], run["config"]["shots"])


def episodes_of(run: Results) -> str:
    """The split, and how classes are turned if it is not as in MAML's code."""
    as_classes = run["config"].get("rotations") == "classes"
    return run["split"] + (", rotations as classes" if as_classes else "")


def group_few_shot(results: list[Results]) -> list[Group]:
    """Pool one task's runs that differ only in their seed, algorithms in the order of tables."""
    pooled: dict[str, list[Results]] = {}
    for run in sorted(results, key=lambda run: run["seed"]):
        fields = ("algorithm", "split", "meta_steps", "test_tasks")
        config = {k: v for k, v in _completed(run).items() if k not in _WITHOUT_EFFECT}
        key = json.dumps(
            [config, _images(run, results), *(run[field] for field in fields)], sort_keys=True
        )
        pooled.setdefault(key, []).append(run)
    groups = [
        Group(runs[0]["algorithm"], _variant(runs[0], results), runs) for runs in pooled.values()
    ]

    def place(group: Group) -> tuple:
        split = group.members[0]["split"]
        return *style.place(group.algorithm), split, -group.meta_steps, group.variant

    return sorted(groups, key=place)


def _images(run: Results, results: list[Results]) -> str | None:
    """The hash of a run's images; results that are older than it have that of the others."""
    others = {other.get("data_sha256") for other in results if other["split"] == run["split"]}
    known = others - {None}
    return run.get("data_sha256") or (known.pop() if len(known) == 1 else None)


def _completed(run: Results) -> dict[str, Any]:
    """A run's options; results that are older than an option are of its default."""
    return dataclasses.asdict(FewShotConfig()) | run["config"]


def _variant(run: Results, results: list[Results]) -> str:
    """The options, other than those with columns, in which an algorithm's runs differ.

    Those that are as in its preset, ``tuned`` or ``smooth``, whichever is nearer, are not named;
    of a row that is called ``smooth`` its other ones are, even if no other run has them.
    Runs of ``paper``, which has little in common with the others, are compared among themselves.
    """
    mine, printed = _completed(run), _is_printed(run)
    configs = [
        _completed(other)
        for other in results
        if other["algorithm"] == run["algorithm"] and _is_printed(other) == printed
    ]
    fields = dict.fromkeys(field for config in configs for field in config)
    name, usual, other = _preset(run, mine)
    options = [
        _words(field, mine.get(field, "absent"))
        for field in fields
        if field not in (*_COLUMNS, *_WITHOUT_EFFECT)
        and (
            len({json.dumps(c.get(field)) for c in configs}) > 1
            or (name and usual.get(field) != other.get(field))
        )
        and not (field in usual and mine.get(field) == usual[field])
    ]
    return ", ".join([name, *options] if name else options)


def _words(field: str, value: Any) -> str:
    return _WORDS.get((field, value), f"{field.replace('_', ' ')} {value}")


def _is_printed(run: Results) -> bool:
    """Whether a run has the preset ``paper``, with any number of filters."""
    config = _completed(run)
    try:
        printed = preset("paper", run["algorithm"], run["dataset"], *task_of(run)[1:])
    except OptionError:
        return False
    free = {"filters", "normalisation", "rotations", *_WITHOUT_EFFECT}
    fields = dataclasses.asdict(printed).items()
    return all(config.get(field) == value for field, value in fields if field not in free)


def _preset(run: Results, config: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What a run is called by the preset that it is nearest to, its options, and the other one's.

    ``tuned`` is called nothing.
    """
    if run["dataset"] != "omniglot" or run["algorithm"] not in ALGORITHMS:
        return "", {}, {}
    if _is_printed(run):
        return "preset paper", {}, {}
    tuned, smooth = (
        dataclasses.asdict(preset(name, run["algorithm"], "omniglot", *task_of(run)[1:]))
        for name in ("tuned", "smooth")
    )

    def distance(options: dict[str, Any]) -> int:
        # Options with a column are not named: a row with other inner steps is a preset's.
        return sum(config.get(k) != options[k] for k in options if k not in _COLUMNS)

    if distance(smooth) < distance(tuned):
        return "preset smooth", smooth, tuned
    return "", tuned, smooth


def last_step(group: Group) -> int:
    """The largest number of adaptation steps that all runs were tested with."""
    return int(group.curve("accuracy").steps[-1])


def support_only(group: Group, name: str) -> Curve | None:
    """A measure with batch-norm statistics of the support set only, if all runs have it."""
    runs = [{"metrics": run.get("support_statistics")} for run in group.runs]
    known = all(run["metrics"] and name in run["metrics"] for run in runs)
    return pool(runs, name) if runs and known else None


def cell(drawn: Curve | None, step: int, mark: str, digits: int, scale: float = 1.0) -> str:
    """Mean ± half the interval after ``step`` steps, and the batch-norm mode."""
    found = drawn.at(step) if drawn else None
    if found is None:
        return "–"
    mean, half = (scale * value for value in found)
    if not math.isfinite(mean):
        return f"diverged {mark}"
    interval = f" ± {half:.{digits}f}" if math.isfinite(half) else ""
    return f"{mean:.{digits}f}{interval} {mark}"


def reliability(group: Group) -> dict[str, list[float | None]] | None:
    """The bins after the last step, added over seeds; None if a run has none."""
    found = [run.get("reliability") for run in group.runs]
    if not found or not all(found):
        return None
    bins = [runs[max(runs, key=int)] for runs in found if runs]
    counts = [sum(column) for column in zip(*(one["count"] for one in bins), strict=True)]

    def mean(name: str) -> list[float | None]:
        sums = [0.0] * len(counts)
        for one in bins:
            for index, (count, value) in enumerate(zip(one["count"], one[name], strict=True)):
                sums[index] += count * value if count else 0.0
        return [total / count if count else None for total, count in zip(sums, counts, strict=True)]

    return {"count": [*counts], "confidence": mean("confidence"), "accuracy": mean("accuracy")}
