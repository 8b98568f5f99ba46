"""The navigation program from the command line to its files."""

import json
import pathlib
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from experiments.regret_signs import AdaptedReturns, correlations
from experiments.report_inputs import find_results
from experiments.report_rl import reinforcement_learning
from gembml.training import read_metrics
from tests.programs import Programs

TINY = (
    "--config.hidden_units=8",
    "--config.meta_batch=2",
    "--config.rollouts=2",
    "--config.horizon=5",
    "--config.test_rollouts=2",
    "--config.test_tasks=6",
    "--config.validation_tasks=2",
    "--config.steps_per_dispatch=1",
    "--config.evaluate_every=2",
    "--config.checkpoint_every=1",
)
FIGURES = ("learning_curve.png", "return_against_updates.png", "trajectories.png")


@pytest.fixture(scope="module")
def navigation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the program quickly, many times."""
    with Programs(tmp_path_factory.mktemp("programs"), "navigation") as server:
        yield server


@pytest.fixture(scope="module")
def whole(navigation: Programs, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The work directory of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finished = navigation.run(*TINY, "--meta_steps=6", f"--workdir={workdir}")
    assert finished.code == 0, finished.stderr
    assert "environment steps/s in training" in finished.stdout
    return workdir


def results_of(workdir: pathlib.Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


def test_a_run_leaves_returns_by_updates_references_figures_and_speed(whole):
    results = results_of(whole)
    for name in ("return", "return_ci95", "return_drawn", "return_drawn_std"):
        assert list(results["metrics"][name]) == ["0", "1", "2", "3"]
    assert list(results["references"]["random start"]) == ["0", "1", "2", "3"]
    assert results["references"]["oracle"] > max(results["metrics"]["return"].values())
    assert results["env_steps_per_second"] > 0
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"return_0", "return_3", "env_steps_per_second"} <= set(rows[0])
    for figure in FIGURES:
        assert (whole / figure).read_bytes().startswith(b"\x89PNG")


def test_the_report_has_a_table_and_a_figure_of_it(whole, tmp_path):
    inputs = find_results([str(whole)])
    assert not inputs.skipped
    report = reinforcement_learning(inputs.results, tmp_path)
    assert "| GEM-BML+ | 6 | 1 |" in report
    assert "oracle" in report
    (figure,) = tmp_path.glob("return_*.png")
    assert figure.name in report


def test_seeds_with_and_without_an_option_at_its_default_are_pooled(whole, tmp_path):
    results, older = results_of(whole), results_of(whole)
    del older["config"]["second_pass"]
    report = reinforcement_learning([results, older | {"seed": 1}], tmp_path)
    assert "| GEM-BML+ | 6 | 2 |" in report


@pytest.mark.parametrize("lost", [["1", "2", "3"], ["0", "1", "2", "3"]])
def test_the_report_says_what_diverged(whole, tmp_path, lost):
    results = results_of(whole)
    none = dict.fromkeys(lost)
    results["metrics"] = {name: curve | none for name, curve in results["metrics"].items()}
    results["references"]["random start"] |= none
    report = reinforcement_learning([results], tmp_path)
    for start in ("| GEM-BML+ |", "| random start |"):
        (line,) = (line for line in report.splitlines() if line.startswith(start))
        assert line.count("diverged") >= len(lost)


def test_runs_with_other_numbers_of_updates_have_tables_of_their_own(whole, tmp_path):
    results, fewer = results_of(whole), results_of(whole)
    fewer["config"]["test_steps"] = 1
    for curve in (*fewer["metrics"].values(), fewer["references"]["random start"]):
        del curve["2"], curve["3"]
    report = reinforcement_learning([fewer, results], tmp_path)
    assert report.count("#### 2D navigation") == 2


@pytest.fixture(scope="module")
def exploration_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the study of a trained prior."""
    with Programs(tmp_path_factory.mktemp("programs"), "exploration_study") as server:
        yield server


