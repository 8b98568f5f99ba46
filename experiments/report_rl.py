"""The report's sections of reinforcement learning: figure 3 of the paper, as tables and figures."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from experiments import rl_figures, style
from experiments.published import MAML_RETURNS, RL_SOURCE
from experiments.report_groups import Group, generalised
from experiments.report_inputs import Results
from experiments.report_tables import table
from experiments.rl_presets import (
    HalfCheetahConfig,
    NavigationConfig,
    RLConfig,
    half_cheetah_preset,
    navigation_preset,
)

# These change what is printed and saved on the way, and not the result; or did, in older results.
_WITHOUT_EFFECT = (
    "evaluate_every",
    "checkpoint_every",
    "validation_tasks",
    "tasks_at_once",
    "test_samples",
)
# What makes another kind of task of the same experiment.
_KINDS = ("task", "backend", "timing")
_OF_CONFIG = ("reward", "goals", "horizon", "test_steps")


def _kind(run: Results) -> tuple[Any, ...]:
    """The tasks of a run: runs of one kind share a table."""
    return (
        *(run.get(name) for name in _KINDS),
        *(run["config"].get(name) for name in _OF_CONFIG),
        run["test_tasks"],
    )


def _completed(run: Results) -> Results:
    """The run with every option that was added to its program since, at its default."""
    of_navigation = run["experiment"] == "navigation"
    defaults = dataclasses.asdict((NavigationConfig if of_navigation else HalfCheetahConfig)())
    return run | {"config": defaults | run["config"]}


def _groups(results: list[Results]) -> list[Group]:
    """Pool runs that differ in their seed only, algorithms in the order of tables."""
    results = [_completed(run) for run in results]
    pooled: dict[str, list[Results]] = {}
    for run in sorted(results, key=lambda run: run["seed"]):
        config = {k: v for k, v in run["config"].items() if k not in _WITHOUT_EFFECT}
        key = json.dumps([run["algorithm"], run["meta_steps"], config], sort_keys=True)
        pooled.setdefault(key, []).append(run)
    firsts = [runs[0] for runs in pooled.values()]
    groups = [
        Group(runs[0]["algorithm"], _variant(runs[0], firsts), runs) for runs in pooled.values()
    ]
    return sorted(groups, key=lambda group: (style.place(group.algorithm), group.variant))


def _distance_to_preset(run: Results) -> int:
    """In how many options a run differs from its algorithm's preset."""
    if run["experiment"] == "navigation":
        preset: RLConfig = navigation_preset("tuned", run["algorithm"])
    else:
        preset = half_cheetah_preset("tuned", run["algorithm"], run["task"])
    fields = dataclasses.asdict(preset)
    return sum(run["config"].get(field) != value for field, value in fields.items())


def _variant(run: Results, firsts: list[Results]) -> str:
    """In which options a run differs from that of its algorithm which is nearest to the preset."""
    others = [other for other in firsts if other["algorithm"] == run["algorithm"]]
    nearest = min(others, key=_distance_to_preset)
    mine, usual = ({**r["config"], "meta_steps": r["meta_steps"]} for r in (run, nearest))
    differing = [
        field
        for field in mine
        if field not in _WITHOUT_EFFECT and mine.get(field) != usual.get(field)
    ]
    if differing != ["meta_steps"]:  # they have a column of their own
        differing = [field for field in differing if field != "meta_steps"]
    return ", ".join(
        f"{field.replace('_', ' ')} {mine.get(field, 'absent')}" for field in differing
    )


def _cells(group: Group, name: str, updates: list[int]) -> list[str]:
    curve = group.curve(name)
    cells = []
    for update in updates:
        mean, half = curve.at(update) or (np.nan, np.nan)
        interval = f" ± {half:.2f}" if np.isfinite(half) else ""
        cells.append(f"{_number(mean)}{interval}")
    return cells


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "diverged"


def _row(group: Group, updates: list[int], references: dict[str, Any]) -> list[str]:
    speed = group.mean("env_steps_per_second")
    last = group.curve("return").at(updates[-1])
    share = "–"
    if "oracle" in references and last is not None and np.isfinite(last[0]):
        share = f"{_share(last[0], references):.0%}"
    devices = ", ".join(dict.fromkeys(run["device"] for run in group.members))
    drawn = any("return_drawn" in run["metrics"] for run in group.runs)
    return [
        group.label,
        f"{group.meta_steps:,}",
        str(len(group.runs)),
        *_cells(group, "return", updates),
        *(_cells(group, "return_drawn", updates[-1:]) if drawn else ["–"]),
        share,
        f"{speed:,.0f}" if speed else "–",
        devices,
    ]


def _title(run: Results) -> str:
    if run["experiment"] == "navigation":
        reward = run["config"]["reward"].replace("_", " ")
        return f"2D navigation, reward −{reward}, {run['config']['goals']} goals"
    kind = f"{run['task']}, {run['backend']}, {run['timing']} timing"
    return f"Half-cheetah, {kind}, {run['config']['horizon']} actions"


