"""The few-shot program from the command line to its files, and every algorithm on tiny images."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from experiments.few_shot_presets import preset
from experiments.few_shot_problem import make_experiment, query_batch
from experiments.report_inputs import find_results
from experiments.second_pass_cosines import cosines
from experiments.widened import widened
from gembml import ALGORITHMS
from gembml.tasks.images import ImageClasses
from gembml.training import read_metrics
from tests.programs import ROOT, Finished, Programs
from tests.small_images import class_folders, omniglot_archives, png

TINY = (
    "--config.filters=4",
    "--config.layers=1",
    "--config.meta_batch=2",
    "--config.queries=1",
    "--config.test_queries=1",
    "--config.test_steps=2",
    "--config.test_tasks=4",
    "--config.validation_tasks=2",
    "--config.steps_per_dispatch=1",
    "--config.evaluate_every=1",
    "--config.checkpoint_every=1",
    "--ways=2",
    "--meta_steps=2",
)
SAMPLED = "--config.test_samples=2"
FIGURES = ("accuracy_against_steps", "episodes", "learning_curve", "reliability")


@pytest.fixture(scope="module")
def few_shot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the program quickly, many times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMBML_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("GEMBML_DATA_DIR", raising=False)
        with Programs(tmp_path_factory.mktemp("programs"), "few_shot") as server:
            yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options that name a folder of 10 classes of 3 images: 6 for training, 2 and 2 held out."""
    data = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for c in range(10):
        (data / f"class_{c}").mkdir()
        for i in range(3):
            pixels = generator.integers(0, 256, (12, 12), np.uint8)
            (data / f"class_{c}" / f"{i}.png").write_bytes(png(pixels))
    return ("--dataset=image_folder", f"--data_dir={data}", "--image_size=12")


