"""Many devices and processes from the command line: the same run, also when one dies."""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import socket
import time
from typing import Any

import pytest

from gembml.training import read_metrics
from tests.experiments.test_command_line import SHORT, assert_refused
from tests.experiments.test_sinusoid import TINY
from tests.programs import Programs, Running

STEPS = 30
SHARED = (*TINY, "--config.meta_batch=8", f"--meta_steps={STEPS}")
RUN = (*SHARED, "--algorithm=maml")
EIGHT = ("--cpu_devices=8", "--devices=8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def start_two(
    programs: Programs, workdir: pathlib.Path, *more: str, run: tuple[str, ...] = RUN
) -> list[Running]:
    """Both processes of a run, each with a --workdir of its own: they need not share one."""
    port = free_port()
    return [
        programs.start(
            *run,
            f"--workdir={workdir}_{process}",
            f"--coordinator=127.0.0.1:{port}",
            "--num_processes=2",
            f"--process_id={process}",
            "--lost_after=20",
            *more,
        )
        for process in range(2)
    ]


def assert_same_run(workdir: pathlib.Path, whole: pathlib.Path) -> None:
    """Up to the order of sums over tasks: float32 rounding, which 30 steps amplify."""

    def results(directory: pathlib.Path) -> dict[str, Any]:
        return json.loads((directory / "results.json").read_text())

    for name, values in results(whole)["metrics"].items():
        assert results(workdir)["metrics"][name] == pytest.approx(values, rel=1e-3), name
    rows, others = (read_metrics(directory / "metrics.jsonl") for directory in (workdir, whole))
    for row, other in zip(rows, others, strict=True):
        timeless = {name: value for name, value in other.items() if name != "seconds"}
        assert {name: row[name] for name in timeless} == pytest.approx(timeless, rel=1e-3)


