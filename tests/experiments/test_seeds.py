"""`--seeds`: a directory per seed, as single runs leave them."""

import json
import pathlib
import shutil
from typing import Any

import pytest

from experiments import sinusoid, sinusoid_run
from experiments.sinusoid_presets import preset
from gembml import Delta
from gembml.training import DivergedError, SeedRun, read_metrics
from tests.experiments.test_sinusoid import FIGURES, TINY
from tests.programs import Programs

STEPS = 20


def results_of(directory: pathlib.Path) -> dict[str, Any]:
    return json.loads((directory / "results.json").read_text())


def test_each_seed_of_a_program_leaves_what_its_single_run_leaves(
    programs: Programs, tmp_path: pathlib.Path
):
    maml = (*TINY, "--algorithm=maml", f"--meta_steps={STEPS}")
    together, alone = tmp_path / "together", tmp_path / "alone"
    finished = programs.run(*maml, "--seed=3", "--seeds=2", f"--workdir={together}")
    assert finished.code == 0, finished.stderr
    assert "seed 3\n" in finished.stdout
    assert "seed 4\n" in finished.stdout
    finished = programs.run(*maml, "--seed=4", f"--workdir={alone}")
    assert finished.code == 0, finished.stderr

    mine, theirs = results_of(together / "seed_4"), results_of(alone)
    assert mine.pop("seeds_in_program") == 2
    assert "--seeds=2" in mine["command"]
    assert mine.keys() == theirs.keys()
    for name in ("seed", "config", "meta_steps", "versions"):
        assert mine[name] == theirs[name]
    for name, values in theirs["metrics"].items():
        # Batched products sum in another order: float32 rounding, which 20 steps amplify.
        assert mine["metrics"][name] == pytest.approx(values, rel=1e-3), name
    assert [row["step"] for row in read_metrics(together / "seed_4" / "metrics.jsonl")] == [10, 20]
    for figure in FIGURES:
        assert (together / "seed_3" / figure).read_bytes().startswith(b"\x89PNG")
    assert not (together / "results.json").exists()

    finished = programs.run(*maml, "--seed=3", "--seeds=3", f"--workdir={together}")
    assert finished.code == 2
    assert "seeds_in_program (there 2, here 3)" in finished.stderr


def test_seeds_divided_among_devices_end_where_one_device_ends_also_resumed(
    programs: Programs, tmp_path: pathlib.Path
):
    maml = (*TINY, "--algorithm=maml", f"--meta_steps={STEPS}", "--seeds=2")
    divided = ("--cpu_devices=2", "--devices=2")
    ends = {}
    for name, more in (("one", ()), ("two", divided)):
        finished = programs.run(*maml, *more, f"--workdir={tmp_path / name}")
        assert finished.code == 0, finished.stderr
        ends[name] = results_of(tmp_path / name / "seed_1")
    assert ends["two"]["devices"] == 2
    for name, values in ends["one"]["metrics"].items():
        # Batched products sum in another order: float32 rounding, which 20 steps amplify.
        assert ends["two"]["metrics"][name] == pytest.approx(values, rel=1e-3), name

    # As if one device had been stopped on the way, and two go on.
    checkpoints = tmp_path / "one" / "checkpoints"
    shutil.rmtree(checkpoints / "20")
    finished = programs.run(*maml, *divided, f"--workdir={tmp_path / 'one'}")
    assert finished.code == 0, finished.stderr
    assert "Resumed at meta-step 15 of 20." in finished.stdout
    resumed = results_of(tmp_path / "one" / "seed_1")
    assert resumed["devices"] == 2
    for name, values in ends["one"]["metrics"].items():
        assert resumed["metrics"][name] == pytest.approx(values, rel=1e-3), name


def test_a_seed_that_diverged_says_so_and_the_others_have_results(tmp_path, monkeypatch, capsys):
    train_seeds = sinusoid_run.train_seeds

    def one_lost(*args: Any, **options: Any) -> list:
        first, second = train_seeds(*args, **options)
        return [first._replace(diverged="It is lost."), second]

    monkeypatch.setattr(sinusoid_run, "train_seeds", one_lost)
    options = [flag.removeprefix("--config.").split("=") for flag in TINY]
    config = preset("tuned", "maml", "default")
    config = type(config)(**config.__dict__ | {name: int(value) for name, value in options})
    results = sinusoid_run.run_seeds(
        "maml",
        "default",
        config,
        seeds=(0, 1),
        meta_steps=5,
        workdir=str(tmp_path),
        command="these words",
    )
    assert results_of(tmp_path / "seed_0")["diverged"] == "It is lost."
    assert "metrics" not in results_of(tmp_path / "seed_0")
    assert "metrics" in results_of(tmp_path / "seed_1")
    with pytest.raises(DivergedError, match="1 of 2 runs diverged, of seed 0; the results of the"):
        sinusoid.tell(results, tmp_path)
    assert "It is lost." in capsys.readouterr().out


def test_if_all_seeds_diverge_each_has_its_results(tmp_path, monkeypatch):
    def all_lost(*_: Any, seeds: tuple[int, ...], directory: pathlib.Path, **__: Any) -> list:
        runs = [directory / f"seed_{seed}" for seed in seeds]
        for run in runs:
            run.mkdir()
        return [
            SeedRun(seed, run, Delta(None), 1.0, "It is lost.")
            for seed, run in zip(seeds, runs, strict=True)
        ]

    monkeypatch.setattr(sinusoid_run, "train_seeds", all_lost)
    results = sinusoid_run.run_seeds(
        "maml",
        "default",
        preset("tuned", "maml", "default"),
        seeds=(0, 1),
        meta_steps=5,
        workdir=str(tmp_path),
        command="these words",
    )
    assert [results_of(tmp_path / f"seed_{s}")["diverged"] for s in (0, 1)] == ["It is lost."] * 2
    with pytest.raises(DivergedError, match="All runs diverged; the results of each say where"):
        sinusoid.tell(results, tmp_path)