def test_an_exploration_study_of_it_compares_weights_drawn_with_the_mean(
    exploration_study, whole, tmp_path
):
    finished = exploration_study.run(
        f"--run={whole}", "--tasks=2", "--episodes=2", f"--workdir={tmp_path}"
    )
    assert finished.code == 0, finished.stderr
    study = json.loads((tmp_path / "exploration_study.json").read_text())
    assert study["run"] == json.loads((whole / "run.json").read_text())
    assert [(row["episodes"], row["multiplier"]) for row in study["rows"]] == [
        (2, multiplier) for multiplier in (0.0, 0.5, 1.0, 2.0)
    ]
    base, *drawn = study["rows"]
    assert base["more_than_mean"] == 0
    assert all(row["more_than_mean"] != 0 for row in drawn)
    assert (tmp_path / "exploration_study.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def spread_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the study of adapted returns."""
    with Programs(tmp_path_factory.mktemp("programs"), "spread_study") as server:
        yield server


def test_a_spread_study_has_a_row_for_each_run_and_number_of_updates(spread_study, whole, tmp_path):
    finished = spread_study.run(f"--run={whole}", "--tasks=20", f"--workdir={tmp_path}")
    assert finished.code == 0, finished.stderr
    study = json.loads((tmp_path / "spread_study.json").read_text())
    assert study["runs"] == [json.loads((whole / "run.json").read_text())]
    rows = study["rows"]
    updates = study["runs"][0]["config"]["test_steps"]
    assert [(row["run"], row["updates"]) for row in rows] == [
        (0, number) for number in range(1, updates + 1)
    ]
    for sign in ("drawn_std", "action_std", "low_return"):
        assert all(-1 <= row[sign] <= 1 for row in rows)
        assert all(0 <= row[f"{sign}_ci95"] < 1 for row in rows)  # and not NaN
    assert (tmp_path / "spread_study.png").read_bytes().startswith(b"\x89PNG")


def test_a_spread_study_tells_a_sign_of_the_regret_from_none():
    generator = np.random.default_rng(0)
    tasks, episodes = 300, 50
    regret = generator.uniform(1, 2, (tasks, 1, 1))
    noise = generator.normal(size=(3, tasks, 1, episodes))
    best = np.zeros(tasks)
    # Drawn policies spread as the regret is large; episodes of the mean do not.
    adapted = AdaptedReturns(-regret + 0.1 * noise[0], 0.1 * noise[1], regret * noise[2])
    (row,) = correlations(best, adapted)
    assert row["updates"] == 1
    assert row["regret"] == pytest.approx(1.5, abs=0.05)
    assert row["drawn_std"] > 0.8
    # Three standard deviations of a rank correlation of nothing.
    assert abs(row["action_std"]) < 3 / tasks**0.5
    assert abs(row["low_return"]) < 3 / tasks**0.5
    assert row["action_std_ci95"] == pytest.approx(1.96 / tasks**0.5, rel=0.2)
    assert row["action_std_more"] < -5 * row["action_std_more_ci95"] < 0


@pytest.mark.parametrize("study", ["exploration_study", "spread_study"])
def test_a_study_of_what_is_no_finished_run_is_refused(request, study, whole, tmp_path):
    program = request.getfixturevalue(study)
    about = json.loads((whole / "run.json").read_text())
    runs = {
        "unfinished": about,
        "renamed": about | {"config": about["config"] | {"step_size": 0.1}},
        "unknown": about | {"config": about["config"] | {"goals": "everywhere"}},
        "another": about | {"experiment": "sinusoid", "config": {}},
    }
    for name, content in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(content))
    for run, sentence in (
        (tmp_path, "must name the work directory of"),
        (tmp_path / "another", "must name the work directory of"),
        (tmp_path / "unfinished", "finish"),
        (tmp_path / "renamed", "is of a version with other options"),
        (tmp_path / "unknown", "has an option of an older version: config.goals must be"),
    ):
        finished = program.run(f"--run={run}", f"--workdir={tmp_path / 'study'}")
        assert finished.code == 2
        assert finished.stderr.startswith("error: ")
        assert str(run) in finished.stderr
        assert sentence in finished.stderr
        assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_spread_study_refuses_runs_and_tasks_that_it_cannot_compare(
    spread_study, whole, tmp_path
):
    about = json.loads((whole / "run.json").read_text())
    for name, changed in (
        ("squared", {"reward": "squared_distance"}),
        ("one", {"test_rollouts": 1}),
    ):
        shutil.copytree(whole, tmp_path / name)
        other = about | {"config": about["config"] | changed}
        (tmp_path / name / "run.json").write_text(json.dumps(other))
    for options, sentence in (
        ((), "--run"),
        ((f"--run={tmp_path / 'one'}",), "config.test_rollouts of at least 2"),
        ((f"--run={whole}", f"--run={tmp_path / 'squared'}"), "the same config.reward"),
        ((f"--run={whole}", "--tasks=19"), "tasks must be at least 20"),
        ((f"--run={whole}", f"--run={whole}/."), "--run must name each run once"),
    ):
        finished = spread_study.run(*options, f"--workdir={tmp_path / 'study'}")
        assert (finished.code, finished.stderr.count("\n")) == (2, 1)
        assert sentence in finished.stderr
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("algorithm", ["maml", "reptile"])
def test_other_algorithms_run_from_the_command_line(navigation, tmp_path, algorithm):
    finished = navigation.run(
        *TINY, f"--algorithm={algorithm}", "--meta_steps=2", f"--workdir={tmp_path}"
    )
    assert finished.code == 0, finished.stderr
    assert ("return_drawn" in results_of(tmp_path)["metrics"]) == algorithm.startswith("gem")