@pytest.fixture(scope="module")
def whole(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The work directory of a run on one device."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finished = programs.run(*RUN, f"--workdir={workdir}")
    assert finished.code == 0, finished.stderr
    return workdir


def test_eight_devices_end_where_one_ends(programs, whole, tmp_path):
    finished = programs.run(*RUN, *EIGHT, f"--workdir={tmp_path}")
    assert finished.code == 0, finished.stderr
    assert_same_run(tmp_path, whole)
    assert json.loads((tmp_path / "results.json").read_text())["devices"] == 8


def test_two_processes_end_where_one_ends_and_the_first_alone_writes(programs, whole, tmp_path):
    first, second = (process.wait() for process in start_two(programs, tmp_path / "run"))
    assert (first.code, second.code) == (0, 0), (first.stderr, second.stderr)
    assert_same_run(tmp_path / "run_0", whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run_0"]
    assert "coverage90" in first.stdout
    assert "coverage90" not in second.stdout


def slurm_job() -> int:
    """A job whose coordinator's port, which JAX derives from its number, is free."""
    for job in itertools.count(os.getpid()):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", 61_440 + job % 4096))
            return job
    raise AssertionError


def test_two_processes_end_where_one_ends_for_a_gaussian_posterior_too(programs, tmp_path):
    run = (*SHARED, "--algorithm=gem_bml_plus")
    alone = programs.run(*run, f"--workdir={tmp_path / 'whole'}")
    assert alone.code == 0, alone.stderr
    for finished in (process.wait() for process in start_two(programs, tmp_path / "run", run=run)):
        assert finished.code == 0, finished.stderr
    assert_same_run(tmp_path / "run_0", tmp_path / "whole")


def test_processes_that_slurm_starts_find_each_other_and_end_where_one_ends(
    programs, whole, tmp_path
):
    job = slurm_job()
    # What srun sets, as far as JAX reads it.
    processes = [
        programs.start(
            *(*RUN, "--distributed", f"--workdir={tmp_path / 'run'}"),
            environment={
                "SLURM_JOB_ID": str(job),
                "SLURM_STEP_NODELIST": "127.0.0.1",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": str(process),
                "SLURM_LOCALID": str(process),
                "SLURM_STEP_NUM_NODES": "1",
            },
        )
        for process in range(2)
    ]
    for finished in (process.wait() for process in processes):
        assert finished.code == 0, finished.stderr
    assert_same_run(tmp_path / "run", whole)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["devices"], results["processes"]) == (2, 2)


def test_seeds_divided_among_processes_end_where_single_runs_end(programs, whole, tmp_path):
    pair = start_two(programs, tmp_path / "run", "--seeds=2")
    first, second = (process.wait() for process in pair)
    assert (first.code, second.code) == (0, 0), (first.stderr, second.stderr)
    assert_same_run(tmp_path / "run_0" / "seed_0", whole)
    results = json.loads((tmp_path / "run_0" / "seed_1" / "results.json").read_text())
    assert (results["devices"], results["processes"]) == (2, 2)


@pytest.mark.parametrize(("killed", "then"), [(0, ()), (1, EIGHT)])
def test_a_lost_process_stops_the_other_and_the_run_goes_on_with_any_number(
    programs, whole, tmp_path, killed, then
):
    processes = start_two(programs, tmp_path / "run")
    processes[0].wait_for(tmp_path / "run_0" / "checkpoints" / "5" / "about.json")
    processes[killed].send(signal.SIGKILL)
    began = time.monotonic()
    survivor = processes[1 - killed].wait()
    assert survivor.code == 1, survivor
    assert time.monotonic() - began < 60
    errors = [line for line in survivor.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, survivor.stderr
    assert "lost" in errors[0]
    assert "goes on from its last checkpoint" in errors[0]
    assert "Traceback" not in survivor.stderr
    processes[killed].wait()

    finished = programs.run(*RUN, *then, f"--workdir={tmp_path / 'run_0'}")
    assert finished.code == 0, finished.stderr
    assert "Resumed at meta-step" in finished.stdout
    assert_same_run(tmp_path / "run_0", whole)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_falls_silent_counts_as_lost(programs, tmp_path, stopped):
    processes = start_two(programs, tmp_path / "run", "--lost_after=5")
    processes[0].wait_for(tmp_path / "run_0" / "checkpoints" / "5" / "about.json")
    processes[stopped].send(signal.SIGSTOP)
    began = time.monotonic()
    survivor = processes[1 - stopped].wait()
    took = time.monotonic() - began
    processes[stopped].send(signal.SIGKILL)
    processes[stopped].wait()
    assert survivor.code == 1, survivor
    (error,) = (line for line in survivor.stderr.splitlines() if line.startswith("error: "))
    assert f"Process {stopped} of 2 is lost (silent for " in error
    assert "Traceback" not in survivor.stderr
    assert took < 30


def test_ctrl_c_in_one_process_stops_both_after_saving(programs, tmp_path):
    processes = start_two(programs, tmp_path / "run")
    processes[0].wait_for(tmp_path / "run_0" / "checkpoints" / "5")
    processes[1].send(signal.SIGINT)
    first, second = (process.wait() for process in processes)
    assert (first.code, second.code) == (130, 130), (first.stderr, second.stderr)
    assert "Stopped and saved at meta-step" in first.stdout


def test_processes_with_different_options_are_refused(programs, tmp_path):
    port = free_port()
    where = (
        f"--coordinator=127.0.0.1:{port}",
        "--num_processes=2",
        f"--workdir={tmp_path / 'run'}",
    )
    both = [
        programs.start(*RUN, *where, f"--process_id={process}", f"--seed={process}")
        for process in range(2)
    ]
    for finished in (process.wait() for process in both):
        assert finished.code == 2, finished
        assert "must be given the same options" in finished.stderr
        assert "seed" in finished.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--devices=2"], "--devices=2 asks for more than there are: 1 CPU device"),
        (["--devices=several"], "--devices must be a number of at least 1, or all"),
        (["--cpu_devices=0"], "--cpu_devices must be at least 1"),
        (["--cpu_devices=3", "--devices=all"], "3 devices must divide config.meta_batch"),
        (["--num_processes=2"], "need --coordinator=HOST:PORT"),
        (["--coordinator=nowhere"], "--coordinator must be HOST:PORT"),
        (["--coordinator=h:1", "--num_processes=2", "--process_id=2"], "--process_id must be at"),
        (["--coordinator=h:1", "--process_id=0"], "--num_processes must be at least 2"),
        (["--coordinator_timeout=0"], "--coordinator_timeout must be at least 3"),
        (["--distributed"], "needs processes started by Slurm"),
        (["--seeds=0"], "--seeds must be at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_sentence(programs, tmp_path, arguments, sentence):
    assert_refused(programs.run(*SHORT, f"--workdir={tmp_path / 'run'}", *arguments), sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("process", [0, 1])
def test_others_that_do_not_come_are_waited_for_as_long_as_asked(programs, tmp_path, process):
    finished = programs.run(
        *SHORT,
        f"--workdir={tmp_path / 'run'}",
        f"--coordinator=127.0.0.1:{free_port()}",
        "--num_processes=2",
        f"--process_id={process}",
        "--coordinator_timeout=3",
    )
    assert finished.code == 1, finished
    assert "did not come together at 127.0.0.1" in finished.stderr
    assert "within 3 seconds" in finished.stderr
    assert list(tmp_path.iterdir()) == []
