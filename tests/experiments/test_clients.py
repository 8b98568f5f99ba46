"""Training with client processes: what is sent, that it equals one process, and lost clients."""

import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.client_fleet import gather
from experiments.client_process import ClientOptions, client_loop, draw_tasks
from experiments.clients_run import run_clients, server_learner
from experiments.frames import Channel, FrameError, Kind, frame_bytes
from experiments.sinusoid_evaluation import make_problem
from experiments.sinusoid_presets import SinusoidConfig
from gembml import ALGORITHMS, meta_learner, ravel
from gembml.config import meta_optimizer
from gembml.data_free import Message
from gembml.training import LostClientError
from gembml.training.checkpoints import Checkpoints
from tests.programs import ROOT

CLIENTS, TASKS, SEED, META_STEPS = 2, 2, 7, 20
# A meta-step of about 20 ms, so that a client can be lost in the middle of a run.
SMALL = {
    "inner_steps": 400,
    "hidden_units": 4,
    "hidden_layers": 1,
    "kl_weight": 0.1,
    "meta_log_std_multiplier": 0.3,
    "meta_learning_rate": 2e-3,
    "validation_tasks": 2,
    "shots": 5,
    "queries": 5,
}
CONFIG = SinusoidConfig(meta_batch=CLIENTS * TASKS, **SMALL)
WEIGHTS = 4 + 4 + 4 + 1


def channels(timeout: float | None = None) -> tuple[Channel, Channel]:
    ends = multiprocessing.Pipe()
    return Channel(ends[0], 3, timeout), Channel(ends[1], 3)  # type: ignore[arg-type]


def client(number: int, algorithm: str = "gem_bml_plus") -> ClientOptions:
    return ClientOptions(number, algorithm, "default", CONFIG, TASKS, SEED)


def prior_of_one_process(algorithm: str, meta_steps: int):
    """The prior after training on the clients' tasks and keys with all data at hand."""
    row, problem = ALGORITHMS[algorithm], ravel(make_problem(CONFIG)[1])
    parts = row.build(problem, CONFIG)
    learner = meta_learner(
        problem,
        parts.family,
        parts.inference,
        lambda key, prior, task: parts.meta_gradient(task[0], prior, task[1]),
        meta_optimizer(row.family, CONFIG, META_STEPS),
    )
    draws = [draw_tasks(client(number, algorithm)) for number in range(CLIENTS)]

    @jax.jit
    def step(state, number):
        each = [draw(number) for draw in draws]
        tasks = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *each)
        return learner.update(state, jax.random.key(0), tasks)[0]

    state = learner.init(jax.random.fold_in(jax.random.key(SEED), 0))
    for number in range(meta_steps):
        state = step(state, jnp.uint32(number))
    return state.prior


