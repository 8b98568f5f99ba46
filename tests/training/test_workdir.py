"""A run's directory belongs to one run."""

import json
import subprocess
import sys

import pytest

from gembml.training import InputError, open_workdir, write_json

RUN = {"algorithm": "maml", "seed": 0, "config": {"inner_steps": 5, "noise": 0.1}}


def test_a_new_directory_records_its_run(tmp_path):
    directory = open_workdir(str(tmp_path / "a" / "b"), RUN)
    assert json.loads((directory / "run.json").read_text()) == RUN
    assert sorted(path.name for path in directory.iterdir()) == [".lock", "run.json"]


def test_the_same_run_may_come_back(tmp_path):
    assert open_workdir(str(tmp_path), RUN) == open_workdir(str(tmp_path), RUN)


def test_a_directory_that_another_process_uses_is_refused(tmp_path):
    holder = "import sys; from gembml.training import open_workdir; open_workdir(sys.argv[1], {});"
    command = [sys.executable, "-c", holder + "print('ready', flush=True); input()", str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(InputError, match="is in use by another process"):
            open_workdir(str(tmp_path), {})
        process.communicate("\n")
    open_workdir(str(tmp_path), {})


def test_another_run_is_refused_and_the_fields_that_differ_are_named(tmp_path):
    open_workdir(str(tmp_path), RUN)
    other = {"algorithm": "maml", "seed": 1, "config": {"inner_steps": 6, "noise": 0.1, "new": 2}}
    with pytest.raises(InputError) as error:
        open_workdir(str(tmp_path), other)
    message = str(error.value)
    assert "config.inner_steps (there 5, here 6)" in message
    assert "seed (there 0, here 1)" in message
    assert "config.new (there absent, here 2)" in message
    assert "noise" not in message
    assert "algorithm" not in message
    assert json.loads((tmp_path / "run.json").read_text()) == RUN


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "below", tmp_path / "file"):
        with pytest.raises(InputError, match="name a directory that you may write to"):
            open_workdir(str(path), RUN)


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        open_workdir(str(tmp_path), RUN)


def test_json_is_replaced_whole(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    write_json(tmp_path / "x.json", {"a": 2})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
