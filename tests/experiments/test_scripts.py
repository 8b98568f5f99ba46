"""The shell scripts ask of programs what these understand; no program is run."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.programs import ROOT

SCRIPTS = sorted((ROOT / "experiments").glob("*.sh"))
# In place of Python: writes down how it was called.
STUB = """#!/usr/bin/env bash
printf '%s\n' "$(printf '%q ' "$@")" >>"$CALLS"  # in one go: scripts call it side by side
"""

# Imports what all programs share once, and forks a child for each program, which parses each of its
# command lines in place of running it. Few-shot runs go on until they have data: options that do
# not go together are refused.
PARSER = """
import json, os, runpy, sys
from experiments import command_line
import gembml.training, gembml.evaluation, matplotlib.figure

def in_child(act, *arguments):
    if os.fork() == 0:
        act(*arguments)
        sys.stdout.flush()
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"refused: {arguments[0]}")

def parse(command, main):
    rest = command_line._parse(command)
    if command[0] != "experiments.report.py":  # which takes directories
        command_line.no_arguments(rest)
    if command[0] == "experiments.few_shot.py":
        from experiments.few_shot_problem import check_precision
        class Checked(Exception):
            pass
        def run_experiment(algorithm, dataset, split, splits, config, **_):
            check_precision(config)
            raise Checked
        main.__globals__["datasets"].load = lambda *_, **__: None
        main.__globals__["run_experiment"] = run_experiment
        try:
            main(rest)
        except Checked:
            return
        sys.exit("not checked")

def understand(module, commands):
    command_line.run = lambda main: [in_child(parse, command, main) for command in commands]
    sys.argv = commands[0]
    runpy.run_module(module, run_name="__main__")

for module, commands in json.load(sys.stdin).items():
    in_child(understand, module, commands)
"""


def calls(script: pathlib.Path, directory: pathlib.Path) -> list[list[str]]:
    """What the script calls Python with, run where nothing is but the script."""
    (directory / "experiments").mkdir(parents=True)
    (directory / "data" / "mini_imagenet").mkdir(parents=True)
    (directory / "bin").mkdir()
    (directory / "bin" / "cp").symlink_to(shutil.which("true") or "")  # there are no results
    stub = directory / "bin" / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    finished = subprocess.run(
        ["bash", shutil.copy(script, directory / "experiments")],
        env=os.environ
        | {
            "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
            "PYTHON": str(stub),
            "CALLS": str(directory / "calls"),
            "GEMBML_DATA_DIR": str(directory / "data"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return [shlex.split(line) for line in (directory / "calls").read_text().splitlines()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_programs_understand_every_command_of_the_scripts(tmp_path):
    pytest.importorskip("brax")
    commands: dict[str, list[list[str]]] = {}
    for script in SCRIPTS:
        for dash_m, module, *flags in calls(script, tmp_path / script.stem):
            assert dash_m == "-m"
            commands.setdefault(module, []).append([f"{module}.py", *flags])
    assert len(commands) > 5
    parsed = subprocess.run(
        [sys.executable, "-c", PARSER],
        input=json.dumps(commands),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert parsed.returncode == 0, parsed.stderr