@pytest.fixture(scope="module")
def whole(few_shot, folder, tmp_path_factory) -> pathlib.Path:
    """The work directory of an uninterrupted run of GEM-BML+."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finished = few_shot.run(*folder, *TINY, SAMPLED, f"--workdir={workdir}")
    assert finished.code == 0, finished.stderr
    assert "batch norm: transductive" in finished.stdout
    assert "batch norm: support" in finished.stdout
    assert str(workdir / "results.json") in finished.stdout
    return workdir


def results_of(workdir: pathlib.Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


def assert_measures(measures: dict[str, Any]) -> None:
    assert set(measures) == {
        *("accuracy", "accuracy_ci95", "nll", "nll_ci95"),
        *("ece", "mce", "ece_10_bins", "mce_10_bins"),
        *("ece_ci95", "ece_10_bins_ci95"),
    }
    for values in measures.values():
        assert list(values) == ["0", "1", "2"]
        assert all(isinstance(value, float) for value in values.values())
    assert all(0 <= value <= 1 for value in measures["accuracy"].values())


def test_a_run_leaves_results_that_the_report_takes_figures_metrics_and_checkpoints(whole):
    results = results_of(whole)
    identity = ("experiment", "dataset", "split", "algorithm", "seed", "meta_steps", "test_tasks")
    assert {name: results[name] for name in identity} == {
        "experiment": "few_shot",
        "dataset": "image_folder",
        "split": "own",
        "algorithm": "gem_bml_plus",
        "seed": 0,
        "meta_steps": 2,
        "test_tasks": 4,
    }
    assert results["config"]["filters"] == 4
    assert "6 / 2 / 2 classes" in results["data"]
    assert results["device"].startswith("CPU")
    assert results["devices"] == 1
    assert_measures(results["metrics"])
    assert_measures(results["support_statistics"])
    bins = results["reliability"]["2"]
    assert sum(bins["count"]) == 4 * 2 * 1  # tasks, ways, queries
    inputs = find_results([str(whole)])
    assert (len(inputs.results), inputs.skipped) == (1, [])
    for name in FIGURES:
        assert (whole / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert {"accuracy_0", "accuracy_1", "accuracy_2", "nll", "meta_gradient_norm"} <= set(rows[0])
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["1", "2"]


def test_a_run_that_was_stopped_ends_as_an_uninterrupted_one(few_shot, folder, whole, tmp_path):
    # What is left when the process is killed after the first checkpoint.
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "checkpoints" / "2")
    (workdir / "results.json").unlink()
    finished = few_shot.run(*folder, *TINY, SAMPLED, f"--workdir={workdir}")
    assert finished.code == 0, finished.stderr
    assert "Resumed at meta-step 1 of 2." in finished.stdout

    def timeless(directory: pathlib.Path) -> dict[str, Any]:
        return {k: v for k, v in results_of(directory).items() if k not in ("seconds", "command")}

    def digest(directory: pathlib.Path) -> str:
        about = directory / "checkpoints" / "2" / "about.json"
        return json.loads(about.read_text())["sha256"]  # of every array

    assert timeless(workdir) == timeless(whole)
    assert digest(workdir) == digest(whole)


def test_tasks_divided_among_devices_give_the_same_prior(few_shot, folder, tmp_path):
    ends = []
    for devices in (1, 2):
        finished = few_shot.run(
            *(*folder, *TINY, "--algorithm=fomaml", "--config.normalisation=none"),
            *("--config.layers=1", "--config.convolution=direct"),
            *(f"--cpu_devices={devices}", f"--devices={devices}"),
            f"--workdir={tmp_path / str(devices)}",
        )
        assert finished.code == 0, finished.stderr
        ends.append(results_of(tmp_path / str(devices)))
    one, two = ends
    assert (one["devices"], two["devices"]) == (1, 2)
    # Sums over tasks in another order: float32 rounding.
    assert two["metrics"]["nll"] == pytest.approx(one["metrics"]["nll"], rel=1e-3)


class OmniglotRun(NamedTuple):
    """A run of GEM-BML+ on small archives."""

    finished: Finished
    data: pathlib.Path
    workdir: pathlib.Path


@pytest.fixture(scope="module")
def omniglot_run(few_shot, tmp_path_factory) -> OmniglotRun:
    directory = tmp_path_factory.mktemp("omniglot")
    data, workdir = omniglot_archives(directory / "data"), directory / "run"
    options = ("--dataset=omniglot", "--split=random_1200", f"--data_dir={data}")
    finished = few_shot.run(*TINY, SAMPLED, *options, f"--workdir={workdir}")
    assert finished.code == 0, finished.stderr
    return OmniglotRun(finished, data, workdir)


def test_omniglot_runs_and_says_that_the_archives_are_not_the_known_ones(omniglot_run):
    assert "UserWarning" in omniglot_run.finished.stderr
    assert "Traceback" not in omniglot_run.finished.stderr
    results = results_of(omniglot_run.workdir)
    assert (results["dataset"], results["split"]) == ("omniglot", "random_1200")
    assert results["config"]["rotations"] == "random"
    assert_measures(results["metrics"])


def study(name: str, run: OmniglotRun, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [f"--run={run.workdir}", f"--data_dir={run.data}", *options]
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_study_of_the_variance_multiplies_it_and_divides_logits(omniglot_run, tmp_path):
    options = ("--tasks=2", "--as_trained", f"--workdir={tmp_path}")
    finished = study("variance_study", omniglot_run, *options)
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "variance_study.json").read_text())["rows"]
    settings = [(row["multiplier"], row["temperature"]) for row in rows]
    assert settings[:6] == [(m, 1.0) for m in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)]
    assert settings[6:] == [(0.0, t) for t in (1.25, 1.5, 2.0, 3.0, 4.0)]
    assert rows[0]["nll_less_than_mean"] == 0.0
    for row in rows:
        assert row["nll"] + row["nll_less_than_mean"] == pytest.approx(rows[0]["nll"], rel=1e-5)
        assert f"{row['ece']:.4f} ± {row['ece_ci95']:.4f}" in finished.stdout


def test_a_study_on_classes_that_a_split_has_not_is_refused(omniglot_run, tmp_path):
    options = ("--classes=validation", f"--workdir={tmp_path / 'study'}")
    finished = study("variance_study", omniglot_run, *options)
    assert finished.returncode == 2
    assert "--classes must be test: split random_1200 of --run" in finished.stderr
    assert not (tmp_path / "study").exists()


def test_a_study_of_the_second_pass_writes_cosines_and_their_figure(omniglot_run, tmp_path):
    finished = study("second_pass_study", omniglot_run, "--episodes=2", f"--workdir={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "second_pass_study.json").read_text())["rows"]
    assert all(-1 - 1e-6 <= row["cosine_of_mean"] <= 1 + 1e-6 for row in rows)
    assert {row["activation"] for row in rows} == {"relu"}
    assert (tmp_path / "second_pass_study.png").read_bytes().startswith(b"\x89PNG")


def test_the_paper_s_preset_runs_on_mini_imagenet(few_shot, tmp_path):
    for part, classes in {"train": 64, "val": 16, "test": 20}.items():
        names = (f"{part}_{c}" for c in range(classes))
        class_folders(tmp_path / "data" / "mini_imagenet" / part, dict.fromkeys(names, 2))
    sizes = (option for option in TINY if not option.startswith("--config.filters"))
    finished = few_shot.run(
        *(*sizes, SAMPLED, "--meta_steps=1"),
        *("--config.inner_steps=1", "--config.normalisation=none"),  # less to compile
        *("--dataset=mini_imagenet", "--preset=paper", "--algorithm=gem_bml_plus"),
        *(f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"),
    )
    assert finished.code == 0, finished.stderr
    results = results_of(tmp_path / "run")
    assert (results["dataset"], results["split"]) == ("mini_imagenet", "ravi_larochelle")
    assert "64 / 16 / 20 classes" in results["data"]
    paper = {"inner_optimizer": "adam", "kl_weight": 1.0, "likelihood": "sum"}
    paper |= {"inner_learning_rate": 1e-3, "pooling": True, "head": "flatten", "filters": 32}
    assert {name: results["config"][name] for name in paper} == paper
    assert_measures(results["metrics"])
    (row,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert row["step"] == 1
    assert 0 < row["meta_gradient_norm"] < float("inf")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data_dir=/nowhere"], "The data folder /nowhere does not exist"),
        (["--data_dir="], "none was named"),
        (["--ways=7"], "ways must be at most 6, the number of classes for train (6), not 7"),
        (["--ways=3"], "ways must be at most 2, the number of classes for validation (2), not 3"),
        (
            ["--shots=3"],
            "shots + config.queries must be at most 3, the number of images of the train class",
        ),
        (["--config.test_queries=3"], "shots + config.test_queries must be at most 3"),
        (["--dataset=mnist"], "--dataset must be one of omniglot, mini_imagenet, image_folder"),
        (["--split=random_1200"], "image_folder has no option split; it has image_size, "),
        (["--allow_pickle"], "image_folder has no option allow_pickle"),
        (["--channels=2"], "channels must be 1 (grey) or 3 (RGB), not 2"),
        (["--dataset=omniglot"], "omniglot has no option image_size"),
        (["--algorithm=maml", SAMPLED], "--config.test_samples has an effect only with"),
        (["--algorithm=maml", "--preset=paper"], "prints no numbers for maml"),
        (["--preset=smooth"], "The preset smooth is for omniglot: choose tuned."),
        (["--config.activation=elu"], "config.activation must be one of relu, silu, not elu"),
        (["--algorithm=maml", "--config.second_pass=0.1"], "--config.second_pass has an effect"),
        (
            ["--config.test_std_multiplier=0", SAMPLED],
            "--config.test_samples has an effect only with",
        ),
        (
            ["--config.inner_optimizer=trpo", "--config.second_pass=0.1"],
            "config.second_pass must be 0 with config.inner_optimizer=trpo",
        ),
        (
            ["--config.precision=bfloat16", "--config.second_pass=0.1"],
            "config.second_pass needs config.precision=float32, not bfloat16",
        ),
        (["--config.head=sum"], "config.head must be one of mean, flatten"),
        (["--config.pooling", "--config.layers=4"], "4 poolings leave nothing of an image of 12"),
        (["--config.tasks_at_once=2", "--config.meta_batch=3"], "must divide the 3 tasks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_sentence(few_shot, folder, tmp_path, arguments, sentence):
    finished = few_shot.run(*folder, *TINY, f"--workdir={tmp_path / 'run'}", *arguments)
    assert (finished.code, finished.stdout) == (2, ""), finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in finished.stderr


# XLA's own convolution compiles in half the time; the command line's runs take the other.
SMALL = {"filters": 2, "layers": 2, "convolution": "direct", "queries": 2, "meta_batch": 2}


def small_data() -> ImageClasses:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 12, 12, 1), np.uint8)
    return ImageClasses(images, np.full(5, 3, np.int32))


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [*(("tuned", name) for name in ALGORITHMS), ("smooth", "maml"), ("smooth", "gem_bml_plus")],
)
def test_every_algorithm_s_preset_takes_a_finite_meta_step(name, algorithm):
    data = small_data()
    chosen = preset(name, algorithm, "omniglot", 5, 1)
    config = dataclasses.replace(chosen, **SMALL, inner_steps=1, cg_steps=2, num_particles=2)
    experiment = make_experiment(algorithm, config, data, 10)

    @jax.jit
    def first_step(key: jax.Array):
        state = experiment.learner.init(key)
        return state, *experiment.learner.update(state, key, experiment.sample_tasks(key))

    before, after, metrics = first_step(jax.random.key(0))
    assert metrics.finite
    assert metrics.meta_gradient_norm > 0
    leaves = map(jax.tree.leaves, (before.prior, after.prior))
    assert any(np.any(a != b) for a, b in zip(*leaves, strict=True))


def test_the_posterior_s_width_at_test_is_multiplied_and_0_leaves_one_set_of_weights():
    data = small_data()
    chosen = dataclasses.replace(preset("tuned", "gem_bml_plus", "omniglot", 5, 1), **SMALL)

    def experiment_of(multiplier: float):
        config = dataclasses.replace(chosen, test_std_multiplier=multiplier)
        return make_experiment("gem_bml_plus", config, data, 10)

    plain = experiment_of(1.0)
    prior = jax.jit(plain.learner.init)(jax.random.key(0)).prior
    episode = jax.tree.map(lambda a: a[0], jax.jit(plain.sample_tasks)(jax.random.key(1)))
    batch = query_batch(data, episode, chosen)

    def log_probs(experiment, prior) -> np.ndarray:
        return np.asarray(jax.jit(experiment.predict)(jax.random.key(2), prior, batch))

    twice = log_probs(experiment_of(2.0), prior)
    np.testing.assert_allclose(twice, log_probs(plain, widened(prior, 2.0)), rtol=1e-5)
    assert len(twice) == chosen.test_samples
    assert np.ptp(twice, axis=0).max() > 1e-3
    mean = log_probs(experiment_of(0.0), prior)
    assert len(mean) == 1
    np.testing.assert_allclose(mean[0], log_probs(plain, widened(prior, 0.0))[0], rtol=1e-5)


def test_with_a_smooth_activation_the_second_pass_is_maml_s_meta_gradient():
    config = dataclasses.replace(preset("smooth", "maml", "omniglot", 5, 1), **SMALL)
    data = small_data()
    learner = make_experiment("maml", config, data, 1).learner
    weights = jax.jit(learner.init)(jax.random.key(0)).prior.mean
    first_order, second_pass = cosines(config, data, weights, 3, shares=(0.03,))
    assert 1 - second_pass["cosine_of_mean"] < 0.01 * (1 - first_order["cosine_of_mean"])
