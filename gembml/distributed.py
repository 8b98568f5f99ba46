"""Many devices and many processes: the mesh, what crosses it, and how processes agree.

Device computations are sharded by :func:`gembml.learner.meta_learner` over a meta-step's tasks, or
by :func:`gembml.runs.many_runs` over whole runs. Here are the few things that processes exchange
besides: who stops, who is lost. They go through the coordination service of
``jax.distributed`` and not through the devices, so that they wait as long as process 0 takes for an
evaluation, and notice a process that is gone whatever the devices' own collectives do about it.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed as _jax_distributed  # its key-value store has no public name
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "tasks"
SEEDS = "seeds"
_BEAT_SECONDS = 1.0
_NO_SERVICE = "it held the coordination service"
_SLICE_MILLISECONDS = 1_000  # one wait, between two looks at who has left


class PeerLostError(Exception):
    """A process of the run is gone; the message is one sentence."""


def task_mesh(devices: Sequence[Any]) -> Mesh:
    """The devices in a row, over which the task axis is cut."""
    return Mesh(np.array(devices), (AXIS,))


def seed_mesh(devices: Sequence[Any]) -> Mesh:
    """The devices in a row, over which the runs of many seeds are divided."""
    return Mesh(np.array(devices), (SEEDS,))


def over_seeds(mesh: Mesh | None) -> bool:
    """Whether whole runs are divided over the mesh, and not the tasks of each meta-step."""
    return mesh is not None and mesh.axis_names == (SEEDS,)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The same arrays on every device of the mesh, from equal ones in every process."""
    if mesh is None:
        return tree
    if jax.process_count() > 1:
        tree = jax.tree.map(np.asarray, tree)
        return multihost_utils.host_local_array_to_global_array(tree, mesh, PartitionSpec())
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local(tree: Any, mesh: Mesh | None) -> Any:
    """The copy of replicated arrays on the first device of this process."""
    return tree if mesh is None else jax.tree.map(lambda a: a.addressable_data(0), tree)


def from_first(tree: Any) -> Any:
    """Process 0's arrays in every process, bit for bit, as NumPy arrays of the same shapes."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: the broadcast is a sum, which as floats would lose the sign of -0, and would turn
    # 64-bit numbers into 32-bit ones.
    sent = multihost_utils.broadcast_one_to_all(
        np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    )
    received, start = [], 0
    for leaf in leaves:
        part = np.asarray(sent[start : start + leaf.nbytes]).tobytes()
        received.append(np.frombuffer(part, leaf.dtype).reshape(leaf.shape))
        start += leaf.nbytes
    return jax.tree.unflatten(structure, received)


class Team:
    """The processes of this run; alone, there is nobody to ask."""

    def __init__(self) -> None:
        self.index, self.count = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is process 0, which alone evaluates, prints and writes."""
        return self.index == 0

    def exchange(self, text: str) -> list[str]:
        """Every process's text, by process, when all have come here.

        Raises:
          PeerLostError: if one never will.
        """
        return [text]

    def lost(self, error: Exception) -> Exception:
        """What to raise for an error of a computation over all processes."""
        return error

    def leave(self, reason: str) -> None:
        """Tell the others that this process ends, and why if too early."""


