"""The benchmark's command line."""

import subprocess
import sys

import pytest

from tests.programs import ROOT


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--backend=spring"], "--backend has no effect with --environment=navigation: leave it"),
        (["--timing=rllab"], "--timing has no effect with --environment=navigation: leave it"),
        (["--config.horizon=0"], "config.horizon must be at least 1"),
        (["--environment=cart_pole"], "--environment must be one of navigation, half_cheetah"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, sentence, tmp_path):
    command = [sys.executable, "-m", "experiments.benchmark_rl", f"--workdir={tmp_path / 'out'}"]
    finished = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith(f"error: {sentence}")
    assert finished.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
