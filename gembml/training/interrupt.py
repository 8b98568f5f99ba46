"""Ctrl-C, as a request that the training loop honours when it can save."""

import signal
from typing import Any


class StopOnCtrlC:
    """Turns the first Ctrl-C into a request that the loop honours after the current dispatch."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "StopOnCtrlC":
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_: Any) -> None:
        self.asked = True
        print(
            "\nStopping: finishing this dispatch and saving; Ctrl-C again stops at once.",
            flush=True,
        )
        signal.signal(signal.SIGINT, self._before)  # a second Ctrl-C stops at once

    def __exit__(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, self._before)
