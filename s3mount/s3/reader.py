"""One thread that reads long answers, of all connections at once.

A thread for each connection waits for Python's lock after each buffer, and keeps others waiting
for it: 24 of them brought 686 MB/s with 0.87 s of CPU per GiB. Read on the trio thread (as `lines`
does with small ones) a body holds up the kernel's next request for as long as it is copied:
814 MB/s, 0.85 s. With one thread and one epoll both copy at once: 960 MB/s, 0.79 s.

INVARIANTS
- From `Reader.read` until it returns or raises, the connection and what the answer is read into
  are the thread's alone. Who is cancelled waits until it has let go, which is at once.
- What was told is told on the trio thread, in order, and before `read` ends.
- However the thread ends, nobody waits for it: what it read ends with an error.

Knows no S3 and no HTTP: how an answer is read, its `Ask` knows. Times in seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import outcome
import trio

from s3mount.errors import Closed, Unreachable
from s3mount.s3.notices import Caller, Notices
from s3mount.s3.wire import Connection

log = logging.getLogger(__name__)

# Of those that are readable, so many are read before epoll(7) is asked again: it goes round.
AT_ONCE = 4
# Silence is looked for so many times within a time-out, and so noticed late by no more than that.
LOOKS = 8


class Readable(Protocol):
    """An answer that is read piece by piece."""

    def advance(self, connection: Connection, tell: Callable[[int], None]) -> bool:
        """Read what has come, without waiting; whether that was the answer's end."""
        ...

    def on_told(self, index: int) -> None:
        """On the trio thread: `tell(index)` was called."""
        ...

    def failure(self, error: OSError) -> Exception:
        """What to raise when the connection fails now."""
        ...


class _Reading:
    __slots__ = ("ask", "caller", "connection", "fd", "heard", "tell")

    def __init__(self, ask: Readable, connection: Connection, notices: Notices) -> None:
        self.ask = ask
        self.connection = connection
        self.fd = connection.fileno()
        self.heard = time.monotonic()  # when bytes came last, or the request was sent
        self.caller = Caller()
        self.tell: Callable[[int], None] = partial(notices.post, self.caller.tell, ask.on_told)


class Reader:
    """The thread, which starts with the first answer; made and used on the trio thread."""

    def __init__(self, timeout: float) -> None:
        """`timeout`: how long an answer may be silent."""
        self._timeout = timeout
        self._notices = Notices()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread: threading.Thread | None = None
        self._closed = False
        self.has_failed = False  # and reads nothing any more
        # Added to on the trio thread, taken from in the other; and the other way round.
        self._readings: dict[int, _Reading] = {}
        self._unwanted: deque[_Reading] = deque()

    def __repr__(self) -> str:
        return f"<Reader of {len(self._readings)} answers>"

    async def read(self, ask: Readable, connection: Connection) -> None:
        """Read an answer to its end, from a connection that does not block.

        Raises what `ask` raises, `OSError`s of the connection among it, `Closed`, and
        `Unreachable` when the thread fails.
        """
        if self._closed:
            raise Closed
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="s3-reader", daemon=True)
            thread.start()
            self._thread = thread
        reading = _Reading(ask, connection, self._notices)
        # In this order: what cannot be registered must not be looked for.
        self._epoll.register(reading.fd, select.EPOLLIN)
        self._readings[reading.fd] = reading
        # Unless the thread saw it still, and ends it.
        if self.has_failed and self._readings.pop(reading.fd, None) is not None:
            raise _failed()

        def abort(raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
            reading.caller.cancel(raise_cancel)
            self._unwanted.append(reading)
            os.eventfd_write(self._wake, 1)
            return trio.lowlevel.Abort.FAILED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def aclose(self) -> None:
        """End what is under way with `Closed`, and the thread."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            with trio.CancelScope(shield=True):  # it waits for nothing
                await trio.to_thread.run_sync(self._thread.join)
        self._epoll.close()
        os.close(self._wake)

    # --- in the thread ----------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            log.exception("the thread that reads answers failed: this is a bug, please report it")
            self.has_failed = True
        while self._readings:
            _, reading = self._readings.popitem()
            error = _failed() if self.has_failed else Closed()
            self._notices.post(reading.caller.wake, outcome.Error(error))

    def _serve(self) -> None:
        looked = time.monotonic()
        while not self._closed:
            for fd, _ in self._epoll.poll(self._timeout / LOOKS, AT_ONCE):
                reading = self._readings.get(fd)
                if reading is None:
                    self._let_go()
                else:
                    self._advance(reading)
            now = time.monotonic()
            if now - looked > self._timeout / LOOKS:
                looked = now
                self._end_silent(now - self._timeout)

    def _advance(self, reading: _Reading) -> None:
        reading.heard = time.monotonic()
        try:
            if reading.ask.advance(reading.connection, reading.tell):
                self._end(reading, outcome.Value(None))
        except Exception as error:  # noqa: BLE001  # it is raised in the caller's task
            self._end(reading, outcome.Error(error))

    def _let_go(self) -> None:
        """Somebody has called: end what nobody waits for any more."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._unwanted:
            reading = self._unwanted.popleft()
            if self._readings.get(reading.fd) is reading:
                self._end(reading, outcome.Value(None))

    def _end_silent(self, since: float) -> None:
        for reading in list(self._readings.values()):
            if reading.heard < since:
                self._end(reading, outcome.Error(reading.ask.failure(TimeoutError("timed out"))))

    def _end(self, reading: _Reading, result: outcome.Outcome[None]) -> None:
        self._epoll.unregister(reading.fd)
        del self._readings[reading.fd]
        self._notices.post(reading.caller.wake, result)


def _failed() -> Unreachable:
    return Unreachable("the thread that reads answers failed", "see the log")
