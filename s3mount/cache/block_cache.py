"""Blocks of objects on local disk, that outlive the mount.

A row's key names a version of an object, an offset and a length, so a row never
changes: it is there, or it is not.

INVARIANTS
- No failure here reaches a reader: whatever goes wrong is a miss, and one warning.
- A hit is right: `True` stands for the very bytes that were put under that key,
  checked on every read. A row that fails the check is deleted.
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
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import outcome
import trio

from s3mount.cache.block_disk import key_digest
from s3mount.cache.directory import prepare
from s3mount.cache.jobs import (
    Connections,
    Report,
    discard,
    evict,
    read_rows,
    touch,
    write_rows,
)
from s3mount.cache.opened import Opened
from s3mount.cache.pauses import Pauses
from s3mount.cache.row_index import RowIndex, is_busy, is_damaged
from s3mount.cache.threads import Threads
from s3mount.cache.write_queue import PendingRow, WriteQueue
from s3mount.metrics import Metrics

log = logging.getLogger(__name__)

_READERS = 6  # 3 read a cold disk at 1,100 MB/s, 6 at 1,164; each has a connection of its own
# Each waits for the disk, which takes more at a time: one wrote 1.5 GB/s, two 2.2, three no more.
_WRITERS = 2
_BATCH_BYTES = 4 << 20  # written in one transaction, and then released at once
_BATCH_ROWS = 128
_PAUSE_BETWEEN_ROWS = 0.2  # seconds; small rows are written in it
_BATCHES_AHEAD = _WRITERS + 1  # given to the writers, so that they need not wait for trio
_TOUCHED_MAX = 4096  # keys whose recency is kept in memory before the database learns it
_OPEN_PATIENCE = 2.0  # seconds that a mount waits for a database that others hold locked
_CLOSE_PATIENCE = 10.0
_PAUSE = 60.0  # seconds without writing after a failure, and between tries to open again

T = TypeVar("T")


def _nothing(*_: object) -> None:
    """What is to be done when there is nothing to do."""


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
        self._size_limit = size_limit
        self._free_share = free_share
        self._metrics = metrics
        # Small limits want small batches, so that what is written between two looks at
        # the volume stays a small part of the limit.
        self._batch_bytes = min(_BATCH_BYTES, size_limit // 16)
        self._connections = Connections(directory, size_limit=size_limit)
        self._readers = Threads("cache-reader", _READERS, at_exit=self._connections.close)
        self._writer = Threads("cache-writer", _WRITERS, at_exit=self._connections.close)
        self._background = Threads("cache-upkeep", 1, at_exit=self._connections.close)
        self._opened: Opened | None = None  # None: everything misses
        self._tried_to_open = trio.Event()
        self._opening = False
        self._closed = False
        self._damaged: RowIndex | None = None
        # trio times before which nothing is written, or opened
        self._write_at = self._open_at = -math.inf
        self._warned: set[str] = set()
        self._queue = WriteQueue(
            limit=queue_limit,
            gather=min(queue_limit, size_limit // 8) // 2,
            batch_bytes=self._batch_bytes,
            batch_rows=_BATCH_ROWS,
        )
        self._pauses = Pauses(_PAUSE_BETWEEN_ROWS, self._write_queued)
        self._jobs = 0  # given to the writer and not ended
        self._evicting = False
        self._idle = trio.Event()
        self._touched: dict[bytes, float] = {}

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
            queue_limit: bytes that may wait for the writer.
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
        with trio.move_on_after(_OPEN_PATIENCE):
            await self._tried_to_open.wait()
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
        results = await self._readers.run(partial(read_rows, self._connections, opened.index, rest))
        if results.bad:
            self._metrics.count("cache.bad", len(results.bad))
            self._warn("bad", f"a damaged block of the cache is deleted: {results.reason}")
            self._discard(opened, results.bad)
        if results.failure is not None:
            self._failed(opened, results.failure, "read")
        for (key, _, _), block in zip(rest, results.found, strict=True):
            if block is None:
                self._metrics.count("cache.misses")
            else:
                self._note_hit(key_digest(key), block.length)
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
        digest = key_digest(key)
        hit = self._opened.recent.read_into(self._opened.index.disk, digest, buffer)
        if hit:
            self._note_hit(digest, len(buffer))
        return hit

    def _note_hit(self, digest: bytes, length: int) -> None:
        self._touched[digest] = time.time()
        self._metrics.count("cache.hits")
        self._metrics.count("cache.bytes_read", length)
        if len(self._touched) >= _TOUCHED_MAX:
            self._flush_recency()

    def _discard(self, opened: Opened, keys: list[str]) -> None:
        def done(in_place: bool) -> None:
            if not in_place:
                self._lost(opened)

        self._submit(opened, partial(discard, opened.index, keys), done)

    def surely_absent(self, key: str) -> bool:
        """True only when `key` is not cached; False when it is, or when that is unknown.

        A hint that saves a hop to a thread. It can be wrong, at the cost of one GET, for
        a row that another daemon wrote within the last second.
        """
        self._reopen()
        return self._opened is None or self._opened.keys.lacks(key_digest(key))

    # --- writing --------------------------------------------------------------------

    def put(self, key: str, data: memoryview, release: Callable[[], None]) -> bool:
        """Queue a row for the writer. Never blocks.

        True: `release()` is called on the trio thread as soon as the bytes are no longer
        needed, whether they could be stored or not; until then they must not change.
        False: the row is dropped, because the writer is behind or the disk refuses;
        `release` is not called, the buffer is still the caller's.
        """
        if (
            self._closed
            or self._opened is None
            or trio.current_time() < self._write_at
            or len(data) > self._size_limit // 16
            or not self._queue.has_room(len(data))
        ):
            self._metrics.count("cache.dropped")
            return False
        self._queue.append(PendingRow(key, data, release))
        self._opened.keys.add(key_digest(key))
        if self._queue.is_due:
            self._feed_writer()
        else:
            self._pauses.note()
        return True

    def _write_queued(self) -> None:
        self._queue.is_due = bool(self._queue)
        self._feed_writer()

    def _feed_writer(self) -> None:
        """Give the writer what is queued, in batches, and note when it is idle."""
        opened = self._opened
        while self._queue.is_due and self._jobs < _BATCHES_AHEAD and not self._evicting:
            batch = self._queue.take_batch()
            if opened is None:
                self._queue.release(batch)
                continue
            job = partial(
                write_rows,
                opened.index,
                [(pending.key, pending.data) for pending in batch],
                volume_limit=self._volume_limit(),
                free_share=self._free_share,
                hurry=self._queue.is_behind,
            )
            self._submit(
                opened,
                job,
                partial(self._written, opened),
                failed=partial(self._not_written, opened, len(batch)),
                always=partial(self._queue.release, batch),
            )
        if not self._jobs and not self._queue:
            self._idle.set()

    def _written(self, opened: Opened, report: Report) -> None:
        for key, block in report.written:
            self._metrics.count("cache.bytes_written", block.length)
            opened.recent.note(key_digest(key), block)
        self._metrics.count("cache.dropped", report.dropped)
        if report.replaced:
            self._lost(opened)
        elif report.excess:
            self._evict(opened)

    def _not_written(self, opened: Opened, rows: int) -> None:
        self._metrics.count("cache.dropped", rows)
        self._evict(opened)  # a full disk is the likely reason

    def _volume_limit(self) -> int:
        """Bytes above which to make room: what is being written must still fit."""
        return self._size_limit - _BATCHES_AHEAD * max(self._batch_bytes, self._queue.largest)

    def _evict(self, opened: Opened) -> None:
        """Give up a twentieth of the limit, least recently used first."""
        if self._evicting or opened is not self._opened:
            return
        self._evicting = True
        touched, self._touched = self._touched, {}

        def ended() -> None:
            self._evicting = False

        job = partial(
            evict,
            opened.index,
            touched,
            volume_limit=self._volume_limit(),
            free_share=self._free_share,
            batch=self._size_limit // 20,
        )
        self._submit(opened, job, partial(self._metrics.count, "cache.evicted"), always=ended)

    def _flush_recency(self) -> None:
        """Tell the database what was used lately; other daemons' evictions go by it."""
        opened = self._opened
        touched, self._touched = self._touched, {}
        if opened is not None and touched:
            self._submit(opened, partial(touch, opened.index, touched))

    def _submit(
        self,
        opened: Opened,
        job: Callable[[], T],
        done: Callable[[T], None] = _nothing,
        *,
        failed: Callable[[], None] = _nothing,
        always: Callable[[], None] = _nothing,
    ) -> None:
        """Give the writer a job; `always`, then `done` or `failed`, is called at its end."""
        self._jobs += 1
        if self._idle.is_set():
            self._idle = trio.Event()

        def ended(result: outcome.Outcome[T]) -> None:
            self._jobs -= 1
            always()
            try:
                value = result.unwrap()
            except Exception as error:  # noqa: BLE001  # whatever it is, the readers go on
                self._failed(opened, error, "write")
                failed()
            else:
                done(value)
            self._feed_writer()

        self._writer.submit(partial(self._connections.call, opened.index, job), ended)

    # --- failure and recovery -----------------------------------------------------------

    def _failed(self, opened: Opened, error: BaseException, verb: str) -> None:
        """Note that the database or the disk refused: go on, but write nothing for a while."""
        if is_busy(error):
            return  # another daemon's turn took long; the next try may do
        self._warn(verb, f"cannot {verb} the cache in {self._directory}: {error}")
        self._write_at = trio.current_time() + _PAUSE
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
        self._touched.clear()

    def _reopen(self) -> None:
        """Open the database in the writer's thread, if it is not, and was not lost just now."""
        if self._opened is not None or self._opening or self._closed:
            return
        if trio.current_time() < self._open_at:
            return
        self._opening = True
        self._jobs += 1

        def done(result: outcome.Outcome[RowIndex]) -> None:
            self._opening = False
            self._jobs -= 1
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
                    self._write_at = trio.current_time()
            self._feed_writer()

        self._writer.submit(partial(self._connections.open, self._damaged), done)
        self._damaged = None

    def _warn(self, kind: str, message: str) -> None:
        """Log a warning, once for each kind: the cause may last for days."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s", message)

    # --- ending -------------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until everything that was put is written, evicted or dropped."""
        self._flush_recency()
        self._write_queued()
        while self._jobs or self._queue:
            await self._idle.wait()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Write what is queued, then close every connection and end the threads."""
        if self._closed:
            return
        # A disk that does not answer must not keep the mount from ending.
        with trio.move_on_after(_CLOSE_PATIENCE, shield=True):
            await self.flush()
        self._closed = True
        self._forget()
        while self._queue:
            self._queue.release(self._queue.take_batch())
        with trio.move_on_after(_CLOSE_PATIENCE, shield=True):
            await self._readers.aclose()
            await self._background.aclose()
            await self._writer.aclose()
