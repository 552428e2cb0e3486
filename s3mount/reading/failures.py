"""The reads of one open file that failed a moment ago.

When a readahead fails, the kernel asks a second time for the page that somebody waits for
(filemap_read_folio), and only then tells the program. Without a memory of the first answer,
read(2) would last two deadlines; and where the start of what was asked for is here and the rest
is gone, it would go on page by page, and give a part instead of the error.

Must not know: files, what is read.
"""

from __future__ import annotations

import trio

from s3mount.errors import RequestError, Stale

# The kernel's second try comes within milliseconds.
FAILURE_SECONDS = 0.5
KEPT = 8


class Failures:
    """True while there is any that nobody was told a second time."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: tuple[tuple[int, int, float, RequestError | Stale], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._failures)

    def remember(self, offset: int, size: int, failure: RequestError | Stale) -> None:
        """The read of these bytes failed."""
        until = trio.current_time() + FAILURE_SECONDS
        latest = self._failures[1 - KEPT :]
        self._failures = (*latest, (offset, offset + size, until, failure))

    def recall(self, offset: int) -> RequestError | Stale | None:
        """The failure that a read from `offset` on just had; once."""
        if not self._failures:
            return None
        now = trio.current_time()
        for each in self._failures:
            start, stop, until, failure = each
            if start <= offset < stop and now < until:
                self._failures = tuple(other for other in self._failures if other is not each)
                return failure
        return None
