"""Seconds in which the machine ran: what it stood still for is nobody's doing.

A virtual machine may stand still for a second, and all that is under way is late by it. A thread
that looks at the clock all the time sees the gap.
"""

from __future__ import annotations

import threading
import time
from typing import Self

LOOK = 0.02
STILL = 0.2  # a gap between two looks that no busy machine makes


class Stopwatch:
    """A context manager that runs from its beginning to its end."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._stood_still = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Since the beginning, but for those in which the machine stood still."""
        return time.monotonic() - self._began - self._stood_still

    def _look(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(LOOK):
            now = time.monotonic()
            if now - before > STILL:
                self._stood_still += now - before - LOOK
            before = now
