"""Options that a program has by its config and does nothing with: refused in one sentence."""

import pathlib
import subprocess
import sys

import pytest

from tests.programs import ROOT


@pytest.mark.parametrize(
    ("program", "argument", "sentence"),
    [
        ("clients", "meta_batch=3", "is --clients times --tasks_per_client here"),
        ("clients", "test_tasks=3", "has no effect with clients, which are validated once"),
        ("clients", "steps_per_dispatch=3", "has no effect with clients"),
        ("clients", "variance_per=array", "is nothing that clients know of"),
        ("search", "meta_learning_rate=0.1", "is what is searched for"),
        ("search", "evaluate_every=3", "has no effect on a search"),
    ],
)
def test_what_has_no_effect_is_refused_and_leaves_nothing(
    program: str, argument: str, sentence: str, tmp_path: pathlib.Path
):
    command = [sys.executable, "-m", f"experiments.{program}", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.{argument}", "--meta_steps=1"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (2, "")
    name = argument.partition("=")[0]
    assert finished.stderr.startswith(f"error: --config.{name} {sentence}")
    assert finished.stderr.endswith(": leave it out.\n")
    assert list(tmp_path.iterdir()) == []
