"""The server's side of its clients: start them, greet them, ask them, and notice who is lost."""

import contextlib
import multiprocessing
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Listener, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from experiments.client_process import ClientOptions, run_client
from experiments.frames import Channel, FrameError, Kind, frame_bytes
from gembml.training import LostClientError

# A client imports JAX and compiles before it greets; many do so on few cores.
_START_SECONDS = 300.0
_END_SECONDS = 3.0


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ctrl-C is the server's, which then hangs up; a process inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def gather(
    channels: Sequence[Channel], kind: Kind, shape: tuple[int, int], step: int, seconds: float
) -> list[np.ndarray]:
    """One frame from each channel, in the channels' order.

    Raises:
      LostClientError: if one is gone, sends something else, or takes longer than ``seconds``.
    """
    waiting: dict[Any, Channel] = {channel.connection: channel for channel in channels}
    answers: dict[int, np.ndarray] = {}
    deadline = time.monotonic() + seconds
    while waiting:
        ready = wait(list(waiting), max(0, deadline - time.monotonic()))
        if not ready:
            late = ", ".join(str(channel.client) for channel in waiting.values())
            raise LostClientError(f"No answer from client {late} within {seconds:g} s")
        for connection in ready:
            channel = waiting.pop(connection)
            try:
                _, answers[channel.client] = channel.receive(kind, shape, step)
            except (EOFError, OSError, FrameError) as error:
                reason = str(error) or "it ended"
                raise LostClientError(f"Client {channel.client} is lost ({reason})") from error
    return [answers[channel.client] for channel in channels]


class Fleet:
    """Client processes and their channels, as a context."""

    def __init__(self, clients: Sequence[ClientOptions], length: int, seconds: float) -> None:
        """``length``: numbers in one vector; ``seconds`` that a client may take for a meta-step."""
        self._options, self._length, self._seconds = clients, length, seconds
        self.asked = 0  # meta-steps that all clients have answered
        self.channels: list[Channel] = []
        self.processes: list[BaseProcess] = []

    def __enter__(self) -> "Fleet":
        authkey = secrets.token_bytes(32)
        listeners: list[Listener] = []
        # Not forked: JAX's threads do not survive a fork.
        spawn = multiprocessing.get_context("spawn")
        try:
            for options in self._options:
                listeners.append(Listener(("localhost", 0), authkey=authkey))
                arguments = (listeners[-1].address, authkey, options)
                self.processes.append(spawn.Process(target=run_client, args=arguments, daemon=True))
                with _ctrl_c_ignored():
                    self.processes[-1].start()
            connections = self._accept(listeners)
            self.channels = [
                Channel(connection, options.number, self._seconds)
                for connection, options in zip(connections, self._options, strict=True)
            ]
            gather(self.channels, Kind.HELLO, (0, 0), 0, _START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        finally:
            for listener in listeners:
                listener.close()
        return self

    def _accept(self, listeners: Sequence[Listener]) -> list[Connection]:
        came: list[Connection] = []

        def accept() -> None:
            while len(came) < len(listeners):
                try:
                    came.append(listeners[len(came)].accept())
                except (multiprocessing.AuthenticationError, EOFError, ConnectionError):
                    continue  # a stranger
                except OSError:
                    return  # the listener was closed

        # In a thread, as `accept` takes no timeout.
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while thread.is_alive():
            thread.join(0.05)
            lost = [i for i, process in enumerate(self.processes) if process.exitcode is not None]
            if lost or time.monotonic() > deadline:
                raise LostClientError(f"Client {lost[0] if lost else len(came)} did not start")
        return came

    def ask(self, step: int, theta: np.ndarray) -> np.ndarray:
        """Send Theta ``[2, n]`` to every client; their messages ``[tasks of all, 2, n]``.

        Raises:
          LostClientError: if a client is lost.
          FrameError: if anything besides Theta and two vectors per task went over a channel.
        """
        for channel in self.channels:
            try:
                channel.send(Kind.PRIOR, step, theta)
            except OSError as error:
                raise LostClientError(f"Client {channel.client} is lost (it ended)") from error
        tasks = self._options[0].tasks
        shape = (2 * tasks, self._length)
        answers = gather(self.channels, Kind.MESSAGES, shape, step, self._seconds)
        self.asked += 1
        for channel in self.channels:
            allowed = (
                self.asked * frame_bytes(2, self._length),
                frame_bytes(0, 0) + self.asked * frame_bytes(*shape),
            )
            if (channel.sent, channel.received) != allowed:
                raise FrameError(f"more than Theta and messages went to client {channel.client}")
        return np.stack(answers).reshape(-1, 2, self._length)

    def __exit__(self, *_: object) -> None:
        for channel in self.channels:
            channel.connection.close()  # which tells the client to end
        for process in self.processes:
            process.join(_END_SECONDS if self.channels else 0)
            if process.is_alive():
                process.kill()  # also one that is stopped, which a SIGTERM would not end
                process.join()
