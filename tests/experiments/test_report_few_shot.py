"""The report's tables 2 and 3 and figure 2(b), from results written here."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from experiments import few_shot_episodes
from experiments import few_shot_figures as figures
from experiments.few_shot_groups import group_few_shot
from experiments.few_shot_presets import preset
from experiments.report import render
from experiments.report_few_shot import reliabilities
from experiments.report_inputs import Inputs, find_results
from gembml.training import InputError

STEPS = ("0", "1", "10")
PNG = b"\x89PNG"


def measures(accuracy: float) -> dict[str, dict[str, float]]:
    """All measures, with this accuracy after the last step."""
    values = {
        "accuracy": accuracy,
        "accuracy_ci95": 0.004,
        "nll": 0.05,
        "nll_ci95": 0.01,
        "ece": 0.0102,
        "mce": 0.0197,
        "ece_10_bins": 0.0088,
        "mce_10_bins": 0.0155,
    }
    by_step = dict(zip(STEPS, (0.2, 0.5, 1.0), strict=True))
    return {name: {step: value * by_step[step] for step in STEPS} for name, value in values.items()}


def run(**changes: Any) -> dict[str, Any]:
    """The results of one run; ``config`` is merged."""
    config = {"ways": 5, "shots": 1, "filters": 64, "normalisation": "transductive"}
    config |= {"inner_steps": 1, "inner_learning_rate": 0.4} | changes.pop("config", {})
    return {
        "experiment": "few_shot",
        "dataset": "omniglot",
        "split": "random_1200",
        "algorithm": "gem_bml_plus",
        "seed": 0,
        "meta_steps": 60_000,
        "config": config,
        "metrics": measures(0.9),
        "support_statistics": measures(0.8),
        "reliability": {
            "10": {
                "count": [0, 10, 30],
                "confidence": [None, 0.6, 0.9],
                "accuracy": [None, 0.5, 0.95],
            }
        },
        "test_tasks": 600,
        "seconds": 1200.0,
        "device": "CPU, some",
        "versions": {},
        "command": "python -m experiments.few_shot --data_dir=/here --seed=0 --workdir=runs/a",
    } | changes


COSTS = {
    "experiment": "tradeoffs",
    "rows": [
        {
            "algorithm": algorithm,
            "inner_steps": steps,
            "ms_per_meta_step": 10.0 * steps,
            "temporary_bytes": 2**20 * (steps if algorithm == "maml" else 3),
            "device_peak_bytes": None,
        }
        for algorithm in ("maml", "gem_bml_plus")
        for steps in (1, 10, 50)
    ],
    "device": "some GPU",
    "ways": 5,
    "shots": 1,
    "queries": 15,
    "filters": 32,
    "image_size": 84,
    "meta_batch": 4,
    "command": "python -m experiments.tradeoffs --workdir=runs/t",
}


def report(output: pathlib.Path, *results: dict[str, Any]) -> str:
    return render(Inputs(list(results), []), output)


def row(text: str, *starts: str) -> dict[str, str]:
    """The first row of the widest table whose first cells are these, by column."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    header = next(cells for cells in lines if "batch norm" in cells)
    found = next(c for c in lines if tuple(c[: len(starts)]) == starts and len(c) == len(header))
    return dict(zip(header, found, strict=True))


def written(tmp_path: pathlib.Path, *results: dict[str, Any]) -> Inputs:
    for index, content in enumerate(results):
        directory = tmp_path / str(index)
        directory.mkdir()
        (directory / "results.json").write_text(json.dumps(content))
    return find_results([str(tmp_path)])


def test_every_accuracy_has_its_batch_norm_mode_beside_it(tmp_path):
    cells = row(report(tmp_path, run()), "GEM-BML+", "random_1200")
    assert cells["accuracy after 1 step, %"] == "45.00 ± 0.20 T"
    assert cells["accuracy after the last step, %"] == "90.00 ± 0.40 T"
    assert cells["the same, support statistics only"] == "80.00 ± 0.40 S"
    assert cells["published accuracy, %¹"] == "99.23 ± 0.42 ?"
    assert cells["NLL"] == "0.0500 ± 0.0100 T"
    assert cells["ECE, 15 / 10 bins"] == "0.0102 / 0.0088 T"
    assert cells["MCE, 15 / 10 bins"] == "0.0197 / 0.0155 T"
    assert cells["batch norm"] == "transductive"
    assert cells["inner steps, training / test"] == "1 / 10"
    assert cells["± 95% over"] == "600 tasks"
    assert cells["s per meta-step"] == "0.02"


def test_seeds_are_pooled_with_student_s_interval(tmp_path):
    text = report(tmp_path, run(), run(seed=1, metrics=measures(0.92)))
    cells = row(text, "GEM-BML+")
    # t_{0.975, 1} = 12.706 and std / sqrt(2) = 0.01.
    assert cells["accuracy after the last step, %"] == "91.00 ± 12.71 T"
    assert (cells["seeds"], cells["± 95% over"]) == ("2", "seeds")


