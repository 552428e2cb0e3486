"""What the cache's threads do: read rows, write files, make rows of them, make room.

Functions of plain values, called in a thread of the cache. They know no trio and
share nothing but the database.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from s3mount.cache.block_disk import BadRow, StoredBlock, key_digest
from s3mount.cache.directory import prepare
from s3mount.cache.row_index import (
    IndexFailure,
    RowIndex,
    is_damaged,
    is_full,
    remove_database,
    sacrifice,
)
from s3mount.cache.write_queue import PendingRow

T = TypeVar("T")

_ROOM_TO_OPEN = 1 << 20
# Blocks of a stream whose places are looked up before it asks for them. It was written by runs
# at many places at a time: what comes next may have come before.
_BEFORE, _AFTER = 64, 256
_LOCK_PATIENCE = 5.0  # seconds that the opening of another daemon is waited for


class Removed(Exception):
    """The database is no longer in its place; a new connection finds an empty one."""


class Want(NamedTuple):
    """A row to read."""

    key: str
    buffer: memoryview
    known: StoredBlock | None  # where it was when it was last written or read, if it was


class ReadResult(NamedTuple):
    """What came of a batch of reads."""

    found: list[StoredBlock | None]  # what each buffer was filled with
    bad: list[str]  # keys whose rows are damaged
    reason: str  # why the last of them is
    around: list[tuple[bytes, StoredBlock]]  # what may be asked for next, by digest
    failure: BaseException | None  # of the database, if it failed


class Written(NamedTuple):
    """What came of a batch of writes."""

    blocks: list[tuple[str, StoredBlock]]  # by key; no row leads to them so far
    seconds: float  # that it took
    refused: bool  # the disk's free share is too small, and nothing was written


class Connections:
    """Opens the database, and closes each thread's connection to one that is left.

    diskcache keeps a connection per thread in the `Cache`; when the database is opened
    again, each thread closes its old one as it first uses the new.
    """

    def __init__(self, directory: Path, *, size_limit: int) -> None:
        self._directory = directory
        self._size_limit = size_limit
        self._local = threading.local()

    def open(self, damaged: RowIndex | None = None) -> RowIndex:
        """A `RowIndex`, opened in this thread; a damaged one is removed and made anew.

        Args:
            damaged: the database that was found damaged, in use, if one was.

        Raises:
            OSError, IndexFailure, UsageError: it cannot be opened.
        """
        self.close()
        prepare(self._directory)
        with sole_opener(self._directory):
            if damaged is not None and damaged.is_in_place():
                remove_database(self._directory)
            index = self._open_or_mend()
        self.use(index)
        return index

    def _open_or_mend(self) -> RowIndex:
        try:
            return RowIndex(self._directory, size_limit=self._size_limit)
        except IndexFailure as error:
            if is_damaged(error):
                remove_database(self._directory)
            elif is_full(error):
                # Opening writes a few pages. Without room for them nothing could ever be evicted.
                sacrifice(self._directory, _ROOM_TO_OPEN)
            else:
                raise
        return RowIndex(self._directory, size_limit=self._size_limit)

    def use(self, index: RowIndex) -> None:
        """Say that this thread is about to use `index`, and no other any more."""
        if getattr(self._local, "index", None) is not index:
            self.close()
            self._local.index = index

    def call(self, index: RowIndex, job: Callable[[], T]) -> T:
        """Call `job` in this thread, which uses `index`.

        Raises what it raises, or `Removed` where that is the cause.
        """
        self.use(index)
        try:
            return job()
        except (OSError, *IndexFailure) as error:
            raise _cause(index, error) from error

    def close(self) -> None:
        """Close this thread's connection."""
        index: RowIndex | None = getattr(self._local, "index", None)
        self._local.index = None
        if index is not None:
            index.close()


