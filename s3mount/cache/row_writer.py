"""The writing half of the cache: what is put, written, made rows, and given up to make room.

Rows wait in a queue; a batch at a time is written into one file, and its buffers given back at
once; when much is written, or in a pause, one transaction makes all of it rows.

INVARIANTS
- Nothing here makes a reader wait for a write: `put` only queues, and says False when the
  writers are behind.
- What is on disk and not counted by the database (being written, written, being made rows)
  is bounded, and left free below the limit.
- State belongs to the trio thread. The threads get plain values, and give back plain values.

Knows nothing of opening a database: its owner gives one, and takes it away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import outcome
import trio

from s3mount.cache.block_disk import MIN_DIRECT, key_digest
from s3mount.cache.jobs import (
    Connections,
    Written,
    commit,
    discard,
    evict,
    touch,
    write_file,
)
from s3mount.cache.opened import Opened
from s3mount.cache.pauses import Pauses
from s3mount.cache.threads import Threads
from s3mount.cache.two_ways import TwoWays
from s3mount.cache.uncommitted import Uncommitted
from s3mount.cache.write_queue import PendingRow, WriteQueue
from s3mount.metrics import Metrics

# Each waits for the disk, which takes more at a time: one wrote 1.5 GB/s, two 2.2, three no more.
_WRITERS = 2
_BATCH_BYTES = 4 << 20  # written in one job into one file, and then released at once
_BATCH_ROWS = 128
_COMMIT_BYTES = 32 << 20  # written, and then made rows in one transaction
_PAUSE_BETWEEN_ROWS = 0.2  # seconds; what was gathered is written and made rows in it
_BATCHES_AHEAD = _WRITERS + 1  # given to the writers, so that they need not wait for trio
_TOUCHED_MAX = 4096  # files whose recency is kept in memory before the database learns it
_PAUSE = 60.0  # seconds without writing after a failure

T = TypeVar("T")


def _nothing(*_: object) -> None:
    """What is to be done when there is nothing to do."""


class Failed(Protocol):
    """Called when the database or the disk refused."""

    def __call__(self, opened: Opened, error: BaseException, verb: str) -> None: ...


class RowWriter:
    """Writes what is put into the database that is `opened` at the time."""

    def __init__(
        self,
        connections: Connections,
        *,
        size_limit: int,
        free_share: float,
        queue_limit: int,
        metrics: Metrics,
        failed: Failed,
    ) -> None:
        """Starts the threads."""
        self.opened: Opened | None = None  # None: everything is dropped
        self._connections = connections
        self._size_limit = size_limit
        self._free_share = free_share
        self._metrics = metrics
        self._failed = failed
        # Small limits want small batches, so that what is written between two looks at the
        # volume, four batches at a time, stays a small part of the limit: a sixth.
        self._batch_bytes = min(_BATCH_BYTES, size_limit // 24)
        self._commit_bytes = min(_COMMIT_BYTES, size_limit // 32)
        self._writers = Threads("cache-writer", _WRITERS, at_exit=connections.close)
        # For the database, and for what goes through the page cache as the disk keeps the writers.
        self._clerk = Threads("cache-clerk", 1, at_exit=connections.close)
        self._queue = WriteQueue(
            limit=queue_limit,
            gather=min(queue_limit, size_limit // 8) // 2,
            batch_bytes=self._batch_bytes,
            batch_rows=_BATCH_ROWS,
        )
        self._ways = TwoWays()
        self._uncommitted = Uncommitted(self._commit_bytes)
        self._pauses = Pauses(_PAUSE_BETWEEN_ROWS, self._end_row)
        self._is_pause = False  # nothing was put since the last pause
        self._write_at = -math.inf  # trio time before which nothing is written
        self._jobs = 0  # given to the threads and not ended
        # Of them, files that the writers have: the times when they were given, oldest first.
        self._given: dict[int, float] = {}
        self._is_hurrying = False  # another is written through the page cache
        self._commits = 0  # of them
        self._evicting = False
        self._idle = trio.Event()
        self._touched: dict[str, float] = {}

    def put(
        self,
        key: str,
        data: memoryview,
        release: Callable[[], None],
        reclaim: Callable[[], bool],
        keeps: int,
    ) -> bool:
        """Queue a row; see `BlockCache.put`."""
        if not self._is_writing or len(data) > self._size_limit // 16:
            self._metrics.count("cache.dropped")
            return False
        assert self.opened is not None
        digest = key_digest(key)
        row = PendingRow(key, data, release, keeps, self.opened.keys.lacks(digest))
        if not self._queue.has_room(keeps):
            self._give_up(self._queue.postpone(row, partial(self._claim, digest, reclaim)))
            self._feed()
            return False
        self.opened.keys.add(digest)
        self._queue.append(row)
        self._is_pause = False
        self._pauses.note()
        if self._queue.is_due:
            self._feed()
        return True

    @property
    def _is_writing(self) -> bool:
        return self.opened is not None and trio.current_time() >= self._write_at

    def _claim(self, digest: bytes, reclaim: Callable[[], bool]) -> bool:
        """Take a row that found no room before, if it is still there."""
        if self.opened is None or not reclaim():
            return False
        self.opened.keys.add(digest)
        return True

    def _release(self, batch: list[PendingRow]) -> None:
        """Give back the buffers of a batch, and take what found no room before."""
        self._queue.release(batch)
        self._give_up(self._queue.catch_up() if self._is_writing else self._queue.forget_late())

    def _give_up(self, rows: int) -> None:
        if rows:
            self._metrics.count("cache.dropped", rows)

    def note_hit(self, filename: str) -> None:
        """A row of a file was read: the database learns it later."""
        self._touched[filename] = time.time()
        if len(self._touched) >= _TOUCHED_MAX:
            self._flush_recency()

    def discard(self, opened: Opened, keys: list[str]) -> None:
        """Delete damaged rows."""
        self.submit(opened, partial(discard, opened.index, keys))

    def leave(self) -> None:
        """Use the database no more."""
        if self.opened is not None:
            self._commit(self.opened)
            self.opened = None
        self._touched.clear()

    def rest(self) -> None:
        """Write nothing for a while."""
        self._write_at = trio.current_time() + _PAUSE

    def resume(self) -> None:
        """Write again."""
        self._write_at = trio.current_time()

    # --- files and rows -------------------------------------------------------------

    def _end_row(self) -> None:
        """Nothing was put for a while: leave nothing lying."""
        self._is_pause = True
        self._queue.is_due = bool(self._queue)
        self._feed()

    def _feed(self) -> None:
        """Give the threads what is due, and note when they are idle."""
        opened = self.opened
        while self._queue.is_due and (hurry := self._next_way()) is not None:
            batch = self._queue.take_batch()
            if opened is None:
                self._release(batch)
                continue
            self._write(opened, batch, hurry=hurry)
        if opened is not None and self._is_commit_due():
            self._commit(opened)
        if not self._jobs and not self._queue:
            self._idle.set()

    def _next_way(self) -> bool | None:
        """Whether the next file goes through the page cache; None: it has to wait."""
        if self._evicting or (self._uncommitted.is_full and self._commits):
            return None
        if self._queue.is_behind and not self._is_hurrying:
            now = trio.current_time()
            if self._ways.may_hurry(now, waited=now - next(iter(self._given.values()), now)):
                return True
        return False if len(self._given) < _BATCHES_AHEAD else None

    def _write(self, opened: Opened, batch: list[PendingRow], *, hurry: bool) -> None:
        """Have a file written of the batch."""
        if hurry:
            self._is_hurrying = True
        else:
            self._given[id(batch)] = trio.current_time()

        def ended() -> None:
            if hurry:
                self._is_hurrying = False
            else:
                del self._given[id(batch)]
            self._release(batch)

        self.submit(
            opened,
            partial(write_file, opened.index, batch, free_share=self._free_share, hurry=hurry),
            partial(self._written, opened, len(batch), hurry),
            failed=partial(self._not_written, opened, len(batch)),
            always=ended,
            threads=self._clerk if hurry else self._writers,
        )

    def _is_commit_due(self) -> bool:
        if self._commits:
            return False
        is_rest = self._is_pause and not self._jobs and not self._queue
        return is_rest or self._uncommitted.is_due(trio.current_time())

    def _written(self, opened: Opened, rows: int, hurry: bool, result: Written) -> None:
        if result.refused:
            self._not_written(opened, rows)
        else:
            for key, block in result.blocks:
                opened.recent.note(key_digest(key), block)
            lengths = [block.length for _, block in result.blocks]
            if min(lengths, default=0) >= MIN_DIRECT:  # others have no choice
                now = trio.current_time()
                self._ways.note(sum(lengths), result.seconds, now, hurry=hurry)
            self._uncommitted.add(result.blocks, trio.current_time())
            if opened is not self.opened:
                self._commit(opened)

    def _not_written(self, opened: Opened, rows: int) -> None:
        self._metrics.count("cache.dropped", rows)
        self._evict(opened)  # a full disk is the likely reason

    def _commit(self, opened: Opened) -> None:
        """Make rows of what is written."""
        blocks = self._uncommitted.take()
        if not blocks:
            return
        self._commits += 1

        def ended() -> None:
            self._commits -= 1

        def done(is_above_limit: bool) -> None:
            self._metrics.count("cache.bytes_written", sum(block.length for _, block in blocks))
            if is_above_limit:
                self._evict(opened)

        self.submit(
            opened,
            partial(commit, opened.index, blocks, volume_limit=self._volume_limit()),
            done,
            failed=partial(self._not_written, opened, len(blocks)),
            always=ended,
        )

    # --- room -----------------------------------------------------------------------

    def _volume_limit(self) -> int:
        """Bytes above which to make room: what the database does not count must still fit."""
        in_flight = (_BATCHES_AHEAD + 1) * max(self._batch_bytes, self._queue.largest)
        return self._size_limit - in_flight - 2 * self._commit_bytes

    def _evict(self, opened: Opened) -> None:
        """Give up a twentieth of the limit, least recently used first."""
        if self._evicting or opened is not self.opened:
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
        self.submit(opened, job, partial(self._metrics.count, "cache.evicted"), always=ended)

    def _flush_recency(self) -> None:
        """Tell the database what was used lately; other daemons' evictions go by it."""
        touched, self._touched = self._touched, {}
        if self.opened is not None and touched:
            self.submit(self.opened, partial(touch, self.opened.index, touched))

    # --- jobs -----------------------------------------------------------------------

    def submit(
        self,
        opened: Opened,
        job: Callable[[], T],
        done: Callable[[T], None] = _nothing,
        *,
        failed: Callable[[], None] = _nothing,
        always: Callable[[], None] = _nothing,
        threads: Threads | None = None,
    ) -> None:
        """Do a job on a database; `always`, then `done` or `failed`, is called at its end."""

        def ended(result: outcome.Outcome[T]) -> None:
            always()
            try:
                value = result.unwrap()
            except Exception as error:  # noqa: BLE001  # whatever it is, the readers go on
                self._failed(opened, error, "write")
                failed()
            else:
                done(value)

        self.run(partial(self._connections.call, opened.index, job), ended, threads)

    def run(
        self,
        job: Callable[[], T],
        ended: Callable[[outcome.Outcome[T]], None],
        threads: Threads | None = None,
    ) -> None:
        """Do a job in a thread, the clerk's if none is named; `ended` is given its outcome."""
        self._jobs += 1
        if self._idle.is_set():
            self._idle = trio.Event()

        def done(result: outcome.Outcome[T]) -> None:
            self._jobs -= 1
            ended(result)
            self._feed()

        (threads or self._clerk).submit(job, done)

    # --- ending ---------------------------------------------------------------------

    async def flush(self) -> None:
        """Wait until everything that was put is written, evicted or dropped."""
        self._flush_recency()
        self._end_row()
        while self._jobs or self._queue:
            await self._idle.wait()
        await trio.lowlevel.checkpoint()

    def drop_queued(self) -> None:
        """Give back the buffers of what was not written."""
        self._queue.forget_late()
        while self._queue:
            self._queue.release(self._queue.take_batch())

    async def aclose(self) -> None:
        """End the threads."""
        await self._writers.aclose()
        await self._clerk.aclose()
