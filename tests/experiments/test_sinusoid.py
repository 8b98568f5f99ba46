"""The sinusoid program from the command line to its files."""

import json
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from gembml import ALGORITHMS
from gembml.training import read_metrics
from tests.programs import ROOT, Programs, Running

STEPS = 60
TINY = (
    "--config.hidden_units=4",
    "--config.hidden_layers=1",
    "--config.inner_steps=2",
    "--config.meta_batch=2",
    "--config.test_tasks=4",
    "--config.test_steps=10",
    "--config.validation_tasks=4",
    "--config.steps_per_dispatch=5",
    "--config.evaluate_every=10",
    "--config.checkpoint_every=5",
)
FIGURES = ("learning_curve.png", "mse_against_steps.png", "predictions.png")


def results_of(workdir: pathlib.Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


def assert_complete(workdir: pathlib.Path, algorithm: str, meta_steps: int) -> None:
    results = results_of(workdir)
    identity = {name: results[name] for name in ("experiment", "algorithm", "setting", "seed")}
    assert identity == {
        "experiment": "sinusoid",
        "algorithm": algorithm,
        "setting": "default",
        "seed": 0,
    }
    assert results["meta_steps"] == meta_steps
    assert results["config"]["hidden_units"] == 4
    assert results["seconds"] >= 0  # in hundredths
    assert results["device"].startswith("CPU")
    assert {"python", "gembml", "jax", "jaxlib", "flax", "optax", "distrax"} <= set(
        results["versions"]
    )
    for name in ("mse", "mse_ci95", "nll", "coverage90"):
        values = results["metrics"][name]
        assert list(values) == [str(step) for step in range(11)]
        assert all(isinstance(value, float) for value in values.values())
    assert all(0 <= value <= 1 for value in results["metrics"]["coverage90"].values())
    for figure in FIGURES:
        assert (workdir / figure).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def whole(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The work directory of an uninterrupted run of GEM-BML+."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finished = programs.run(*TINY, f"--meta_steps={STEPS}", f"--workdir={workdir}")
    assert finished.code == 0, finished.stderr
    assert str(workdir / "results.json") in finished.stdout
    assert "coverage90" in finished.stdout
    return workdir


def start(programs: Programs, workdir: pathlib.Path) -> Running:
    return programs.start(*TINY, f"--meta_steps={STEPS}", f"--workdir={workdir}")


def assert_equals(workdir: pathlib.Path, whole: pathlib.Path) -> None:
    """Bit for bit, but for what the clock and the directory's name say."""

    def timeless(directory: pathlib.Path) -> dict[str, Any]:
        return {k: v for k, v in results_of(directory).items() if k not in ("seconds", "command")}

    def digest(directory: pathlib.Path) -> str:
        about = directory / "checkpoints" / str(STEPS) / "about.json"
        return json.loads(about.read_text())["sha256"]  # of every array

    def curve(directory: pathlib.Path) -> list[dict[str, float]]:
        rows = read_metrics(directory / "metrics.jsonl")
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    assert timeless(workdir) == timeless(whole)
    assert digest(workdir) == digest(whole)
    assert curve(workdir) == curve(whole)


def test_a_run_leaves_results_figures_metrics_and_checkpoints(whole):
    assert_complete(whole, "gem_bml_plus", STEPS)
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert {"mse_0", "mse_1", "mse_10", "meta_gradient_norm", "seconds"} <= set(rows[0])
    assert sorted(int(path.name) for path in (whole / "checkpoints").iterdir()) == [50, 55, 60]
    assert list((whole / "tensorboard").iterdir())


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "gem_bml_plus"])
def test_every_algorithm_runs_from_the_command_line(programs, tmp_path, algorithm):
    # Pre-training has no inner loop, and refuses options of it.
    tiny = [a for a in TINY if algorithm != "pretrain" or "inner_steps" not in a]
    finished = programs.run(
        *tiny, f"--algorithm={algorithm}", "--meta_steps=2", f"--workdir={tmp_path}"
    )
    assert finished.code == 0, finished.stderr
    assert_complete(tmp_path, algorithm, 2)


