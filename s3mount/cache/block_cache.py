"""Blocks of objects on local disk, that outlive the mount.

A row's key names a version of an object, an offset and a length, so a row never
changes: it is there, or it is not.

INVARIANTS
- No failure here reaches a reader: whatever goes wrong is a miss, and one warning.
- A hit is right: `True` stands for the very bytes that were put under that key,
  checked on every read. A row that fails the check is deleted, with all in its file.
- Nothing here makes a reader wait for a write: `put` only queues, and says False
  when the writer is behind.
- State belongs to the trio thread. The threads (a few writers and readers) get
  plain values, and give back plain values.

What the user must correct is an error when the cache opens: a directory that cannot
be made, is not ours, or may not be written. What the machine suffers is a
warning, and the cache works on as far as it can: with a full disk it serves
what it has; with a read-only filesystem, a broken or removed database or a removed
directory it misses, and tries again every minute; a broken database is made anew.

Knows no S3 and no files: keys are opaque.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import outcome
import trio

from s3mount.cache.block_disk import StoredBlock, key_digest
from s3mount.cache.directory import prepare
from s3mount.cache.jobs import Connections, Removed, read_rows
from s3mount.cache.opened import Opened
from s3mount.cache.row_index import RowIndex, is_busy, is_damaged
from s3mount.cache.row_writer import RowWriter
from s3mount.cache.threads import Threads
from s3mount.metrics import Metrics
from s3mount.waiting import come

log = logging.getLogger(__name__)

_READERS = 6  # 3 read a cold disk at 1,100 MB/s, 6 at 1,164; each has a connection of its own
_OPEN_PATIENCE = 2.0  # seconds that a mount waits for a database that others hold locked
_CLOSE_PATIENCE = 10.0
_PAUSE = 60.0  # seconds between tries to open again


class BlockCache:
    """The cache of one directory, which other mounts may use at the same time."""

    def __init__(
        self,
        directory: Path,
        *,
        size_limit: int,
        free_share: float,
        queue_limit: int,
        metrics: Metrics,
    ) -> None:
        """Use `open`. Starts the threads; the database comes later."""
        self._directory = directory
        self._metrics = metrics
        self._connections = Connections(directory, size_limit=size_limit)
        self._readers = Threads("cache-reader", _READERS, at_exit=self._connections.close)
        self._background = Threads("cache-upkeep", 1, at_exit=self._connections.close)
        self._writer = RowWriter(
            self._connections,
            size_limit=size_limit,
            free_share=free_share,
            queue_limit=queue_limit,
            metrics=metrics,
            failed=self._failed,
        )
        self._opened: Opened | None = None  # None: everything misses
        self._tried_to_open = trio.Event()
        self._opening = False
        self._closed = False
        self._damaged: RowIndex | None = None
        self._open_at = -math.inf  # trio time before which nothing is opened
        self._warned: set[str] = set()

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        size_limit: int,
        free_share: float = 0.05,
        queue_limit: int = 32 << 20,
        metrics: Metrics,
    ) -> BlockCache:
        """Open the cache in `directory`, which is made when it is not there.

        Returns within some milliseconds however much is cached, and after 2 s at most
        when another program holds the database: until it is had, everything misses.

        Args:
            directory: its own directory, mode 0700; may be shared by several mounts.
            size_limit: bytes on disk, value files and database together.
            free_share: the part of the filesystem that is left free for others.
            queue_limit: bytes of memory that what waits for the writer may keep.
            metrics: counts cache.hits, cache.misses, cache.dropped, cache.evicted,
                cache.bad, cache.bytes_read, cache.bytes_written.

        Raises:
            UsageError: the directory cannot be made, is not ours or cannot be written.
        """
        warning = await trio.to_thread.run_sync(prepare, directory)
        self = cls(
            directory,
            size_limit=size_limit,
            free_share=free_share,
            queue_limit=queue_limit,
            metrics=metrics,
        )
        if warning:
            self._warn("open", warning)
        self._reopen()
        await come(self._tried_to_open, _OPEN_PATIENCE)
        return self

    # --- reading --------------------------------------------------------------------

    async def get(self, wants: Sequence[tuple[str, memoryview]]) -> list[bool]:
        """Fill each buffer with the row of its key, if there is one of just that length.

        True: the buffer holds the row, verified. False: there is none that is good, and
        the buffer's content is undefined. At most one hop to a thread for all of them. When
        this has returned, raised or been cancelled, nothing writes into the buffers.
        """
        hits = [self.get_now(key, buffer) for key, buffer in wants]
        opened = self._opened
        if opened is None or all(hits):
            await trio.lowlevel.checkpoint()
            self._metrics.count("cache.misses", hits.count(False))
            return hits
        rest = opened.wants([want for want, hit in zip(wants, hits, strict=True) if not hit])
        look = opened.is_to_look_around(rest)
        job = partial(read_rows, self._connections, opened.index, rest, look_around=look)
        try:
            results = await self._readers.run(job)
        finally:
            opened.is_looking_around &= not look
        if results.bad:
            self._metrics.count("cache.bad", len(results.bad))
            self._warn("bad", f"a damaged file of the cache is deleted: {results.reason}")
            self._writer.discard(opened, results.bad)
        if results.failure is not None:
            self._failed(opened, results.failure, "read")
        for digest, place in results.around:
            opened.recent.note(digest, place)
        for (key, _, _), block in zip(rest, results.found, strict=True):
            if block is None:
                self._metrics.count("cache.misses")
            else:
                self._note_hit(block)
                opened.recent.note(key_digest(key), block)
        found = iter(results.found)
        return [hit or next(found) is not None for hit in hits]

    def get_now(self, key: str, buffer: memoryview) -> bool:
        """Fill `buffer` with the row of `key`, if it is known well enough to need no thread.

        True as for `get`. False says nothing but that `get` must be asked, and the buffer's
        content is undefined. Serves small rows that were written or read lately.
        """
        self._reopen()
        if self._opened is None:
            return False
        opened = self._opened
        block = opened.recent.read_into(opened.index.disk, key_digest(key), buffer)
        if block is not None:
            self._note_hit(block)
        return block is not None

    def _note_hit(self, block: StoredBlock) -> None:
        self._writer.note_hit(block.filename)
        self._metrics.count("cache.hits")
        self._metrics.count("cache.bytes_read", block.length)

    def surely_absent(self, key: str) -> bool:
        """True only when `key` is not cached; False when it is, or when that is unknown.

        A hint that saves a hop to a thread. It can be wrong, at the cost of one GET, for
        a row that another daemon wrote within the last second.
        """
        self._reopen()
        return self._opened is None or self._opened.keys.lacks(key_digest(key))

    # --- writing --------------------------------------------------------------------

    def put(
        self,
        key: str,
        data: memoryview,
        release: Callable[[], None],
        reclaim: Callable[[], bool] = lambda: False,
        keeps: int | None = None,
    ) -> bool:
        """Queue a row for the writer. Never blocks.

        `keeps`: bytes of memory that the caller has back only when the row is released, if
        they are more than the row's.

        True: `release()` is called on the trio thread as soon as the bytes are no longer
        needed, whether they could be stored or not; until then they must not change.
        False: the row is not queued, because the writer is behind or the disk refuses;
        `release` is not called, the buffer is still the caller's. If the writer was behind,
        `reclaim()` is called on the trio thread once it is not. It says whether the bytes are
        still there: then they must not change any more, and `release()` follows.
        """
        return self._writer.put(key, data, release, reclaim, len(data) if keeps is None else keeps)

    # --- failure and recovery -----------------------------------------------------------

    def _failed(self, opened: Opened, error: BaseException, verb: str) -> None:
        """Note that the database or the disk refused: go on, but write nothing for a while."""
        if is_busy(error):
            return  # another daemon's turn took long; the next try may do
        if isinstance(error, Removed):
            self._lost(opened)
            return
        self._warn(verb, f"cannot {verb} the cache in {self._directory}: {error}")
        self._writer.rest()
        if is_damaged(error):
            self._lost(opened, damaged=opened.index)

    def _lost(self, opened: Opened, *, damaged: RowIndex | None = None) -> None:
        """The database is damaged or no longer in its place: open it again, or a new one."""
        if opened is self._opened and not self._closed:
            self._warn("lost", f"the cache in {self._directory} was removed, replaced or damaged")
            self._forget()
            self._damaged = damaged
            self._reopen()
            # What is lost again soon would be lost again and again.
            self._open_at = trio.current_time() + _PAUSE

    def _forget(self) -> None:
        """Use the database no more."""
        if self._opened is not None:
            self._opened.leave()
            self._opened = None
        self._writer.leave()

    def _reopen(self) -> None:
        """Open the database in the writer's thread, if it is not, and was not lost just now."""
        if self._opened is not None or self._opening or self._closed:
            return
        if trio.current_time() < self._open_at:
            return
        self._opening = True

        def done(result: outcome.Outcome[RowIndex]) -> None:
            self._opening = False
            self._tried_to_open.set()
            try:
                index = result.unwrap()
            except Exception as error:  # noqa: BLE001  # no cache is no reason not to mount
                self._open_at = trio.current_time() + _PAUSE
                self._warn(
                    "open",
                    f"cannot open the cache in {self._directory}: {error}; going on without it",
                )
            else:
                if not self._closed:
                    self._opened = Opened(index, self._connections, self._background)
                    self._writer.opened = self._opened
                    self._writer.resume()

        self._writer.run(partial(self._connections.open, self._damaged), done)
        self._damaged = None

    def _warn(self, kind: str, message: str) -> None:
        """Log a warning, once for each kind: the cause may last for days."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s", message)

    # --- ending -------------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until everything that was put is written, evicted or dropped."""
        await self._writer.flush()

    async def aclose(self) -> None:
        """Write what is queued, then close every connection and end the threads."""
        if self._closed:
            return
        # A disk that does not answer must not keep the mount from ending.
        with trio.move_on_after(_CLOSE_PATIENCE, shield=True):
            await self.flush()
        self._closed = True
        self._forget()
        self._writer.drop_queued()
        with trio.move_on_after(_CLOSE_PATIENCE, shield=True):
            await self._readers.aclose()
            await self._background.aclose()
            await self._writer.aclose()
