"""readdir(3): one pass through a directory's entries, for one open directory handle.

Entries are handed out as pages arrive, and the next pages are asked for before the reader
comes for them. Must not know: inodes, cookies, what an entry is.
"""

from __future__ import annotations

from typing import Protocol

import trio

from s3mount.errors import BadReply
from s3mount.namespace.directory import Directory
from s3mount.namespace.known import END, START
from s3mount.namespace.listing import Chapter
from s3mount.namespace.ranges import PAGE, Ranges
from s3mount.waiting import come

# Seconds that a listing waits for a page listed ahead that may hold it; then it asks itself.
_COVERING_WAIT = 1.0


class Learner(Protocol):
    """Who lists pages, and lets directories know of them."""

    async def learn(self, directory: Directory, lo: str, *, not_before: float = 0.0) -> Chapter:
        """Learn one page from the position `lo` on. Raises any `RequestError`."""
        ...

    def go_on(self, directory: Directory) -> None:
        """Have the pages on their way that `Directory.ranges` wants."""
        ...


class Listing:
    """One pass through a directory's entries, for one open directory handle.

    `names` only grows, so an index into it is a stable cursor whatever happens to the
    directory meanwhile.
    """

    def __init__(
        self,
        learner: Learner,
        directory: Directory,
        not_before: float,
        covering: trio.Event | None = None,
    ) -> None:
        self._covering = covering  # a page on its way that may hold it all
        self._learner = learner
        self._directory = directory
        directory.listed += 1
        self._position = START
        self._page = 0  # names that a page brought
        self.not_before = not_before
        self.names: list[str] = []

    def close(self) -> None:
        """Nobody will read on: the directory's entries are no longer needed for that."""
        self._directory.listed -= 1

    @property
    def is_complete(self) -> bool:
        """Whether `names` holds every entry."""
        return self._position == END

    def take(self) -> bool:
        """Take over what is known by now; whether that is more names, or the end."""
        while not self.is_complete:
            reached = self._directory.known.reach(self._position, self.not_before)
            if reached == self._position:
                return False
            more = self._directory.shown(self._position, reached)
            self._position = reached
            self.names.extend(more)
            self._look_ahead()
            if more:
                break
        return True

    async def extend(self) -> None:
        """Wait for more names; returns with more of them, or complete.

        Raises any `RequestError`.
        """
        if self.take():
            return
        if self._covering is not None:
            await come(self._covering, _COVERING_WAIT)
            self._covering = None
        while not self.take():
            # Not a look at `known`: what was learned may be in doubt again already.
            told = await self._learner.learn(
                self._directory, self._position, not_before=self.not_before
            )
            if told.hi <= self._position:
                raise BadReply(
                    f"a listing of {self._directory.prefix!r} makes no headway",
                    "use an endpoint that supports ListObjectsV2",
                )
            self._page = max(self._page, len(told.files) + len(told.directories))

    def _look_ahead(self) -> None:
        directory = self._directory
        if self.is_complete:
            directory.ranges = None
            return
        if directory.ranges is None:
            directory.ranges = Ranges(self._page or PAGE)
        directory.ranges.read(self._position, len(self.names), self.not_before)
        self._learner.go_on(directory)