@pytest.mark.parametrize(
    "options",
    [
        ("--preset=paper", "--config.goals=bimodal", "--config.activation=tanh"),
        (
            "--algorithm=maml",
            "--config.meta_optimizer=trpo",
            "--config.surrogate=dice",
            "--config.baseline=none",
        ),
    ],
)
def test_other_choices_run_from_the_command_line(navigation, tmp_path, options):
    finished = navigation.run(*TINY, *options, "--meta_steps=2", f"--workdir={tmp_path}")
    assert finished.code == 0, finished.stderr


def test_a_killed_run_ends_where_an_uninterrupted_one_ends(navigation, whole, tmp_path):
    command = (*TINY, "--meta_steps=6", f"--workdir={tmp_path}")
    running = navigation.start(*command)
    running.wait_for(tmp_path / "checkpoints" / "2" / "about.json")
    running.send(signal.SIGKILL)
    running.wait()
    finished = navigation.run(*command)
    assert finished.code == 0, finished.stderr
    assert results_of(tmp_path)["metrics"] == results_of(whole)["metrics"]


def test_tasks_divided_among_devices_give_the_same_prior(navigation, whole, tmp_path):
    finished = navigation.run(
        *TINY, "--cpu_devices=2", "--devices=2", "--meta_steps=6", f"--workdir={tmp_path}"
    )
    assert finished.code == 0, finished.stderr
    expected = results_of(whole)["metrics"]["return"].values()
    found = results_of(tmp_path)["metrics"]["return"].values()
    assert list(found) == pytest.approx(list(expected), rel=1e-3)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.horizon=0", "config.horizon must be at least 1 and at most 10000"),
        ("--config.rollouts=0", "config.rollouts must be at least 1"),
        ("--config.meta_batch=0", "config.meta_batch must be at least 1"),
        ("--config.reward=speed", "config.reward must be one of distance, squared_distance"),
        ("--algorithm=llama", "choose another algorithm or preset"),
        ("--config.discount=1.5", "config.discount must be at least 0.0 and at most 1.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(navigation, tmp_path, flag, words):
    finished = navigation.run(*TINY, flag, "--meta_steps=2", f"--workdir={tmp_path / 'run'}")
    assert finished.code == 2
    assert words in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_task_whose_gradient_is_not_finite_ends_training_with_nothing_lost(navigation, tmp_path):
    finished = navigation.run(
        *TINY, "--config.meta_learning_rate=1e30", "--meta_steps=4", f"--workdir={tmp_path}"
    )
    assert finished.code == 2
    assert "not finite at meta-step 1, first in task 0, [" in finished.stderr
    assert "The last good checkpoint is kept: step 1" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert (tmp_path / "checkpoints" / "1" / "about.json").exists()