def test_a_diverged_seed_is_counted_and_left_out_of_the_mean(tmp_path):
    lost = {k: v for k, v in run(seed=1, diverged="It did.").items() if k != "metrics"}
    cells = row(report(tmp_path, run(), lost), "GEM-BML+")
    assert cells["seeds"] == "1 (1 diverged)"
    assert cells["accuracy after the last step, %"] == "90.00 ± 0.40 T"
    alone = row(report(tmp_path, lost), "GEM-BML+")
    assert alone["accuracy after the last step, %"] == "diverged"
    assert alone["inner steps, training / test"] == "1 / –"


def test_runs_that_differ_in_an_option_are_rows_that_say_so(tmp_path):
    other = run(config={"inner_learning_rate": 0.1}, algorithm="gem_bml_plus")
    text = report(tmp_path, run(), other, run(algorithm="maml"))
    row(text, "GEM-BML+")  # 0.4 is its preset's
    row(text, "GEM-BML+, inner learning rate 0.1")
    row(text, "MAML")


def test_a_preset_is_named_in_place_of_its_options(tmp_path):
    tuned, smooth, paper = (
        dataclasses.asdict(preset(name, "gem_bml_plus", "omniglot", 5, 1))
        for name in ("tuned", "smooth", "paper")
    )
    text = report(tmp_path, run(config=tuned), run(config=smooth))
    row(text, "GEM-BML+")
    row(text, "GEM-BML+, preset smooth")
    assert "90.00 T (60,000 meta-steps, 1 seed, preset smooth)" in text.replace(" ± 0.40", "")
    text = report(tmp_path, run(config=tuned), run(config=smooth | {"test_std_multiplier": 0.0}))
    row(text, "GEM-BML+, preset smooth, means alone")
    text = report(tmp_path, run(config=tuned), run(config=tuned | {"log_std_init": -5.0}))
    row(text, "GEM-BML+")  # the value of its preset is not named
    row(text, "GEM-BML+, log std init -5.0")
    text = report(tmp_path, run(config=tuned | {"inner_steps": 5}), run(config=smooth))
    row(text, "GEM-BML+")
    text = report(tmp_path, run(config=tuned), run(config=smooth | {"second_pass": 0.1}))
    row(text, "GEM-BML+, preset smooth, second pass 0.1")
    text = report(tmp_path, run(config=tuned), run(config=smooth | {"second_pass": 0.0}))
    row(text, "GEM-BML+, preset smooth, no second pass")
    text = report(tmp_path, run(config=tuned), run(config=tuned | {"steps_per_dispatch": 500}))
    assert row(text, "GEM-BML+")["seeds"] == "2"
    text = report(tmp_path, run(config=tuned), run(config=paper | {"filters": 32}))
    row(text, "GEM-BML+")
    row(text, "GEM-BML+, preset paper")


def test_seeds_with_and_without_an_option_at_its_default_are_pooled(tmp_path):
    text = report(tmp_path, run(), run(config={"later_rate": 1.0}, seed=1))
    assert row(text, "GEM-BML+")["seeds"] == "2"
    text = report(tmp_path, run(), run(data_sha256="of the images", seed=1))
    assert row(text, "GEM-BML+")["seeds"] == "2"
    two = run(data_sha256="of the images"), run(data_sha256="of other images", seed=1)
    assert row(report(tmp_path, *two), "GEM-BML+")["seeds"] == "1"


def test_accuracies_of_the_harder_rotations_say_so(tmp_path):
    text = report(tmp_path, run(), run(config={"rotations": "classes"}, seed=1))
    row(text, "GEM-BML+", "random_1200")
    row(text, "GEM-BML+", "random_1200, rotations as classes")
    assert "a task may hold a character twice" in text
    assert "twice" not in report(tmp_path, run())


def test_table_2_has_the_paper_s_columns_and_its_numbers(tmp_path):
    text = report(tmp_path, run(), run(config={"ways": 20}, metrics=measures(0.7)))
    lines = text.splitlines()
    assert (
        "| algorithm | split | filters | 5-way 1-shot | 5-way 5-shot | 20-way 1-shot |"
        " 20-way 5-shot |" in lines
    )
    ours = "(60,000 meta-steps, 1 seed)"
    first, third = f"90.00 ± 0.40 T {ours}", f"70.00 ± 0.40 T {ours}"
    assert f"| GEM-BML+ | random_1200 | 64 | {first} | – | {third} | – |" in lines
    assert (
        "| GEM-BML+, published¹ | – | – | 99.23 ± 0.42 ? | 99.64 ± 0.08 ? | 96.24 ± 0.35 ? |"
        " 98.94 ± 0.25 ? |" in lines
    )