def test_the_paper_preset_runs_as_printed_on_the_challenging_setting(programs, tmp_path):
    finished = programs.run(
        "--preset=paper",
        "--setting=challenging",
        "--config.test_tasks=2",
        "--config.validation_tasks=2",
        "--meta_steps=2",
        f"--workdir={tmp_path}",
    )
    assert finished.code == 0, finished.stderr
    results = results_of(tmp_path)
    assert results["setting"] == "challenging"
    printed = {"inner_learning_rate": 1e-3, "inner_steps": 1, "meta_learning_rate": 1e-3}
    assert {name: results["config"][name] for name in printed} == printed
    assert list(results["metrics"]["mse"]) == [*map(str, range(11)), "15", "20"]


@pytest.mark.parametrize("after", [5, 30])
def test_a_run_killed_at_any_moment_ends_where_an_uninterrupted_one_ends(
    programs, whole, tmp_path, after
):
    running = start(programs, tmp_path)
    running.wait_for(tmp_path / "checkpoints" / str(after))  # which may be half written
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert not (tmp_path / "results.json").exists()
    finished = start(programs, tmp_path).wait()
    assert finished.code == 0, finished.stderr
    assert_equals(tmp_path, whole)


def test_ctrl_c_saves_exits_with_130_and_the_same_command_goes_on(programs, whole, tmp_path):
    running = start(programs, tmp_path)
    running.wait_for(tmp_path / "checkpoints" / "10")
    running.send(signal.SIGINT)
    stopped = running.wait()
    assert stopped.code == 130, stopped
    assert "Stopped and saved at meta-step" in stopped.stdout
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "results.json").exists()
    finished = start(programs, tmp_path).wait()
    assert finished.code == 0, finished.stderr
    assert "Resumed at meta-step" in finished.stdout
    assert_equals(tmp_path, whole)


def test_a_damaged_newest_checkpoint_is_reported_and_the_run_goes_on(programs, whole, tmp_path):
    running = start(programs, tmp_path)
    running.wait_for(tmp_path / "checkpoints" / "20" / "about.json")
    running.send(signal.SIGKILL)
    running.wait()
    newest = max(int(path.parent.name) for path in (tmp_path / "checkpoints").glob("*/about.json"))
    for path in (tmp_path / "checkpoints" / str(newest) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[::-1])
    finished = start(programs, tmp_path).wait()
    assert finished.code == 0, finished.stderr
    assert f"The checkpoint of step {newest} is damaged" in finished.stdout
    assert f"Resumed at meta-step {newest - 5}" in finished.stdout
    assert_equals(tmp_path, whole)


def test_a_directory_of_another_configuration_is_refused_and_kept(programs, whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    finished = programs.run(
        *TINY, "--config.inner_steps=3", f"--meta_steps={STEPS}", "--seed=1", f"--workdir={whole}"
    )
    assert finished.code == 2
    assert finished.stderr.count("\n") == 1
    assert "config.inner_steps (there 2, here 3), seed (there 0, here 1)" in finished.stderr
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_divergence_ends_with_a_sentence_and_exit_code_1(programs, tmp_path):
    finished = programs.run(
        *TINY,
        "--config.inner_optimizer=sgd",
        "--config.inner_learning_rate=1e30",
        "--meta_steps=10",
        f"--workdir={tmp_path}",
    )
    assert finished.code == 1
    assert "is not finite at meta-step 0" in finished.stderr
    assert "Traceback" not in finished.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert "is not finite at meta-step 0" in results["diverged"]
    assert "metrics" not in results


def test_a_run_that_loses_every_task_under_the_cap_ends_as_one_that_diverged(programs, tmp_path):
    finished = programs.run(
        *TINY,
        "--algorithm=meta_sgd",
        "--config.inner_learning_rate=1e30",
        "--config.max_meta_gradient_norm=1.0",
        "--meta_steps=10",
        f"--workdir={tmp_path}",
    )
    assert finished.code == 1
    assert "under a cap, that of every task" in finished.stderr


def test_the_program_runs_as_a_module(tmp_path):
    # A true process, where the other tests fork one.
    process = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.sinusoid", "--algorithm=maml"),
            *("--meta_steps=2", f"--workdir={tmp_path}", *TINY),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert_complete(tmp_path, "maml", 2)
