"""Blocks that were written and wait to become rows, so that one transaction makes many of them.

A row in a transaction of its own cost 0.3 ms of CPU beside a stream, in one of 32 some 0.03.
Until then a block is known to this mount alone, and lost to the cache if the mount is killed.

Pure: knows no clock, thread or database.
"""

from __future__ import annotations

from collections.abc import Sequence

from s3mount.cache.block_disk import StoredBlock, disk_usage

_MAX_ROWS = 256  # some 5 ms, which other daemons wait for
_MAX_AGE = 1.0  # seconds


class Uncommitted:
    """Blocks by key, in the order in which they were written; `limit` bytes on disk are many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._since = 0.0
        self._blocks: list[tuple[str, StoredBlock]] = []

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be written before these are committed."""
        return self._size >= self._limit

    def is_due(self, now: float) -> bool:
        """Whether these should be committed, even if more is about to be written."""
        many = self.is_full or len(self._blocks) >= _MAX_ROWS
        return many or (bool(self._blocks) and now - self._since >= _MAX_AGE)

    def add(self, blocks: Sequence[tuple[str, StoredBlock]], now: float) -> None:
        """All blocks of a file were written."""
        if not self._blocks:
            self._since = now
        self._blocks += blocks
        self._size += disk_usage(sum(block.length for _, block in blocks))

    def take(self) -> list[tuple[str, StoredBlock]]:
        """All of them, to be committed."""
        blocks, self._blocks, self._size = self._blocks, [], 0
        return blocks
