"""The report's section of few-shot classification: the paper's tables 2 and 3, calibration."""

import pathlib
import re
from collections import Counter

from experiments.few_shot_figures import DATASETS, reliability_diagram
from experiments.few_shot_groups import (
    MODES,
    Task,
    cell,
    episodes_of,
    group_few_shot,
    last_step,
    mode,
    reliability,
    support_only,
    task_of,
)
from experiments.published import FEW_SHOT_SOURCE, few_shot_accuracy, few_shot_calibration
from experiments.report_groups import Group, generalised
from experiments.report_inputs import Results
from experiments.report_tables import table

_TABLE_2 = ((5, 1), (5, 5), (20, 1), (20, 5))
_HEADER = (
    "algorithm",
    "split",
    "filters",
    "meta-steps",
    "inner steps, training / test",
    "batch norm",
    "seeds",
    "± 95% over",
    "accuracy after 1 step, %",
    "accuracy after the last step, %",
    "the same, support statistics only",
    "published accuracy, %¹",
    "NLL",
    "ECE, 15 / 10 bins",
    "MCE, 15 / 10 bins",
    "published ECE / MCE¹",
    "s per meta-step",
    "device",
)
_AS_CLASSES = (
    "“Rotations as classes”: a task may hold a character twice, in two rotations, which is harder "
    "than MAML's protocol, where characters differ and each is turned at random."
)
_SUPPORT, _UNKNOWN = MODES["support"][0], MODES["not stated"][0]


def _published(value: str | None) -> str:
    return f"{value} {_UNKNOWN}" if value else "–"


def _over(group: Group) -> str:
    """What the intervals of a group are over."""
    if not group.runs:
        return "–"
    return "seeds" if len(group.runs) > 1 else f"{group.runs[0]['test_tasks']} tasks"


def _row(group: Group, task: Task) -> list[str]:
    run = group.members[0]
    # Published numbers are of a random split.
    comparable = run["split"] != "alphabet"
    published = _published(few_shot_accuracy(group.algorithm, *task) if comparable else None)
    calibration = _published(few_shot_calibration(group.algorithm, *task) if comparable else None)
    steps = f"{group.inner_steps} / {last_step(group) if group.runs else '–'}"
    seeds = str(len(group.runs)) + (f" ({len(group.diverged)} diverged)" if group.diverged else "")
    about = [group.label, episodes_of(run), str(run["config"]["filters"]), f"{group.meta_steps:,}"]
    about += [steps, run["config"]["normalisation"], seeds, _over(group)]
    devices = ", ".join(dict.fromkeys(member["device"] for member in group.members))
    if not group.runs:
        return [*about, *["diverged"] * 3, published, *["–"] * 3, calibration, "–", devices]
    mark, step = mode(group), last_step(group)
    accuracy = group.curve("accuracy")
    seconds = [member["seconds"] / member["meta_steps"] for member in group.runs]

    def bins(name: str) -> str:
        fifteen, ten = (group.curve(name + suffix) for suffix in ("", "_10_bins"))
        return f"{cell(fifteen, step, '/', 4)} {cell(ten, step, mark, 4)}"

    return [
        *about,
        cell(accuracy, 1, mark, 2, 100),
        cell(accuracy, step, mark, 2, 100),
        cell(support_only(group, "accuracy"), step, _SUPPORT, 2, 100),
        published,
        cell(group.curve("nll"), step, mark, 4),
        bins("ece"),
        bins("mce"),
        calibration,
        f"{sum(seconds) / len(seconds):.3g}",
        devices,
    ]


def _table_2(by_task: dict[Task, list[Group]]) -> str:
    """Accuracy after the last step in the paper's four columns, ours above the published."""
    tasks = [Task("omniglot", *shape) for shape in _TABLE_2]
    rows: dict[tuple[str, ...], list[str]] = {}
    groups = [group for task in tasks for group in by_task.get(task, [])]
    for name in sorted({g.algorithm for g in groups}, key=[g.algorithm for g in groups].index):
        for column, task in enumerate(tasks):
            for group in by_task.get(task, []):
                if group.algorithm != name or not group.runs:
                    continue
                run = group.members[0]
                label = group._replace(variant="").label
                key = (label, episodes_of(run), str(run["config"]["filters"]))
                shown = cell(group.curve("accuracy"), last_step(group), mode(group), 2, 100)
                about = [f"{group.meta_steps:,} meta-steps", _seeds(group), group.variant]
                shown += f" ({', '.join(filter(None, about))})"
                cells = rows.setdefault(key, ["–"] * len(tasks))
                cells[column] = shown if cells[column] == "–" else f"{cells[column]}; {shown}"
        published = [_published(few_shot_accuracy(name, *task)) for task in tasks]
        if any(number != "–" for number in published):
            label = Group(name, "", []).label
            rows[f"{label}, published¹", "–", "–"] = published
    header = ["algorithm", "split", "filters", *(task.name for task in tasks)]
    return table(header, [[*key, *cells] for key, cells in rows.items()], left=2)