class _Connected(Team):
    """More processes than one; see :func:`connect`."""

    def __init__(self, client: Any, index: int, count: int, lost_after: float) -> None:
        self.index, self.count = index, count
        self._client, self._lost_after = client, lost_after
        self._rounds = itertools.count()
        self._ended = threading.Event()
        self._others = [other for other in range(count) if other != index]
        self._handler = _on_abort(self._lost_sentence(0, _NO_SERVICE))
        self._silence = dict.fromkeys(range(count), 0.0)
        self._gone: dict[int, str] = {}
        for task in (self._beat, self._watch):
            threading.Thread(target=task, daemon=True).start()

    def exchange(self, text: str) -> list[str]:
        number = next(self._rounds)
        place = "gembml/exchange/{}/{}".format
        # All have entered the last round, or it would not have ended here; so all have read what
        # was said before that. Now, not at the end, when process 0 and its service may be gone.
        if number > 1:
            with contextlib.suppress(Exception):
                self._client.key_value_delete(place(number - 2, self.index))
        try:
            self._client.key_value_set(place(number, self.index), text)
        except Exception:
            _end(self._lost_sentence(0, _NO_SERVICE))
        return [
            text if other == self.index else self._wait_for(place(number, other), other)
            for other in range(self.count)
        ]

    def _wait_for(self, name: str, other: int) -> str:
        while True:
            try:
                return self._client.blocking_key_value_get(name, _SLICE_MILLISECONDS)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    _end(self._lost_sentence(0, _NO_SERVICE))
            reason = self._left().get(other)
            if reason:
                raise PeerLostError(f"Process {other} of {self.count} ended early: {reason}")

    def lost(self, error: Exception) -> Exception:
        # A connection breaks a moment before, or after, the other process has said why.
        deadline = time.monotonic() + 5 * _BEAT_SECONDS
        while time.monotonic() < deadline:
            try:
                for other, reason in self._left().items():
                    if reason:
                        return PeerLostError(
                            f"Process {other} of {self.count} ended early: {reason}"
                        )
            except Exception:
                _end(self._lost_sentence(0, _NO_SERVICE))
            time.sleep(0.2)
        first_line = str(error).split("\n", maxsplit=1)[0][:200]
        return PeerLostError(
            f"A process of this run is lost ({first_line}): start all {self.count} again, or any "
            "number, and the run goes on from its last checkpoint."
        )

    def leave(self, reason: str) -> None:
        self._ended.set()
        # In a thread, as a call to a service that is gone takes long to fail.
        farewell = threading.Thread(target=self._farewell, args=(reason,), daemon=True)
        farewell.start()
        farewell.join(5 * _BEAT_SECONDS)

    def _farewell(self, reason: str) -> None:
        try:
            self._client.key_value_set(f"gembml/left/{self.index}", reason, allow_overwrite=True)
            # The service lives in process 0, which must not go while others are still talking.
            while self.first and len(self._left()) < len(self._others):
                time.sleep(0.05)
        except Exception:
            return  # nobody is there to be told

    def _left(self) -> dict[int, str]:
        """The other processes that have ended, and why ("" in good order)."""
        return self._table("gembml/left")

    def _table(self, place: str) -> dict[int, str]:
        entries = self._client.key_value_dir_get(place)
        table = {int(name.rsplit("/", 1)[1]): value for name, value in entries}
        return {other: value for other, value in table.items() if other in self._others}

    def _lost_sentence(self, other: int, how: str) -> str:
        return (
            f"Process {other} of {self.count} is lost ({how}): start all again, or any number, and "
            "the run goes on from its last checkpoint."
        )

    def _beat(self) -> None:
        """Say that this process lives, and hear who else does.

        In a thread of its own, as a call to a service whose process is stopped does not come back.
        """
        beats = dict.fromkeys(self._others, "")
        for number in itertools.count():
            if self._ended.wait(_BEAT_SECONDS):
                return
            try:
                mine = f"gembml/alive/{self.index}"
                self._client.key_value_set(mine, str(number), allow_overwrite=True)
                alive, self._gone = self._table("gembml/alive"), self._left()
            except Exception:
                continue  # what is not heard is silence
            self._silence[0] = 0.0
            for other, beat in alive.items():
                if beat != beats[other]:
                    beats[other], self._silence[other] = beat, 0.0

    def _watch(self) -> None:
        """End this process if another's heart stops.

        The main thread may wait for the lost one inside a collective and never come back; then this
        is the only way to end. Silence is counted in beats of our own, so that a job that is
        suspended and goes on takes nobody for lost.
        """
        while not self._ended.wait(_BEAT_SECONDS):
            for other in self._others:
                self._silence[other] += _BEAT_SECONDS
                silent = self._silence[other]
                if other not in self._gone and silent > self._lost_after:
                    _end(self._lost_sentence(other, f"silent for {silent:.0f} seconds"))
                if self._gone.get(other) and silent > 10 * _BEAT_SECONDS:
                    _end(f"Process {other} of {self.count} ended early: {self._gone[other]}")


_speaking = threading.Lock()  # never given back: one sentence is enough


def _end(sentence: str) -> NoReturn:
    """End this process from whichever thread, with one sentence."""
    if _speaking.acquire(blocking=False):
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        os._exit(1)
    threading.Event().wait()  # until the thread that speaks has ended the process
    raise AssertionError


def _on_abort(sentence: str) -> Any:
    """Say so if JAX aborts: what it does, from C++, to all processes when process 0 is gone.

    Python's own handlers run between two instructions of the main thread, of which there are none
    any more; one of the C library's runs at once. Returns what must be kept for as long.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _end(sentence))
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, type(handler)]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, handler)
    return handler


_team = Team()


def team() -> Team:
    """The processes of this run."""
    return _team


def connect(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    timeout: float,
    lost_after: float,
    end: Callable[[str], None] = _end,
) -> Team:
    """Join the other processes, before anything else is done with JAX.

    Args:
      coordinator: host and port at which process 0 listens; None, with the two others, to find all
        from the cluster (Slurm, Open MPI).
      num_processes: how many processes there are.
      process_id: which this is.
      timeout: seconds to wait for the others.
      lost_after: seconds of silence after which another process counts as lost.
      end: called with a sentence when the others do not come; it must end the process, since
        JAX would abort it.
    """
    global _team  # noqa: PLW0603  as jax.distributed, one per process
    # A lost process would otherwise abort the others from C++, before they can say why.
    jax.config.update("jax_enable_recoverability", True)
    # It would swallow SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    where = coordinator or "the cluster's coordinator"
    timer = threading.Timer(
        timeout,
        lambda: end(
            f"the {num_processes or 'other'} processes did not come together at {where} within "
            f"{timeout:g} seconds: check --coordinator, and that all of them are started."
        ),
    )
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=int(timeout) + 60,
            heartbeat_timeout_seconds=max(10, int(2 * lost_after)),
        )
    except (RuntimeError, ValueError) as error:
        # Two processes with one --process_id, say, or different numbers of processes.
        first_line = str(error).split("\n", maxsplit=1)[0][:200]
        raise PeerLostError(
            f"The processes could not join at {where} ({first_line}): check --num_processes and "
            "--process_id of each."
        ) from error
    finally:
        timer.cancel()
    state = _jax_distributed.global_state
    _team = _Connected(state.client, state.process_id, state.num_processes, lost_after)
    return _team
