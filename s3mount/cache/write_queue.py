"""Rows that wait for the writer: bounded in bytes, taken in batches.

INVARIANT: `waiting_bytes` counts what is queued and what was taken and not yet
released, so the bound holds for all memory that the cache keeps from its owners.

Knows no thread and no disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class PendingRow(NamedTuple):
    """A row that waits for the writer."""

    key: str
    data: memoryview
    release: Callable[[], None]


class WriteQueue:
    """First in, first out."""

    def __init__(self, *, limit: int, batch_bytes: int, batch_rows: int) -> None:
        self._limit = limit
        self._batch_bytes = batch_bytes
        self._batch_rows = batch_rows
        self._rows: deque[PendingRow] = deque()
        self.waiting_bytes = 0
        self.largest = 0  # bytes of the largest row that was ever queued

    def __len__(self) -> int:
        """Rows that were not taken yet."""
        return len(self._rows)

    def has_room(self, size: int) -> bool:
        """Whether a row of `size` bytes may be queued now."""
        return self.waiting_bytes + size <= self._limit

    def append(self, row: PendingRow) -> None:
        """Queue a row."""
        self._rows.append(row)
        self.waiting_bytes += len(row.data)
        self.largest = max(self.largest, len(row.data))

    def take_batch(self) -> list[PendingRow]:
        """The next rows, as many as make a batch; at least one, if there are any."""
        batch: list[PendingRow] = []
        size = 0
        while self._rows and len(batch) < self._batch_rows:
            size += len(self._rows[0].data)
            if batch and size > self._batch_bytes:
                break
            batch.append(self._rows.popleft())
        return batch

    def release(self, batch: list[PendingRow]) -> None:
        """Give the buffers of a batch that was taken back to their owners."""
        for row in batch:
            self.waiting_bytes -= len(row.data)
            row.release()