def _seeds(group: Group) -> str:
    return f"{len(group.runs)} seed{'' if len(group.runs) == 1 else 's'}"


_Bins = dict[str, list[float | None]]  # of a reliability diagram


def reliabilities(groups: list[Group]) -> dict[str, dict[str, _Bins]]:
    """Episodes -> title -> bins, of each row that trained longest.

    A title says the filters, inner and meta-steps where these differ between the rows of the
    episodes; those of most rows come first.
    """
    found: dict[str, dict[tuple[str, int, int], Group]] = {}
    for group in sorted(groups, key=lambda group: -group.meta_steps):
        if reliability(group) is not None:
            config = group.members[0]["config"]
            row = (f"{group.label} ({mode(group)})", config["filters"], config["inner_steps"])
            found.setdefault(episodes_of(group.members[0]), {}).setdefault(row, group)

    def titled(rows: dict[tuple[str, int, int], Group]) -> dict[str, _Bins]:
        drawn: dict[str, _Bins] = {}
        names = Counter(label for label, _, _ in rows)
        one_width = len({filters for _, filters, _ in rows}) == 1
        one_length = len({group.meta_steps for group in groups}) == 1
        for (label, filters, steps), group in sorted(
            rows.items(), key=lambda item: groups.index(item[1])
        ):
            about = [] if one_width else [f"{filters} filters"]
            about += [f"{steps} inner step{'' if steps == 1 else 's'}"] if names[label] > 1 else []
            about += [] if one_length else [f"{group.meta_steps:,} meta-steps"]
            bins = reliability(group)
            assert bins is not None
            drawn["\n".join([label, *([", ".join(about)] if about else [])])] = bins
        return drawn

    by_number = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return {episodes: titled(rows) for episodes, rows in by_number}


def _commands(groups: list[Group]) -> str:
    lines: dict[str, None] = {}
    for group in groups:
        for run in group.members:
            command = run.get("command")
            if not command:
                continue
            places = {"workdir": "DIR"} | ({} if "--seeds" in command else {"seed": "SEED"})
            # Where the data lie is a matter of the machine.
            places |= {flag: "DATA" for flag in ("data", "data_dir") if f"--{flag}=" in command}
            lines[generalised(command, **places)] = None
    return "\n".join(["```sh", *lines, "```"]) if lines else ""


def few_shot(results: list[Results], output: pathlib.Path) -> str:
    """Tables 2 and 3 of the paper, and a reliability diagram of every task."""
    tasks = sorted({task_of(run) for run in results}, key=lambda t: (t[0] != "omniglot", *t))
    by_task = {t: group_few_shot([run for run in results if task_of(run) == t]) for t in tasks}
    parts = ["### Few-shot classification (tables 2 and 3)"]
    if any(task.dataset == "omniglot" for task in tasks):
        parts += ["#### Omniglot: accuracy after the last step, %", _table_2(by_task)]
    for task, groups in by_task.items():
        title = f"{DATASETS.get(task.dataset, task.dataset)}, {task.name}"
        parts += [
            f"#### {title}",
            table(_HEADER, [_row(group, task) for group in groups], left=2),
            _commands(groups),
        ]
        for episodes, bins in reliabilities(groups).items():
            about = f"{task.dataset} {task.name} {episodes}"
            name = f"reliability_{re.sub(r'[^a-zA-Z0-9]+', '_', about)}.png"
            reliability_diagram(bins, output / name)
            parts.append(f"![Reliability of {title}, {episodes}]({name})")
    names = {run["config"]["normalisation"] for run in results} | {"support", "not stated"}
    modes = [f"{MODES[name][0]}: {MODES[name][1]}" for name in MODES if name in names]
    parts += [
        "Means over seeds ± half the 95% interval: over test tasks with one seed, over seeds by "
        "Student's t with more; of an ECE with one seed, if recorded, 1.96 bootstrap deviations, "
        "beside which gaps by chance raise one near 0. NLL in nats per query; ECE and MCE pool "
        "the queries of all test tasks, in bins of equal width, and an MCE is often that of a bin "
        "with one or two queries. "
        "The letter beside a number says which statistics batch "
        f"norm used at test. {'; '.join(modes)}. “The same, support statistics only”: the same "
        "trained network, tested so. Rows with diverged seeds are means over the others. The "
        "diagrams, and ECE and MCE in them, are of all seeds' queries together, of a row after its "
        "longest training.",
        _AS_CLASSES if any(run["config"].get("rotations") == "classes" for run in results) else "",
        f"¹ {FEW_SHOT_SOURCE}; ± over test tasks; the bins are not stated.",
    ]
    return "\n\n".join(part for part in parts if part)
