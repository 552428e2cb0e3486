"""Operations end in time, also those that waited in the kernel for another one to end.

The kernel asks for the names of one directory one after the other. Where an endpoint is silent,
each of those who waited for the first would wait a deadline of its own, the last of six for six. So
the next one gets a short try, in case the endpoint is back; where that fails, those who come at
once are told the same. Knows no names, only inodes and what went wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import trio

from s3mount.errors import DeadlineExceeded

# The next one in the queue asks at once; who asks later has a deadline of its own.
SECONDS = 0.5


class Deadline:
    """Ends what takes longer than one request may: an operation can send several in turn.

    Its end raises `DeadlineExceeded`, if it did. No generator: what `contextlib` does around one
    was a twentieth of the thread's work during a stream.
    """

    __slots__ = ("_scope",)

    def __init__(self, seconds: float) -> None:
        self._scope = trio.move_on_after(seconds)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:
            cause = "the requests of one operation took longer than --deadline"
            raise DeadlineExceeded(cause) from None


@dataclass(frozen=True, slots=True)
class _Failure:
    until: float
    error: DeadlineExceeded
    was_tried_again: bool


class Late:
    """The directories whose names were not told in time a moment ago.

    `a_try` is how many seconds the next one gets: an endpoint that is back answers sooner.
    """

    def __init__(self, a_try: float) -> None:
        self._a_try = a_try
        self._failures: dict[int, _Failure] = {}

    @contextmanager
    def names_in_time(self, directory: int, seconds: float) -> Iterator[None]:
        """`Deadline`; less where others have just waited in vain for names of this directory."""
        last = self._failures.pop(directory, None)
        if last is None or trio.current_time() > last.until:
            last = None
        elif last.was_tried_again:
            self._failures[directory] = last
            raise DeadlineExceeded(last.error.cause, last.error.cure)
        try:
            with Deadline(seconds if last is None else min(self._a_try, seconds)):
                yield
        except DeadlineExceeded as error:
            now = trio.current_time()
            self._failures = {ino: late for ino, late in self._failures.items() if now < late.until}
            told = error if last is None else last.error
            self._failures[directory] = _Failure(now + SECONDS, told, last is not None)
            raise DeadlineExceeded(told.cause, told.cure) from error
