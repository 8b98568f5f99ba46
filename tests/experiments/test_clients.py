"""Training with client processes: what is sent, that it equals one process, and lost clients."""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import clients_run
from experiments.client_fleet import Fleet, gather
from experiments.client_process import ClientOptions, client_loop, draw_tasks, make_answer
from experiments.clients_run import run_clients, server_learner
from experiments.frames import Channel, FrameError, Kind, frame_bytes
from experiments.sinusoid_evaluation import make_problem
from experiments.sinusoid_presets import SinusoidConfig
from gembml import ALGORITHMS, Gaussian, meta_learner, ravel
from gembml.builders import meta_optimizer
from gembml.data_free import Message, server_gradient
from gembml.training import DivergedError, LostClientError
from gembml.training.checkpoints import Checkpoints
from tests.programs import ROOT

CLIENTS, TASKS, SEED, META_STEPS = 2, 2, 7, 20
SMALL = {
    "inner_steps": 3,
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


def client(number: int) -> ClientOptions:
    return ClientOptions(number, "gem_bml_plus", "default", CONFIG, TASKS, SEED)


_SGD = {"inner_optimizer": "sgd", "inner_learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        ({}, {"query_steps": 1}),
        (_SGD, {"later_rate": 0.5}),
        (_SGD, {"second_pass": 0.1}),
    ],
    ids=["query_steps", "later_rate", "second_pass"],
)
def test_messages_are_the_meta_gradients_of_the_clients_tasks_by_all_options(before, changes):
    def gradients(options: dict) -> tuple[np.ndarray, np.ndarray]:
        of_client = client(1)._replace(config=dataclasses.replace(CONFIG, **options))
        row, problem = ALGORITHMS["gem_bml_plus"], ravel(make_problem(of_client.config)[1])
        parts = row.build(problem, of_client.config)
        prior = parts.family.init(jax.random.key(0), problem.init)

        @jax.jit
        def both(step: jax.Array) -> tuple[Gaussian, Gaussian]:
            sent = make_answer(of_client)(step, jnp.stack(prior)).reshape(TASKS, 2, -1)
            of_message = lambda m: server_gradient(prior, Message(*m), objective="L2")  # noqa: E731
            expected = jax.vmap(parts.meta_gradient, in_axes=(0, None, 0))
            keys, tasks = draw_tasks(of_client)(step)
            return jax.vmap(of_message)(sent), expected(keys, prior, tasks)

        ours, expected = map(jnp.stack, both(jnp.uint32(3)))
        return np.asarray(ours), np.asarray(expected)

    ours, expected = gradients(before | changes)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4 * scale)
    assert np.abs(ours - gradients(before)[0]).max() > 1e-2 * scale


def prior_of_one_process():
    """The prior after training on the clients' tasks and keys with all data at hand."""
    row, problem = ALGORITHMS["gem_bml_plus"], ravel(make_problem(CONFIG)[1])
    parts = row.build(problem, CONFIG)
    learner = meta_learner(
        problem,
        parts.family,
        parts.inference,
        lambda key, prior, task: parts.meta_gradient(task[0], prior, task[1]),
        meta_optimizer(row.family, CONFIG, META_STEPS),
    )
    draws = [draw_tasks(client(number)) for number in range(CLIENTS)]

    @jax.jit
    def step(state, number):
        each = [draw(number) for draw in draws]
        tasks = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *each)
        return learner.update(state, jax.random.key(0), tasks)[0]

    state = learner.init(jax.random.fold_in(jax.random.key(SEED), 0))
    for number in range(META_STEPS):
        state = step(state, jnp.uint32(number))
    return state.prior


class Threads(Fleet):
    """Clients as threads of this process, which start faster; one hangs up at ``lost_at``."""

    lost_at: int | None = None

    def __enter__(self) -> "Threads":
        self._ends = [multiprocessing.Pipe() for _ in self._options]
        for options, (_, end) in zip(self._options, self._ends, strict=True):
            channel = Channel(end, options.number)  # type: ignore[arg-type]
            threading.Thread(target=client_loop, args=(channel, options), daemon=True).start()
        self.channels = [Channel(end, n) for n, (end, _) in enumerate(self._ends)]  # type: ignore
        gather(self.channels, Kind.HELLO, (0, 0), 0, 60)
        return self

    def ask(self, step, theta):
        if step == self.lost_at:
            with socket.socket(fileno=socket.dup(self._ends[1][1].fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        return super().ask(step, theta)


def run_with_threads(workdir: pathlib.Path, **changes: float):
    return run_clients(
        "gem_bml_plus",
        "default",
        dataclasses.replace(CONFIG, **changes),  # type: ignore[arg-type]
        clients=CLIENTS,
        tasks_per_client=TASKS,
        seed=SEED,
        meta_steps=META_STEPS,
        client_timeout=60,
        workdir=str(workdir),
        command="",
    )


def test_a_lost_client_ends_the_run_which_goes_on_to_what_one_process_with_all_data_reaches(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(clients_run, "Fleet", Threads)
    monkeypatch.setattr(Threads, "lost_at", 6)
    lost = r"Client 1 is lost \(.*\) at meta-step 6, which is saved; the same command goes on"
    with pytest.raises(LostClientError, match=lost):
        run_with_threads(tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [6]
    monkeypatch.setattr(Threads, "lost_at", None)
    results = run_with_threads(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    template = server_learner("gem_bml_plus", CONFIG, META_STEPS).init(jax.random.key(0))
    restored, _ = Checkpoints(tmp_path / "checkpoints").restore(template)
    assert restored is not None
    assert restored.step == META_STEPS
    expected = prior_of_one_process()
    for found, right in zip(*map(jax.tree.leaves, (restored.state.prior, expected)), strict=True):
        # Adam divides by the gradient's size: rounding of small gradients is felt in full.
        np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-3)


def test_meta_steps_that_lose_every_task_end_the_run_at_their_first(tmp_path, monkeypatch):
    class NothingFinite(Threads):
        def ask(self, step, theta):
            answers = super().ask(step, theta)
            return answers if step in (0, 3) else np.full_like(answers, np.nan)

    monkeypatch.setattr(clients_run, "Fleet", NothingFinite)
    monkeypatch.setattr(clients_run, "_MOST_LOST", 3)
    # Not of steps 1 and 2, which are one too few.
    with pytest.raises(DivergedError, match="not finite from meta-step 4 on"):
        run_with_threads(tmp_path, max_meta_gradient_norm=1.0)


def test_client_processes_send_what_is_printed_and_a_killed_one_ends_the_program(tmp_path):
    flags = [f"--config.{name}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "experiments.clients", f"--workdir={tmp_path}", *flags]
    command += [f"--clients={CLIENTS}", f"--tasks_per_client={TASKS}", "--meta_steps=100000"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        while not (line := process.stdout.readline()).startswith("Clients are processes"):
            assert line
            lines.append(line)
        time.sleep(0.5)  # some meta-steps
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
    [saved] = Checkpoints(tmp_path / "checkpoints").steps()
    assert f"at meta-step {saved:,}, which" in sentence


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