def test_table_3_has_published_calibration(tmp_path):
    text = report(tmp_path, run(dataset="mini_imagenet", algorithm="amortized_bml"))
    assert "#### miniImageNet, 5-way 1-shot" in text
    assert "Omniglot" not in text
    cells = row(text, "Amortized BML")
    assert cells["published accuracy, %¹"] == "45.0 ± 0.60 ?"
    assert cells["published ECE / MCE¹"] == "0.0124 / 0.0257 ?"


def test_published_numbers_do_not_stand_beside_the_alphabet_split(tmp_path):
    text = report(tmp_path, run(split="alphabet"))
    assert row(text, "GEM-BML+")["published accuracy, %¹"] == "–"


def test_commands_are_without_places(tmp_path):
    text = report(tmp_path, run())
    assert "\npython -m experiments.few_shot --workdir=DIR --seed=SEED --data_dir=DATA\n" in text
    assert "/here" not in text


def test_every_split_of_a_task_has_a_reliability_diagram(tmp_path):
    short = run(meta_steps=10_000)
    other = run(split="alphabets")
    text = report(tmp_path, run(), run(seed=1), short, other, run(config={"shots": 5}))
    for task in ("5_way_1_shot_random_1200", "5_way_5_shot_random_1200", "5_way_1_shot_alphabets"):
        name = f"reliability_omniglot_{task}.png"
        assert text.count(f"]({name})") == 1
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_a_reliability_diagram_has_every_row_after_its_longest_training():
    wide = {"filters": 64, "inner_steps": 5}
    runs = [run(), run(seed=1), run(meta_steps=10_000), run(config=wide)]
    runs += [run(algorithm="maml", config={"filters": 32}, meta_steps=10_000)]
    runs += [run(split="alphabets", config={"filters": 32})]
    diagrams = reliabilities(group_few_shot(runs))
    assert {episodes: list(bins) for episodes, bins in diagrams.items()} == {
        "random_1200": [
            "GEM-BML+ (T)\n64 filters, 1 inner step, 60,000 meta-steps",
            "GEM-BML+ (T)\n64 filters, 5 inner steps, 60,000 meta-steps",
            "MAML (T)\n32 filters, 10,000 meta-steps",
        ],
        "alphabets": ["GEM-BML+ (T)\n60,000 meta-steps"],
    }
    two_seeds, *_ = diagrams["random_1200"].values()
    assert two_seeds["count"] == [0, 20, 60]
    assert two_seeds["accuracy"] == [None, 0.5, 0.95]


def test_figure_2b_and_its_table(tmp_path):
    text = report(tmp_path, COSTS)
    assert (tmp_path / "figure_2b.png").read_bytes().startswith(PNG)
    assert "| MAML | temporary MiB | 1 | 10 | 50 |" in text
    assert "| GEM-BML+ | ms per meta-step | 10 | 100 | 500 |" in text
    assert "device peak MiB" not in text


def test_results_are_found_and_a_second_copy_is_left_out(tmp_path):
    other_images = run(data_sha256="of other images")
    inputs = written(
        tmp_path, run(), run(), run(split="alphabets"), run(seed=1), other_images, COSTS
    )
    assert len(inputs.results) == 5
    assert len(inputs.skipped) == 1
    assert "it is the same run as" in inputs.skipped[0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"split": None}, "its field 'split' is missing or of another type"),
        ({"config": {"ways": "5"}}, "its config has no 'ways', or of another type"),
        ({"metrics": measures(float("nan"))}, "its measure 'accuracy' is missing or not finite"),
        ({"metrics": {}}, "its measure 'accuracy' is missing or not finite"),
        ({"support_statistics": {"accuracy": 0.5}}, "its 'support_statistics' are not"),
        ({"reliability": {"10": {"count": [1]}}}, "its 'reliability' is not"),
        ({"experiment": "tradeoffs"}, "its field 'rows' is missing"),
        ({**COSTS, "rows": [{"algorithm": "maml"}]}, "its 'rows' are not costs by inner steps"),
    ],
)
def test_what_is_unusable_is_refused_in_a_sentence(tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint.replace("(", r"\(")):
        written(tmp_path, run(**changes))


def test_figures_of_a_run_are_written(tmp_path):
    rows = [{"step": step, "accuracy_1": 0.3, "accuracy_10": 0.5} for step in (0.0, 100.0)]
    figures.learning_curve(rows, tmp_path / "learning_curve.png")
    figures.accuracy_against_steps(run(), tmp_path / "accuracy_against_steps.png")
    generator = np.random.default_rng(0)
    example = few_shot_episodes.EpisodeExample(
        generator.random((10, 8, 8, 1)),
        np.tile(np.arange(5), 2),
        generator.random((15, 8, 8, 1)),
        np.tile(np.arange(5), 3),
        generator.dirichlet(np.ones(5), 15),
    )
    few_shot_episodes.episodes([example, example], tmp_path / "episodes.png")
    for name in ("learning_curve", "accuracy_against_steps", "episodes"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)
