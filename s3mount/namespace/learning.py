"""Lists pages, and lets the directories know of them.

INVARIANT: knowledge carries the time its request was *sent*; what changed in
the bucket after that may be unknown to it.

Must not know: inodes, what is worth listing, how long an answer is good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import trio

from s3mount.errors import RequestError
from s3mount.flight import Flights
from s3mount.namespace.directories import Directories
from s3mount.namespace.directory import Directory, Lost
from s3mount.namespace.entries import shown_at
from s3mount.namespace.known import after
from s3mount.namespace.listing import DELIMITER, NAME_MAX, Chapter, delimited, flat
from s3mount.namespace.pages import start_after
from s3mount.s3.bucket import Bucket

log = logging.getLogger(__name__)


class Learning:
    """Asks the bucket for pages; each is asked for once by all who want it."""

    def __init__(
        self,
        bucket: Bucket,
        directories: Directories,
        nursery: trio.Nursery,
        on_learned: Callable[[Directory, list[Lost]], None],
    ) -> None:
        """`on_learned` hears which entries of a directory a page took away."""
        self._bucket = bucket
        self._directories = directories
        self._flights: Flights[Chapter] = Flights(nursery)
        self._on_learned = on_learned
        self.hidden = 0  # keys seen that no path can show

    async def learn(self, directory: Directory, lo: str, *, not_before: float = 0.0) -> Chapter:
        """Learn one page of `directory` from the position `lo` on; returns what it told."""
        work = partial(self._list, directory, lo)
        return await self._flights.join((directory.prefix, lo), work, not_before=not_before)

    def learn_ahead(self, directory: Directory, lo: str) -> None:
        """Have the page from `lo` on listed, without waiting."""
        self._flights.start((directory.prefix, lo), partial(self._list, directory, lo))

    def go_on(self, directory: Directory) -> None:
        """Have listed what the directory's reader will come for."""
        if directory.ranges is not None:
            wanted = directory.ranges.wanted(
                directory.entries.names, directory.known, directory.tokens
            )
            for lo in wanted:
                self.learn_ahead(directory, lo)

    async def probe(self, directory: Directory, name: str, not_before: float) -> None:
        """Ask whether anything lies below "name/": a thousand "name.x" may stand between."""
        work = partial(self._list_below, directory, name)
        await self._flights.join((directory.prefix, name, "/"), work, not_before=not_before)

    async def _list(self, directory: Directory, lo: str) -> Chapter:
        sent = trio.current_time()
        # Taken away at once: should the endpoint refuse it, the next try goes on from the key.
        token = directory.tokens.pop(lo, None)
        try:
            page = await self._bucket.list_page(
                directory.prefix,
                delimiter=DELIMITER,
                start_after="" if token else start_after(directory.prefix, lo),
                token=token,
            )
        except BaseException:
            if directory.ranges is not None:
                directory.ranges.failed(lo)
            raise
        chapter = delimited(page, directory.prefix, lo)
        if page.next_token is not None:
            directory.tokens[chapter.hi] = page.next_token
        self._apply(directory, chapter, sent)
        if directory.ranges is not None:
            directory.ranges.came(chapter)
            self.go_on(directory)
        return chapter

    async def _list_below(self, directory: Directory, name: str) -> Chapter:
        sent = trio.current_time()
        position = shown_at(name)
        page = await self._bucket.list_page(directory.prefix + position, max_keys=1)
        chapter = Chapter(directory.prefix, position, after(position))
        if page.objects:
            chapter.directories[name] = None
        self._apply(directory, chapter, sent)
        return chapter

    async def list_flat(self, prefix: str, start: str) -> int:
        """One page of `prefix` without a delimiter, from the key `start` on.

        Returns how many directories it told of. Nobody asked for it: an error is no harm.
        """
        sent = trio.current_time()
        lo = start[len(prefix) :]
        try:
            page = await self._bucket.list_page(prefix, start_after=start_after(prefix, lo))
        except RequestError as error:
            log.debug("listing ahead of a walk failed: %s", error)
            return 0
        chapters = flat(page, prefix, lo)
        for chapter in chapters:
            self._apply(self._directories.have(chapter.prefix), chapter, sent)
        return len(chapters)

    def _apply(self, directory: Directory, chapter: Chapter, sent: float) -> None:
        if chapter.hidden and not self.hidden:
            log.info(
                "some keys below %r cannot be shown: a name is empty, '.', '..' or over %d bytes",
                directory.prefix,
                NAME_MAX,
            )
        self.hidden += chapter.hidden
        self._on_learned(directory, self._directories.apply(directory, chapter, sent))
