"""Bad input: one sentence, exit code 2, nothing left behind."""

import pathlib
import subprocess
import sys

import pytest

from tests.programs import ROOT, Finished, Programs

MAML = "--algorithm=maml"
# Should a refusal be missing, the run that follows is short.
SHORT = ("--meta_steps=2", "--config.test_tasks=2", "--config.validation_tasks=2")


def assert_refused(finished: Finished, sentence: str) -> None:
    assert finished.code == 2, finished
    assert finished.stdout == ""
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert "Traceback" not in finished.stderr
    assert sentence in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--algorithm=mamba"], "--algorithm must be one of gem_bml, gem_bml_plus, "),
        (["--algorithm=bmaml", "--preset=paper"], "prints no numbers for bmaml"),
        ([MAML, "--config.num_particles=3"], "only with posterior family particles"),
        ([MAML, "--config.cg_steps=3"], "only with algorithm imaml"),
        ([MAML, "--config.query_steps=3"], "kl_chaser or reptile, and here it is maml"),
        (["--setting=easy"], "--setting must be one of default, challenging"),
        (["--preset=best"], "--preset must be one of tuned, paper"),
        (["--nonsense=1"], "'nonsense'"),
        (["--config.nonsense=1"], "--config.nonsense is not an option: config. takes amortized_"),
        (["--meta_steps=0"], "--meta_steps must be at least 1 and at most 2147483647, not 0"),
        (["--meta_steps=many"], "many"),
        (["--seed=-1"], "--seed must be at least 0 and at most 4294967295, not -1"),
        (["--seed=99999999999999999999"], "--seed must be at"),
        (["--config.inner_steps=0"], "config.inner_steps must be at least 1"),
        (["--config.inner_steps=1.5"], "1.5"),
        (["--config.inner_steps=several"], "several"),
        (["--config.inner_learning_rate=-0.1"], "config.inner_learning_rate must be above 0"),
        (["--config.inner_learning_rate=nan"], "config.inner_learning_rate must be above 0"),
        (["--config.antithetic=perhaps"], "perhaps"),
        (
            ["--config.inner_optimizer=newton"],
            "must be natural_gradient, trpo or the name of",
        ),
        (
            ["--config.meta_optimizer=newton"],
            "must be online_em, trpo or the name of",
        ),
        (["--config.likelihood=poisson"], "config.likelihood must be one of gaussian, mse"),
        (["--config.test_tasks=1"], "config.test_tasks must be at least 2"),
        ([MAML, "--config.inner_optimizer=natural_gradient"], "needs a Gaussian posterior"),
        ([MAML, "--config.meta_optimizer=online_em"], "needs a Gaussian posterior"),
        ([MAML, "--config.meta_natural"], "--config.meta_natural has an effect only with"),
        ([MAML, "--config.num_samples=4"], "--config.num_samples has an effect only with"),
        (
            ["--config.max_inner_gradient_norm=3"],
            "only with inner_optimizer not natural_gradient",
        ),
        (
            ["--algorithm=meta_sgd", "--config.max_inner_gradient_norm=3"],
            "only with algorithm not meta_sgd or platipus",
        ),
        (["--config.num_samples=3"], "must be even"),
        (
            ["--config.meta_optimizer=online_em", "--config.meta_learning_rate=2"],
            "must lie in (0, 1]",
        ),
        (["--config.tasks_at_once=2", "--config.meta_batch=3"], "must divide the 3 tasks"),
        (["meta_steps=3"], "'meta_steps=3' is not a flag"),
        (["--workdir="], "--workdir=DIR is needed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(
    programs: Programs, tmp_path: pathlib.Path, arguments, sentence
):
    workdir = tmp_path / "run"
    assert_refused(programs.run(f"--workdir={workdir}", *SHORT, *arguments), sentence)
    assert list(tmp_path.iterdir()) == []


def test_a_work_directory_must_be_named(programs):
    assert_refused(programs.run(*SHORT), "--workdir=DIR is needed")


@pytest.mark.parametrize("below", ["", "/below", "/far/below"])
def test_a_work_directory_that_cannot_be_made_is_refused(programs, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("precious")
    assert_refused(
        programs.run(*SHORT, f"--workdir={file}{below}"),
        "name a directory that you may write to",
    )
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]


def test_the_program_itself_refuses_bad_input(tmp_path):
    # A true process, where the other tests fork one.
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.sinusoid",
            f"--workdir={tmp_path / 'run'}",
            "--config.inner_steps=0",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    finished = Finished(process.returncode, process.stdout, process.stderr)
    assert_refused(finished, "config.inner_steps must be at least 1")
    assert list(tmp_path.iterdir()) == []