def assert_same_prior(left, right) -> None:
    for a, b in zip(*map(jax.tree.leaves, (left, right)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_clients_and_server_train_as_one_process_with_all_data():
    algorithm = "gem_bml"  # the other one below, with true processes
    pairs = [multiprocessing.Pipe() for _ in range(CLIENTS)]
    servers = [Channel(pair[0], n) for n, pair in enumerate(pairs)]  # type: ignore[arg-type]
    for n, pair in enumerate(pairs):
        arguments = (Channel(pair[1], n), client(n, algorithm))  # type: ignore[arg-type]
        threading.Thread(target=client_loop, args=arguments, daemon=True).start()
    learner = server_learner(algorithm, CONFIG, META_STEPS)
    state = learner.init(jax.random.fold_in(jax.random.key(SEED), 0))
    gather(servers, Kind.HELLO, (0, 0), 0, 60)
    for step in range(5):
        for server in servers:
            server.send(Kind.PRIOR, step, np.stack(state.prior))
        answers = gather(servers, Kind.MESSAGES, (2 * TASKS, WEIGHTS), step, 60)
        messages = np.concatenate(answers).reshape(-1, 2, WEIGHTS)
        state, _ = learner.update(state, jax.random.key(0), Message(*messages.swapaxes(0, 1)))
    for server in servers:
        # Theta and two vectors per task in each meta-step, the greeting, and nothing else.
        assert server.sent == 5 * frame_bytes(2, WEIGHTS)
        assert server.received == 5 * frame_bytes(2 * TASKS, WEIGHTS) + frame_bytes(0, 0)
        server.connection.close()
    assert_same_prior(state.prior, prior_of_one_process(algorithm, 5))


def test_a_killed_client_ends_the_run_and_the_same_command_goes_on(tmp_path, monkeypatch):
    # All processes of this test compile the same programs.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    workdir = tmp_path / "run"
    flags = [f"--config.{name}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "experiments.clients", f"--workdir={workdir}", *flags]
    command += [f"--clients={CLIENTS}", f"--tasks_per_client={TASKS}", f"--seed={SEED}"]
    command += [f"--meta_steps={META_STEPS}"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        while not (line := process.stdout.readline()).startswith("Clients are processes"):
            assert line
            lines.append(line)
        os.kill(int(line.rstrip(".\n").split()[-1]), signal.SIGKILL)
        _, error = process.communicate(timeout=120)
    table = "".join(lines)
    for words in ("Theta, to the client", "two vectors per task", "not sent: data", "gradients"):
        assert words in table
    assert f"{frame_bytes(2 * TASKS, WEIGHTS):,}" in table
    assert process.returncode == 1
    sentence = error.splitlines()[-1]
    assert sentence.startswith("error: Client 1 is lost")
    assert sentence.endswith("which is saved; the same command goes on from there.")
    assert "Traceback" not in error
    [saved] = Checkpoints(workdir / "checkpoints").steps()
    assert saved < META_STEPS
    results = run_clients(
        "gem_bml_plus",
        "default",
        CONFIG,
        clients=CLIENTS,
        tasks_per_client=TASKS,
        seed=SEED,
        meta_steps=META_STEPS,
        client_timeout=60,
        workdir=str(workdir),
        command="",
    )
    assert json.loads((workdir / "results.json").read_text()) == results
    learner = server_learner("gem_bml_plus", CONFIG, META_STEPS)
    template = learner.init(jax.random.key(0))
    restored, _ = Checkpoints(workdir / "checkpoints").restore(template)
    assert restored is not None
    assert restored.step == META_STEPS
    assert_same_prior(restored.state.prior, prior_of_one_process("gem_bml_plus", META_STEPS))


def test_a_client_that_does_not_answer_in_time_is_lost():
    server, _client = channels()
    began = time.monotonic()
    with pytest.raises(LostClientError, match=r"No answer from client 3 within 0\.1 s"):
        gather([server], Kind.MESSAGES, (2, 5), 0, 0.1)
    assert time.monotonic() - began < 5


def test_a_client_that_stalls_in_the_middle_of_a_frame_is_lost():
    server, stalling = channels(timeout=0.1)
    os.write(stalling.connection.fileno(), b"\x00\x00")
    with pytest.raises(LostClientError, match="Client 3 is lost"):
        gather([server], Kind.MESSAGES, (2, 5), 0, 5)


def test_a_client_that_hangs_up_is_lost():
    server, gone = channels()
    gone.connection.close()
    with pytest.raises(LostClientError, match=r"Client 3 is lost \(it ended\)"):
        gather([server], Kind.MESSAGES, (2, 5), 0, 5)


@pytest.mark.parametrize(
    ("kind", "step", "vectors"),
    [
        (Kind.PRIOR, 4, np.zeros((2, 5), np.float32)),
        (Kind.MESSAGES, 5, np.zeros((2, 5), np.float32)),
        (Kind.MESSAGES, 4, np.zeros((5, 2), np.float32)),
        (Kind.MESSAGES, 4, np.zeros((2, 4), np.float32)),
        (Kind.MESSAGES, 4, np.zeros((3, 5), np.float32)),
    ],
    ids=["kind", "step", "shape", "less", "more"],
)
def test_any_frame_but_the_one_that_is_due_is_refused(kind, step, vectors):
    server, other = channels()
    other.send(kind, step, vectors)
    with pytest.raises((FrameError, OSError)):
        server.receive(Kind.MESSAGES, (2, 5), 4)


@pytest.mark.parametrize(
    "vectors", [np.zeros(3, np.float32), np.zeros((2, 3)), np.zeros((2, 3), object)]
)
def test_only_float32_vectors_can_be_sent(vectors):
    server, _ = channels()
    with pytest.raises(FrameError, match="float32"):
        server.send(Kind.PRIOR, 0, vectors)
    assert server.sent == 0


def test_frames_carry_numbers_exactly_and_count_their_bytes():
    server, other = channels()
    vectors = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    other.send(Kind.MESSAGES, 2**40, vectors)
    step, came = server.receive(Kind.MESSAGES, (2, 5))
    assert step == 2**40
    np.testing.assert_array_equal(came, vectors)
    assert server.received == other.sent == frame_bytes(2, 5) == 4 + 24 + 40


def test_no_two_clients_share_a_task_and_a_client_draws_the_same_again():
    first, again, other = (draw_tasks(client(n))(jnp.uint32(4))[1].support.x for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.intersect1d(first, other).size


def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(tmp_path: pathlib.Path):
    refusals = {
        "--config.meta_batch=3": "--config.meta_batch is clients x tasks_per_client here",
        "--algorithm=maml": "--algorithm must be one of gem_bml, gem_bml_plus, not 'maml'",
    }
    command = [sys.executable, "-m", "experiments.clients", f"--workdir={tmp_path / 'run'}"]
    started = [
        subprocess.Popen(
            [*command, flag],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for flag in refusals
    ]
    for process, sentence in zip(started, refusals.values(), strict=True):
        out, error = process.communicate(timeout=120)
        assert process.returncode == 2
        assert out == ""
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert sentence in error
    assert list(tmp_path.iterdir()) == []
