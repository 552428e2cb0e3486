"""The rows of the cache: which keys are kept, where, and which of them to give up first.

A `diskcache.Cache` with the settings that fit, and the three things that it does not
offer: many rows in one statement, eviction in batches by a recency that is learned
elsewhere, and access to rows by digest. Called in the cache's threads.

INVARIANTS
- The database alone says what is kept, and every change is one transaction: several
  daemons may use one directory. A file without its row is an orphan; a row without
  its file is a miss.
- A file is removed after the row was, in this order, and written before it.
- Nothing here scans the table, `open` least of all: it takes the same time with a
  million rows as with none.

`synchronous=NORMAL`: in WAL mode it syncs at checkpoints only, in the writer's thread,
and was measured as fast as OFF (18 us a row either way). OFF would be safe too, since
checksums are seeded with keys, but a power cut could cost the whole database.

Knows no trio.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diskcache import Cache, Timeout

from s3mount.cache.block_disk import (
    DIGEST_SIZE,
    MODE_BINARY,
    BadRow,
    BlockDisk,
    StoredBlock,
    is_value_name,
    key_digest,
)

# What the database and diskcache raise when they cannot do what was asked.
IndexFailure = (sqlite3.Error, Timeout)

DATABASE = "cache.db"  # diskcache.core.DBNAME

# Seconds that a statement waits for another daemon's transaction. Ours take milliseconds.
_BUSY_TIMEOUT = 0.5
_OPEN_TIMEOUT = 5.0  # the same while it opens, when another may be recovering it

_SETTINGS = {
    "statistics": 0,
    "tag_index": 0,
    # diskcache's own eviction makes every hit a write, and culls 10 rows in every `set`.
    "eviction_policy": "none",
    "cull_limit": 0,
    # Freed pages are used again; giving them back would move pages in every delete.
    "sqlite_auto_vacuum": 0,
    # Per connection: 1 MiB, and no mapping, keep five connections small.
    "sqlite_cache_size": -1024,
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "sqlite_journal_size_limit": 8 << 20,
}

_EVICT_ROWS = 500  # per transaction: some 10 ms, which other daemons wait for


Place = Sequence[Any]  # the columns `mode`, `filename`, `value` of a row, not looked at yet


class Evicted(NamedTuple):
    """What an eviction gave up."""

    rows: int
    size: int  # bytes on disk


class RowIndex(Cache):  # type: ignore[misc]  # diskcache ships no types
    """The database of one cache directory, that may be shared by several daemons."""

    def __init__(self, directory: Path, *, size_limit: int) -> None:
        """Open or create it.

        Raises:
            OSError, IndexFailure: it cannot be opened; see `is_damaged`.
        """
        # diskcache opens, closes and opens again. Closing a database's last connection is a
        # checkpoint with its fsyncs: up to 100 ms on a busy disk. This one is there until the end.
        path = directory / DATABASE
        with contextlib.closing(sqlite3.connect(path, timeout=_OPEN_TIMEOUT)) as other:
            other.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
            try:
                super().__init__(
                    str(directory),
                    timeout=_BUSY_TIMEOUT,
                    disk=BlockDisk,
                    size_limit=size_limit,
                    **_SETTINGS,
                )
                self._sql("CREATE INDEX IF NOT EXISTS Cache_access_time ON Cache (access_time)")
            except BaseException:
                self.close()
                raise
        self._inode = os.stat(self._path()).st_ino

    def _path(self) -> str:
        return f"{self.directory}/{DATABASE}"

    def is_in_place(self) -> bool:
        """Whether the database is still the file of its name: not removed, not replaced."""
        try:
            return os.stat(self._path()).st_ino == self._inode
        except OSError:
            return False

    def places(self, keys: Sequence[str]) -> dict[bytes, Place]:
        """What the rows of these keys say of their values, by digest. One query for all.

        Raises `IndexFailure`.
        """
        marks = ",".join("?" * len(keys))
        found = self._sql(
            f"SELECT key, mode, filename, value FROM Cache WHERE raw = 1 AND key IN ({marks})",
            [key_digest(key) for key in keys],
        )
        return {digest: place for digest, *place in found.fetchall()}

    def around(self, key: str, before: int, after: int) -> list[tuple[bytes, StoredBlock]]:
        """The blocks, by digest, of so many rows that were written before and after that of `key`.

        A file is read in the order in which it was written, so some of them are asked for
        next. One value from one step: each step of SQLite's gives up the interpreter's lock.
        Raises `IndexFailure`.
        """
        ((found,),) = self._sql(
            "SELECT group_concat(hex(near.key) || filename || hex(value))"
            " FROM (SELECT rowid FROM Cache WHERE raw = 1 AND key = ?) this, Cache near"
            " WHERE near.rowid BETWEEN this.rowid - ? AND this.rowid + ?"
            " AND near.raw = 1 AND length(near.key) = ? AND mode = ?",
            (key_digest(key), before, after, DIGEST_SIZE, MODE_BINARY),
        ).fetchall()
        blocks = []
        for row in found.split(",") if type(found) is str else ():
            try:
                digest, label = bytes.fromhex(row[:32]), bytes.fromhex(row[-32:])
                blocks.append((digest, self.disk.fetch(MODE_BINARY, row[32:-32], label, read=True)))
            except (BadRow, ValueError):  # whoever asks for it finds out why
                continue
        return blocks

    def read_into(self, key: str, place: Place, buffer: memoryview) -> StoredBlock | None:
        """Fill `buffer` with the verified block of `key`; None when it has another length.

        Raises:
            BadRow: it is damaged and should be discarded.
        """
        block: StoredBlock = self.disk.fetch(*place, read=True)
        if block.length != len(buffer):
            return None
        try:
            good = self.disk.read_into(key_digest(key), block, buffer)
        except OSError as error:
            raise BadRow(f"its file cannot be read: {error.strerror}") from error
        if not good:
            raise BadRow("its file does not have its checksum")
        return block

    def rows(self) -> int:
        """How many rows there are."""
        return int(self.reset("count"))

    def last_rowid(self) -> int:
        """The greatest rowid, 0 when there are no rows."""
        ((last,),) = self._sql("SELECT MAX(rowid) FROM Cache").fetchall()
        return int(last or 0)

    def digests_after(self, rowid: int, limit: int) -> tuple[int, list[bytes]]:
        """The digests of the `limit` rows that follow `rowid`, and the rowid of the last."""
        found = self._sql(
            "SELECT rowid, key FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?", (rowid, limit)
        ).fetchall()
        digests = [key for _, key in found if type(key) is bytes and len(key) == DIGEST_SIZE]
        return (found[-1][0] if found else rowid), digests

    def names(self, filename: str) -> bool:
        """Whether a row has the value file `filename`."""
        digest = bytes.fromhex(filename[:2] + filename[3:33])
        found = self._sql("SELECT filename FROM Cache WHERE key = ? AND raw = 1", (digest,))
        return (filename,) in found.fetchall()

    def insert(self, blocks: Sequence[tuple[str, StoredBlock]]) -> None:
        """Make rows of files that `BlockDisk.write` wrote, all in one statement.

        The files of rows that are there already are removed; on failure, all are. One
        statement: each gives up the interpreter's lock, and must get it back, beside a stream.
        Raises `IndexFailure`.
        """
        try:
            with self._transact() as (sql, cleanup):
                held = set(self.places([key for key, _ in blocks]))
                values: list[object] = []
                now = time.time()
                for key, block in blocks:
                    digest, raw = self.disk.put(key)
                    if digest in held:
                        cleanup(block.filename)
                    else:
                        held.add(digest)
                        columns = self.disk.store(block, read=False, key=key)
                        values += (digest, raw, now, now, *columns)
                if values:
                    marks = ",".join(["(?,?,?,?,?,?,?,?)"] * (len(values) // 8))
                    sql(
                        "INSERT INTO Cache (key, raw, store_time, access_time,"
                        f" size, mode, filename, value) VALUES {marks}",
                        values,
                    )
        except BaseException:
            self.remove_files(blocks)
            raise

    def remove_files(self, blocks: Iterable[tuple[str, StoredBlock]]) -> None:
        """Remove files that were written and do not become rows."""
        for _, block in blocks:
            self.disk.remove(block.filename)

    def discard(self, keys: Iterable[str]) -> None:
        """Remove the rows of `keys`, and their files."""
        with self._transact() as (sql, cleanup):
            for key in keys:
                found = (key_digest(key), True)
                for (name,) in sql(
                    "SELECT filename FROM Cache WHERE key = ? AND raw = ?", found
                ).fetchall():
                    cleanup(name if isinstance(name, str) else None)
                sql("DELETE FROM Cache WHERE key = ? AND raw = ?", found)

    def touch_all(self, times: Mapping[bytes, float]) -> None:
        """Note when keys, by digest, were last used (seconds since the epoch)."""
        with self._transact() as (sql, _):
            for digest, when in times.items():
                sql(
                    "UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1",
                    (when, digest),
                )

    def volume(self) -> int:
        """Bytes in use on disk: value files, and the database's pages that hold something."""
        ((pages,),) = self._sql("PRAGMA page_count").fetchall()
        ((free,),) = self._sql("PRAGMA freelist_count").fetchall()
        return int(self.reset("size")) + int(pages - free) * int(self._page_size)

    def evict(self, size: int) -> Evicted:
        """Give up the least recently used rows, `size` bytes of them or more, if there are."""
        rows, freed = 0, 0
        while freed < size:
            with self._transact() as (sql, cleanup):
                oldest = sql(
                    "SELECT rowid, size, filename FROM Cache ORDER BY access_time LIMIT ?",
                    (_EVICT_ROWS,),
                ).fetchall()
                victims = _until(oldest, size - freed)
                if not victims:
                    break
                marks = ",".join("?" * len(victims))
                sql(f"DELETE FROM Cache WHERE rowid IN ({marks})", [row[0] for row in victims])
                for _, _, name in victims:
                    cleanup(name if isinstance(name, str) else None)
            rows += len(victims)
            freed += sum(row[1] for row in victims)
        return Evicted(rows, freed)