def _references(
    runs: list[Results], oracles: list[Results], updates: list[int]
) -> dict[str, float | dict[str, float]]:
    """Random start, averaged over ``runs``, and oracle; NaN where a run has null: it diverged."""
    starts = [run["references"]["random start"] for run in runs]
    found: dict[str, float | dict[str, float]] = {
        "random start": {
            str(update): float(np.mean([_float(start[str(update)]) for start in starts]))
            for update in updates
        }
    }
    oracles = [run for run in oracles if np.isfinite(_float(run["metrics"]["return"]["0"]))]
    if "oracle" in runs[0]["references"]:
        found["oracle"] = float(runs[0]["references"]["oracle"])
    elif oracles and _span(oracles, runs[0]["test_goals"]):
        found["oracle"] = _oracle(oracles, runs[0]["test_goals"])
    return found


def _float(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _span(oracles: list[Results], test_goals: list[float]) -> bool:
    """Whether there are oracles' goals on both sides of every test goal."""
    goals = [run["goal"] for run in oracles]
    return min(goals) <= min(test_goals) and max(goals) >= max(test_goals)


def _oracle(oracles: list[Results], test_goals: list[float]) -> float:
    """The mean over test goals of what a policy trained for that goal alone returns.

    There is one run for each of some goals, which before any update acts as it learned; between
    their goals returns are interpolated linearly.
    """
    by_goal = sorted((run["goal"], run["metrics"]["return"]["0"]) for run in oracles)
    goals, returns = np.array(by_goal).T
    return float(np.mean(np.interp(test_goals, goals, returns)))


def _share(value: float, references: dict[str, Any]) -> float:
    """Of the way from the random start, before any update, to the oracle."""
    start = references["random start"]["0"]
    return (value - start) / (references["oracle"] - start)


def _section(runs: list[Results], oracles: list[Results], output: pathlib.Path) -> str:
    groups = _groups(runs)
    updates = [int(update) for update in runs[0]["metrics"]["return"]]
    # What an untrained policy becomes depends on the updates: on those of the table's first row.
    references = _references(groups[0].runs, oracles, updates)
    header = ["algorithm", "meta-steps", "seeds"]
    header += [f"{n} update{'' if n == 1 else 's'}" for n in updates]
    header += [f"weights drawn, {updates[-1]} updates³", "share²"]
    rows = [_row(group, updates, references) for group in groups]
    for name, value in references.items():
        numbers = value if isinstance(value, dict) else dict.fromkeys(map(str, updates), value)
        rows.append([name, "–", "–", *map(_number, numbers.values()), *"––––"])
    for name, returns in MAML_RETURNS.get(_published_kind(runs[0]), {}).items():
        rows.append([f"{name}, published¹", "–", "–", *returns, *"––––"])
    name = "return_" + "_".join(
        str(part) for part in (runs[0]["experiment"], *_kind(runs[0])) if part is not None
    )
    # One line for each algorithm: the other rows are in the table alone.
    lines = [
        rl_figures.Line(g.algorithm, g.label, g.curve("return")) for g in groups if not g.variant
    ]
    rl_figures.returns_against_updates(lines, references, output / f"{name}.png")
    commands = dict.fromkeys(
        generalised(run["command"], seed="SEED", workdir="DIR") for run in (*runs, *oracles)
    )
    return "\n\n".join(
        [
            f"#### {_title(runs[0])}",
            table([*header, "environment steps/s", "device"], rows),
            f"![Return against updates]({name}.png)",
            "\n".join(["```sh", *commands, "```"]),
        ]
    )


def _published_kind(run: Results) -> str:
    if run["experiment"] == "navigation":
        config = run["config"]
        whole = (config["reward"], config["goals"], config["horizon"])
        return "navigation" if whole == ("distance", "uniform", 100) else ""
    comparable = (run["backend"], run["timing"], run["config"]["horizon"]) == ("mjx", "rllab", 200)
    return run["task"] if comparable else ""


def reinforcement_learning(results: list[Results], output: pathlib.Path) -> str:
    """One table and figure for each kind of task."""
    parts = ["### Reinforcement learning (figure 3)"]
    meta = [run for run in results if "goal" not in run]
    for kind in dict.fromkeys(map(_kind, meta)):
        oracles = [run for run in results if "goal" in run and _kind(run) == kind]
        parts.append(_section([run for run in meta if _kind(run) == kind], oracles, output))
    parts += [
        "Returns of fresh episodes after each number of updates, averaged over the test tasks; "
        "± half the 95% interval, over test tasks with one seed, over seeds by Student's t with "
        "more. A figure has of each algorithm the row that is nearest to its preset. “Random "
        "start”: the updates of the table's first row, from its prior before training.",
        f"¹ {RL_SOURCE}",
        "² Of the way from the random start before any update to the oracle, after the last one.",
        "³ Episodes of weights drawn from the adapted posterior, one set for each, where the other "
        "columns have the posterior's mean act.",
    ]
    return "\n\n".join(parts)
