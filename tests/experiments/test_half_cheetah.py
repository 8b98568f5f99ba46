"""The half-cheetah program from the command line to its files."""

import json
from collections.abc import Iterator

import pytest

from experiments import rl_figures
from experiments.report_inputs import find_results
from experiments.report_rl import reinforcement_learning
from tests.programs import Programs

pytest.importorskip("brax")

TINY = (
    "--backend=spring",
    "--timing=rllab",
    "--config.hidden_units=8",
    "--config.meta_batch=2",
    "--config.rollouts=2",
    "--config.horizon=3",
    "--config.test_rollouts=2",
    "--config.test_tasks=2",
    "--config.test_steps=1",
    "--config.validation_tasks=2",
    "--config.steps_per_dispatch=1",
)


@pytest.fixture(scope="module")
def half_cheetah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the program quickly, many times."""
    with Programs(tmp_path_factory.mktemp("programs"), "half_cheetah") as server:
        yield server


@pytest.mark.slow  # physics is compiled seven times, each about 10 s
def test_two_meta_steps_leave_returns_figures_a_film_strip_and_a_section_of_the_report(
    half_cheetah, tmp_path
):
    workdir = tmp_path / "run"
    devices = ("--cpu_devices=2", "--devices=2")
    finished = half_cheetah.run(
        *TINY, *devices, "--viewer", "--meta_steps=2", f"--workdir={workdir}"
    )
    assert finished.code == 0, finished.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert results["devices"] == 2
    assert list(results["metrics"]["return"]) == ["0", "1"]
    assert (results["task"], results["backend"], results["timing"]) == (
        "direction",
        "spring",
        "rllab",
    )
    for figure in ("learning_curve.png", "return_against_updates.png", "film_strip.png"):
        assert (workdir / figure).read_bytes().startswith(b"\x89PNG")
    assert list(workdir.glob("episode_*.html"))
    report = reinforcement_learning(find_results([str(workdir)]).results, tmp_path)
    assert "Half-cheetah, direction, spring, rllab timing" in report


def _run(**changed) -> dict:
    """What ``results.json`` of a run holds, returns -10 before and 30 after an update."""
    return {
        "experiment": "half_cheetah",
        "task": "velocity",
        "backend": "mjx",
        "timing": "brax",
        "algorithm": "maml",
        "seed": 0,
        "meta_steps": 2,
        "config": {"horizon": 200},
        "metrics": {"return": {"0": -10.0, "1": 30.0}, "return_ci95": {"0": 1.0, "1": 1.0}},
        "references": {"random start": {"0": -20.0, "1": -20.0}},
        "test_tasks": 2,
        "test_goals": [0.25, 1.5],
        "env_steps_per_second": 1,
        "device": "cpu",
        "command": "python -m experiments.half_cheetah --seed=0 --workdir=DIR",
    } | changed


def test_returns_are_reported_as_a_share_of_the_way_from_random_to_oracles_of_the_test_goals(
    tmp_path,
):
    def oracle(goal: float, value: float) -> dict:
        metrics = {"return": {"0": value, "1": 0.0}}
        return _run(algorithm="pretrain", goal=goal, metrics=metrics)

    # 60 at 0.25 m/s and 100 at 1.5 m/s, 80 on average; from -20 the run went half the way, to 30.
    oracles = [oracle(2.0, 100.0), oracle(0.0, 60.0 - 40.0 / 3), oracle(1.0, 100.0)]
    report = reinforcement_learning([_run(), *oracles], tmp_path)
    assert "| oracle | – | – | 80.00 | 80.00 |" in report
    assert "| 50% |" in report


def test_a_figure_has_one_line_for_each_algorithm(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        rl_figures, "returns_against_updates", lambda lines, *_: drawn.extend(lines)
    )
    other = {"horizon": 200, "inner_learning_rate": 0.7}
    runs = [_run(), _run(config=other), _run(algorithm="reptile"), _run(seed=1)]
    report = reinforcement_learning(runs, tmp_path)
    assert [line.label for line in drawn] == ["MAML", "Reptile"]
    assert "| MAML, inner learning rate 0.7 | 2 | 1 |" in report


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--backend=bullet",), "--backend must be one of mjx, generalized, spring, positional"),
        (("--task=backflip",), "--task must be one of direction, velocity"),
        (("--timing=gym",), "--timing must be one of brax, rllab"),
        (("--goal=0.5",), "--goal must be 1 (forward) or -1 with --task=direction"),
        (("--task=velocity", "--goal=3"), "--goal must be at least 0 and at most 2 m/s"),
        (("--config.horizon=20000",), "config.horizon must be at least 1 and at most 10000"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(half_cheetah, tmp_path, flags, words):
    finished = half_cheetah.run(*TINY, *flags, "--meta_steps=2", f"--workdir={tmp_path / 'run'}")
    assert finished.code == 2
    assert words in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
