"""How server and clients talk: a checked header and raw float32 numbers, never pickled objects."""

import enum
import socket
import struct
from multiprocessing.connection import Connection

import numpy as np

# Magic, kind, client, vectors, length of each, meta-step.
_HEADER = struct.Struct("<4sHHIIQ")
_MAGIC = b"GEM1"
# `Connection` writes the length of each frame before it.
_PREFIX = 4


class Kind(enum.IntEnum):
    """What a frame holds."""

    HELLO = 1
    """A client is ready; no vectors."""
    PRIOR = 2
    """Theta, from the server: its means and its log-stds."""
    MESSAGES = 3
    """From a client: two vectors for each of its tasks."""


class FrameError(Exception):
    """A frame is not the one that is due."""


def frame_bytes(vectors: int, length: int) -> int:
    """Bytes of a frame with that many vectors of that length, as written to the socket."""
    return _PREFIX + _HEADER.size + 4 * vectors * length


class Channel:
    """One end of a connection that carries frames of known kind and size, and counts their bytes.

    Counted is what is written to the socket: TCP's own headers and the authentication that comes
    before are not.
    """

    def __init__(self, connection: Connection, client: int, timeout: float | None = None) -> None:
        """``timeout``: seconds after which a transfer that has stalled half-way is an error."""
        self.connection, self.client = connection, client
        self.sent = self.received = 0
        # Options belong to the socket, not to this second handle of it.
        with socket.socket(fileno=socket.dup(connection.fileno())) as handle:
            if handle.family != socket.AF_UNIX:  # else small frames wait 40 ms for each other
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if timeout is not None:
                seconds = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)

    def send(self, kind: Kind, step: int, vectors: np.ndarray) -> None:
        """Send float32 ``vectors [vectors, length]``.

        Raises:
          FrameError: for anything else.
        """
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise FrameError(f"vectors are float32 [., .], not {vectors.dtype} {vectors.shape}")
        header = _HEADER.pack(_MAGIC, kind, self.client, *vectors.shape, step)
        frame = header + vectors.astype("<f4", copy=False).tobytes()
        self.connection.send_bytes(frame)
        self.sent += _PREFIX + len(frame)

    def receive(
        self, kind: Kind, shape: tuple[int, int], step: int | None = None
    ) -> tuple[int, np.ndarray]:
        """The meta-step and the vectors ``[vectors, length]`` of the frame that is due.

        ``step``: the meta-step that it must be of, None for any.

        Raises:
          FrameError: if another frame comes, or one of another size.
          EOFError, OSError: if the other end is gone, stalls, or sends more than is due.
        """
        due = frame_bytes(*shape)
        frame = self.connection.recv_bytes(due - _PREFIX)
        self.received += _PREFIX + len(frame)
        if _PREFIX + len(frame) != due:
            raise FrameError(f"{_PREFIX + len(frame)} bytes came and {due} were due")
        magic, came, client, vectors, length, at = _HEADER.unpack_from(frame)
        found = (magic, came, client, (vectors, length))
        if found != (_MAGIC, kind, self.client, shape) or step not in (None, at):
            raise FrameError(f"a frame came that is not the {kind.name} that was due")
        return at, np.frombuffer(frame, "<f4", offset=_HEADER.size).reshape(shape)