def _until(rows: Sequence[tuple[int, int, Any]], size: int) -> list[tuple[int, int, Any]]:
    """The first rows, as many as it takes to reach `size` bytes."""
    taken = []
    for row in rows:
        if size <= 0:
            break
        taken.append(row)
        size -= row[1]
    return taken


def is_damaged(error: BaseException) -> bool:
    """Whether an error means that the database is broken for good, and must be made anew."""
    return _sqlite_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_busy(error: BaseException) -> bool:
    """Whether an error means that another program held the database for too long."""
    busy = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return isinstance(error, Timeout) or _sqlite_code(error) in busy


def is_full(error: BaseException) -> bool:
    """Whether an error may mean that the disk is full: SQLite says so in two ways."""
    return _sqlite_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _sqlite_code(error: BaseException) -> int:
    """SQLite's primary result code (the low byte of the extended one); 0 when there is none."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def remove_database(directory: Path) -> None:
    """Remove a broken database; its value files become orphans. Raises OSError."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (directory / f"{DATABASE}{suffix}").unlink(missing_ok=True)


def sacrifice(directory: Path, size: int) -> None:
    """Remove value files, whichever come first, of `size` bytes or more; their rows miss."""
    for filename in directory.glob("[0-9a-f][0-9a-f]/*"):
        if size <= 0:
            break
        if is_value_name(f"{filename.parent.name}/{filename.name}"):
            size -= filename.stat().st_size
            filename.unlink(missing_ok=True)
