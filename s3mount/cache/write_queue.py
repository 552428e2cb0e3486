"""Rows that wait for the writer: bounded by the memory that they keep, taken in batches.

What finds no room is remembered, and queued when there is room, if its bytes are still where
they were: nothing is held for it. A stream's blocks stay in memory until they are read, so
what a disk that pauses for a moment cannot take it takes a moment later.

Rows are gathered. Small ones come from walks through many files, each of which somebody waits
for: written one or two at a time beside such a walk, a row cost 0.45 ms of CPU; in batches, at
the walk's next pause, 0.04 ms. Large ones come from streams: so many as make a batch are one
hop to a thread and back. And a small row can keep a large buffer, as one sector of a block does:
readers soon want the memory. So the queue is due when it has gathered enough of any of them, or
when its owner says so; and from then on until it is empty.

INVARIANT: `waiting_bytes` counts what is kept by what is queued and by what was taken and not
yet released, so the bound holds for all memory that the cache keeps from its owners.

Knows no thread and no disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

# Rows of whole sectors come from large files, whose next blocks want the memory.
SMALL = 128 * 1024
# Rows that are remembered while there is no room for them: more than a mount has blocks in memory.
LATE_ROWS = 1024
# Rows that are gathered at most: of the tiniest, each holds more memory than its bytes.
GATHER_ROWS = 2048


class PendingRow(NamedTuple):
    """A row that waits for the writer."""

    key: str
    data: memoryview
    release: Callable[[], None]
    keeps: int  # bytes of memory that nobody else has until it is released
    is_new: bool = False  # there is surely no such row yet


class WriteQueue:
    """First in, first out; gathers at most `gather` bytes, and of large rows a batch."""

    def __init__(self, *, limit: int, gather: int, batch_bytes: int, batch_rows: int) -> None:
        self._limit = limit
        self._gather = gather
        self._batch_bytes = batch_bytes
        self._batch_rows = batch_rows
        # An eighth: what is gathered of a stream must not be what the stream waits for.
        self._gather_large = min(batch_bytes, limit // 8)
        # A quarter: of 32 MiB, 8 sectors. 32 random readers made 1,094 reads/s so, 842 with 17
        # sectors a job, and 968 with 32, as they waited for memory; and the ends of files, which
        # waited for a pause, were read at a quarter of the speed.
        self._gather_kept = limit // 4
        self._gathered_large = 0  # bytes of rows
        self._gathered_kept = 0  # bytes of buffers, of the rows that keep more than they have
        self._rows: deque[PendingRow] = deque()
        self._late: deque[tuple[PendingRow, Callable[[], bool]]] = deque()  # oldest first
        self.waiting_bytes = 0
        self.largest = 0  # bytes of the largest row that was ever queued
        self.is_due = False  # whether what is queued is to be written now

    def __len__(self) -> int:
        """Rows that were not taken yet."""
        return len(self._rows)

    def has_room(self, size: int) -> bool:
        """Whether a row that keeps `size` bytes may be queued now."""
        return self.waiting_bytes + size <= self._limit

    @property
    def is_behind(self) -> bool:
        """Whether more is kept than seven eighths of what may be."""
        return 8 * self.waiting_bytes > 7 * self._limit

    def append(self, row: PendingRow) -> None:
        """Queue a row."""
        self._rows.append(row)
        self.waiting_bytes += row.keeps
        self.largest = max(self.largest, len(row.data))
        if len(row.data) >= SMALL:
            self._gathered_large += len(row.data)
        if row.keeps > len(row.data):
            self._gathered_kept += row.keeps
        if (
            self.waiting_bytes > self._gather
            or len(self._rows) > GATHER_ROWS
            or self._gathered_large >= self._gather_large
            or self._gathered_kept >= self._gather_kept
        ):
            self.is_due = True

    def postpone(self, row: PendingRow, reclaim: Callable[[], bool]) -> int:
        """Remember a row that there is no room for; how many rows are given up for good."""
        if row.keeps > self._limit:
            return 1
        self._late.append((row, reclaim))
        if len(self._late) <= LATE_ROWS:
            return 0
        self._late.popleft()
        return 1

    def catch_up(self) -> int:
        """Queue what found no room, as far as there is some; how many rows were gone."""
        gone = 0
        while self._late and self.has_room(self._late[0][0].keeps):
            row, reclaim = self._late.popleft()
            if reclaim():
                self.append(row)
                self.is_due = True
            else:
                gone += 1
        return gone

    def forget_late(self) -> int:
        """Give up what found no room; how many rows that is."""
        gone = len(self._late)
        self._late.clear()
        return gone

    def take_batch(self) -> list[PendingRow]:
        """The next rows, as many as make a batch; at least one, if there are any."""
        batch: list[PendingRow] = []
        size = 0
        while self._rows and len(batch) < self._batch_rows:
            size += len(self._rows[0].data)
            if batch and size > self._batch_bytes:
                break
            batch.append(self._rows.popleft())
        if not self._rows:
            self.is_due = False
            self._gathered_large = self._gathered_kept = 0
        return batch

    def release(self, batch: list[PendingRow]) -> None:
        """Give the buffers of a batch that was taken back to their owners."""
        for row in batch:
            self.waiting_bytes -= row.keeps
            row.release()