@contextlib.contextmanager
def sole_opener(directory: Path) -> Iterator[None]:
    """Keep other daemons from opening, and above all from removing, the same database.

    Two that found it damaged could otherwise remove each other's new one, or one file of
    its three, which SQLite does not survive.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        give_up_at = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(0.005)
        yield
    finally:
        os.close(fd)


def read_rows(
    connections: Connections, index: RowIndex, wants: Sequence[Want], *, look_around: bool
) -> ReadResult:
    """Fill each buffer with the row of its key, if there is a good one."""
    connections.use(index)
    found = [_read_known(index, want) for want in wants]
    result = ReadResult(found, [], "", [], None)
    unknown = [want.key for want, block in zip(wants, found, strict=True) if block is None]
    try:
        places = index.places(unknown) if unknown else {}
        if places and look_around:
            result.around.extend(index.around(wants[-1].key, _BEFORE, _AFTER))
        for number, (key, buffer, _) in enumerate(wants):
            place = places.get(key_digest(key))
            if found[number] is None and place is not None:
                try:
                    found[number] = index.read_into(key, place, buffer)
                except BadRow as error:
                    # It may have been given up by another daemon since the query.
                    if index.places([key]).get(key_digest(key)) == place:
                        result.bad.append(key)
                        result = result._replace(reason=str(error))
    except IndexFailure as error:
        result = result._replace(failure=_cause(index, error))
    return result


def _cause(index: RowIndex, failure: Exception) -> Exception:
    return failure if index.is_in_place() else Removed()


def _require_in_place(index: RowIndex) -> None:
    if not index.is_in_place():
        raise Removed


def _read_known(index: RowIndex, want: Want) -> StoredBlock | None:
    """Read a row where it was last; None if it is not there any more: the database knows."""
    key, buffer, known = want
    try:
        if known is not None and index.disk.read_into(key_digest(key), known, buffer):
            return known
    except OSError:
        pass
    return None


def write_file(
    index: RowIndex, rows: Sequence[PendingRow], *, free_share: float, hurry: bool
) -> Written:
    """Write a file of the rows that are not there yet.

    `hurry`: through the page cache, see `TwoWays`. Raises OSError, IndexFailure, Removed.
    """
    if free_bytes(index.directory, free_share) < 0:
        return Written([], 0.0, refused=True)
    unsure = [row.key for row in rows if not row.is_new]
    held = index.places(unsure) if unsure else {}
    values = {row.key: row.data for row in rows if key_digest(row.key) not in held}
    if not values:  # says an index that may be nobody's by now
        _require_in_place(index)
        return Written([], 0.0, refused=False)
    began = time.monotonic()
    blocks = index.disk.write(list(values.items()), hurry=hurry)
    return Written(blocks, time.monotonic() - began, refused=False)


def commit(
    index: RowIndex, blocks: Sequence[tuple[str, StoredBlock]], *, volume_limit: int
) -> bool:
    """Make rows of files, in one transaction; whether the cache is above its limit then.

    Raises IndexFailure, Removed; the files are gone then.
    """
    try:
        _require_in_place(index)
    except Removed:
        index.remove_files(blocks)
        raise
    index.insert(blocks)
    return index.volume() > volume_limit


def discard(index: RowIndex, keys: Sequence[str]) -> None:
    """Delete damaged files. Raises IndexFailure, Removed."""
    index.discard(keys)
    _require_in_place(index)


def touch(index: RowIndex, touched: Mapping[str, float]) -> None:
    """Store the recency of files that were read. Raises IndexFailure."""
    index.touch_all(touched)


def evict(
    index: RowIndex,
    touched: Mapping[str, float],
    *,
    volume_limit: int,
    free_share: float,
    batch: int,
) -> int:
    """Give up at least `batch` bytes, and what is above the limit. The number of rows.

    Raises IndexFailure.
    """
    if touched:
        index.touch_all(touched)
    excess = index.volume() - volume_limit
    lacking = -free_bytes(index.directory, free_share)
    # At most one batch for others' sake: what we remove need not be what fills the disk.
    return index.evict(max(excess + batch, min(lacking, batch), 1)).rows


def free_bytes(directory: str, free_share: float) -> int:
    """Bytes free beyond the share to be left free; negative when less is free."""
    found = os.statvfs(directory)
    return int((found.f_bavail - free_share * found.f_blocks) * found.f_frsize)
