"""Which runs are pooled, and what they are called."""

import dataclasses
import json
import math
import re
from typing import Any, NamedTuple

from experiments import style
from experiments.pooling import Curve, pool
from experiments.report_inputs import Results
from experiments.sinusoid_presets import PRESETS, SinusoidConfig, preset


class Group(NamedTuple):
    """Runs that differ only in their seed, in the order of their seeds."""

    algorithm: str
    variant: str
    """What tells it from the algorithm's other groups; empty if it has none."""
    members: list[Results]
    """All of them, also those whose training diverged."""

    @property
    def runs(self) -> list[Results]:
        """The runs that have results."""
        return [run for run in self.members if "diverged" not in run]

    @property
    def diverged(self) -> list[int]:
        """Seeds whose training ended in numbers that are not finite."""
        return [run["seed"] for run in self.members if "diverged" in run]

    @property
    def inner_steps(self) -> int:
        """Inner steps in training."""
        return self.members[0]["config"]["inner_steps"]

    @property
    def meta_steps(self) -> int:
        """The length of the runs."""
        return self.members[0]["meta_steps"]

    @property
    def label(self) -> str:
        """The name for legends and tables."""
        name = style.label(self.algorithm)
        return f"{name}, {self.variant}" if self.variant else name

    @property
    def seeds(self) -> list[int]:
        """The runs' seeds."""
        return [run["seed"] for run in self.members]

    def curve(self, name: str) -> Curve:
        """A measure, pooled over the seeds."""
        return pool(self.runs, name)

    def mean(self, name: str) -> float | None:
        """The mean over seeds of a field of the results, if all runs have it."""
        values = [run.get(name) for run in self.runs]
        if any(not isinstance(value, int | float) for value in values):
            return None
        return sum(values) / len(values)  # type: ignore[arg-type]

    @property
    def commands(self) -> list[str]:
        """The commands that made the runs, with DIR and SEED in the places of their values."""
        commands = [run["command"] for run in self.members if "command" in run]
        return list(dict.fromkeys(_command_of_any_seed(command) for command in commands))


def _command_of_any_seed(command: str) -> str:
    # Programs that gather several runs take lists of seeds, or their number.
    single = "-m experiments.sinusoid" in command and "--seeds" not in command
    seed = {"seed": "SEED"} if single else {}
    return generalised(command, **seed, workdir="DIR")


def generalised(command: str, **places: str) -> str:
    """A command with other values for flags, ``workdir="DIR"``, at its end."""
    for flag in places:
        command = re.sub(rf"\s--?{flag}(=|\s+)\S+", "", command)
    return " ".join([command, *(f"--{flag}={place}" for flag, place in places.items())])


def group_runs(results: list[Results]) -> list[Group]:
    """Pool one setting's runs by (algorithm, config, meta-steps), best first in each algorithm."""
    pooled: dict[str, list[Results]] = {}
    for run in map(_completed, results):
        key = json.dumps([run["algorithm"], run["config"], run["meta_steps"]], sort_keys=True)
        pooled.setdefault(key, []).append(run)
    by_algorithm: dict[str, list[list[Results]]] = {}
    for runs in pooled.values():
        runs.sort(key=lambda run: run["seed"])
        by_algorithm.setdefault(runs[0]["algorithm"], []).append(runs)
    groups = []
    for algorithm in sorted(by_algorithm, key=style.place):
        members = by_algorithm[algorithm]
        variants = _variants([runs[0] for runs in members])
        named = [Group(algorithm, v, runs) for v, runs in zip(variants, members, strict=True)]
        groups += sorted(named, key=final_error)
    return groups


def _completed(run: Results) -> Results:
    """The run with every option that was added to the program since, at its default."""
    defaults = dataclasses.asdict(SinusoidConfig())
    return run | {"config": defaults | run["config"]}


def final_error(group: Group, step: int = 10) -> float:
    """The MSE by which groups are ordered: after 10 steps, or the last if there are fewer.

    Infinite where adaptation diverged, or training with every seed.
    """
    if not group.runs:
        return math.inf
    mse = group.curve("mse")
    at = mse.at(step)
    error = at[0] if at else float(mse.mean[-1])
    return error if math.isfinite(error) else math.inf


def distance_to_preset(name: str, run: Results) -> int:
    """In how many options a run differs from a preset for its algorithm."""
    fields = dataclasses.asdict(preset(name, run["algorithm"], run["setting"]))
    return sum(run["config"].get(field) != value for field, value in fields.items())


def _nearest_preset(run: Results) -> str:
    """The preset from which the fewest fields differ; presets may be retuned after a run."""
    known = [name for name in PRESETS if run["algorithm"] in PRESETS[name]]
    return min(known, key=lambda name: distance_to_preset(name, run), default=next(iter(PRESETS)))


def _variants(runs: list[Results]) -> list[str]:
    """Short words that tell an algorithm's configs apart, one run of each being given.

    Presets differ in many fields, so the preset is named, and fields only within a preset.
    """
    presets = [_nearest_preset(run) for run in runs]
    words = [""] * len(runs)
    for name in set(presets):
        of_preset = [i for i, other in enumerate(presets) if other == name]
        members = [runs[i]["config"] | {"meta_steps": runs[i]["meta_steps"]} for i in of_preset]
        fields = dict.fromkeys(field for member in members for field in member)
        differing = [f for f in fields if len({json.dumps(m.get(f)) for m in members}) > 1]
        for i, member in zip(of_preset, members, strict=True):
            parts = [_words(member, differing)]
            if len(set(presets)) > 1 and name != next(iter(PRESETS)):
                parts.insert(0, f"{name} preset")
            words[i] = ", ".join(part for part in parts if part)
    return words


def _words(choices: dict[str, Any], fields: list[str]) -> str:
    parts, rest = [], list(fields)
    if "inner_steps" in rest:
        steps = choices["inner_steps"]
        parts.append(f"{steps} step{'' if steps == 1 else 's'}")
        rest.remove("inner_steps")
    if "inner_learning_rate" in rest:
        parts = [" ".join([*parts, f"at {choices['inner_learning_rate']:g}"])]
        rest.remove("inner_learning_rate")
    if "meta_learning_rate" in rest:
        parts.append(f"meta rate {choices['meta_learning_rate']:g}")
        rest.remove("meta_learning_rate")
    if "meta_steps" in rest:
        parts.append(f"{choices['meta_steps']:,} meta-steps")
        rest.remove("meta_steps")
    return ", ".join(parts + [f"{f.replace('_', ' ')} {choices.get(f, 'absent')}" for f in rest])
