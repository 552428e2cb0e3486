"""The rows of the cache: which keys are kept, where, and which of them to give up first.

A `diskcache.Cache` with the settings that fit, and the things that it does not offer:
value files that several rows share, many rows in one statement, eviction in batches by a
recency that is learned elsewhere, and access to rows by digest. Called in the cache's threads.

The rows of a file come and go together: in a table of its own a file has the range of its
rows, and when one of them was last used. So a row needs no index but that of its key.

INVARIANTS
- The database alone says what is kept, and every change is one transaction: several
  daemons may use one directory. A file without its row is an orphan; a row without
  its file is a miss.
- A file is removed after its rows were, in this order, and written before them.
- The sizes of a file's rows add up to what the file occupies.
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diskcache import Cache, Timeout

from s3mount.cache.block_disk import (
    DIGEST_SIZE,
    LABEL_SIZE,
    MODE_BINARY,
    BadRow,
    BlockDisk,
    StoredBlock,
    disk_usage,
    is_value_name,
    key_digest,
)

# What the database and diskcache raise when they cannot do what was asked.
IndexFailure = (sqlite3.Error, Timeout)

DATABASE = "cache.db"  # diskcache.core.DBNAME
_LAYOUT = 1  # in the database's user_version; what has another is made anew

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

_FILES = (
    "CREATE TABLE Files (name TEXT PRIMARY KEY, first, last, size, used) WITHOUT ROWID",
    "CREATE INDEX Files_used ON Files (used)",
    f"PRAGMA user_version = {_LAYOUT}",
)
# A rowid may be given again when the last rows are gone, so the range alone does not do.
_DELETE_ROWS = "DELETE FROM Cache WHERE rowid BETWEEN ? AND ? AND filename = ?"

_EVICT_ROWS = 500  # and files, per transaction: some 13 ms, which other daemons wait for

Sql = Callable[..., sqlite3.Cursor]

Victim = tuple[int, int, str, int, int]  # a file: size, rows, name, first and last row
Place = Sequence[Any]  # the columns `mode`, `filename`, `value` of a row, not looked at yet


class OtherLayout(sqlite3.DatabaseError):
    """The database is one of another version of this program."""


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
            ((tables,),) = other.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
            ((layout,),) = other.execute("PRAGMA user_version").fetchall()
            if tables and layout != _LAYOUT:
                raise OtherLayout(f"layout {layout}, not {_LAYOUT}")
            try:
                super().__init__(
                    str(directory),
                    timeout=_BUSY_TIMEOUT,
                    disk=BlockDisk,
                    size_limit=size_limit,
                    **_SETTINGS,
                )
                for statement in () if tables else _FILES:
                    self._sql(statement)
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
                digest, label = bytes.fromhex(row[:32]), bytes.fromhex(row[-2 * LABEL_SIZE :])
                name = row[32 : -2 * LABEL_SIZE]
                blocks.append((digest, self.disk.fetch(MODE_BINARY, name, label, read=True)))
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
        """Whether there are rows of the value file `filename`."""
        return bool(self._sql("SELECT 1 FROM Files WHERE name = ?", (filename,)).fetchall())

    def insert(self, blocks: Sequence[tuple[str, StoredBlock]]) -> None:
        """Make rows of all blocks of files that `BlockDisk.write` wrote.

        Those that are rows already stay where they are; a file of nothing else is removed. On
        failure, all are. As few statements as can be: each gives up the interpreter's lock,
        and must get it back, beside a stream. Raises `IndexFailure`.
        """
        try:
            with self._transact() as (sql, cleanup):
                held = set(self.places([key for key, _ in blocks]))
                values: list[object] = []
                files: list[tuple[str, int, int]] = []
                now = time.time()
                for filename, parts in _by_file(blocks).items():
                    new = {digest: block for digest, block in parts if digest not in held}
                    if not new:
                        cleanup(filename)
                        continue
                    held.update(new)
                    size = disk_usage(sum(block.length for _, block in parts))
                    files.append((filename, len(new), size))
                    sizes = [block.length for block in new.values()]
                    sizes[0] += size - sum(sizes)  # what the file occupies beyond them
                    for (digest, block), counted in zip(new.items(), sizes, strict=True):
                        _, *columns = self.disk.store(block, read=False)
                        values += (digest, True, now, counted, *columns)
                if values:
                    marks = ",".join(["(?,?,?,?,?,?,?)"] * (len(values) // 7))
                    last = sql(
                        "INSERT INTO Cache (key, raw, store_time, size, mode, filename, value)"
                        f" VALUES {marks}",
                        values,
                    ).lastrowid
                    _insert_files(sql, files, last - len(values) // 7, now)
        except BaseException:
            self.remove_files(blocks)
            raise

    def remove_files(self, blocks: Iterable[tuple[str, StoredBlock]]) -> None:
        """Remove files that were written and do not become rows."""
        for filename in {block.filename for _, block in blocks}:
            self.disk.remove(filename)

    def discard(self, keys: Iterable[str]) -> None:
        """Remove the rows of `keys`, their files, and all that is in them."""
        with self._transact() as (sql, cleanup):
            for key in keys:
                found = (key_digest(key), True)
                for (name,) in sql(
                    "SELECT filename FROM Cache WHERE key = ? AND raw = ?", found
                ).fetchall():
                    cleanup(name if isinstance(name, str) else None)
                    for first, last in sql(
                        "SELECT first, last FROM Files WHERE name = ?", (name,)
                    ).fetchall():
                        sql(_DELETE_ROWS, (first, last, name))
                    sql("DELETE FROM Files WHERE name = ?", (name,))
                sql("DELETE FROM Cache WHERE key = ? AND raw = ?", found)

    def touch_all(self, times: Mapping[str, float]) -> None:
        """Note when files were last used (seconds since the epoch)."""
        with self._transact() as (sql, _):
            for name, when in times.items():
                sql("UPDATE Files SET used = ? WHERE name = ?", (when, name))

    def volume(self) -> int:
        """Bytes in use on disk: value files, and the database's pages that hold something."""
        ((pages,),) = self._sql("PRAGMA page_count").fetchall()
        ((free,),) = self._sql("PRAGMA freelist_count").fetchall()
        return int(self.reset("size")) + int(pages - free) * int(self._page_size)

    def evict(self, size: int) -> Evicted:
        """Give up the least recently used files, `size` bytes of them or more, if there are."""
        rows, freed = 0, 0
        while freed < size:
            with self._transact() as (sql, cleanup):
                oldest = sql(
                    "SELECT size, last - first + 1, name, first, last FROM Files"
                    " ORDER BY used LIMIT ?",
                    (_EVICT_ROWS,),
                ).fetchall()
                victims = _until(oldest, size - freed)
                if not victims:
                    break
                for _, _, name, first, last in victims:
                    rows += sql(_DELETE_ROWS, (first, last, name)).rowcount
                    cleanup(name)
                marks = ",".join("?" * len(victims))
                names = [victim[2] for victim in victims]
                sql(f"DELETE FROM Files WHERE name IN ({marks})", names)
            freed += sum(victim[0] for victim in victims)
        return Evicted(rows, freed)


def _by_file(
    blocks: Sequence[tuple[str, StoredBlock]],
) -> dict[str, list[tuple[bytes, StoredBlock]]]:
    """Blocks with their digests, by file."""
    files: dict[str, list[tuple[bytes, StoredBlock]]] = {}
    for key, block in blocks:
        files.setdefault(block.filename, []).append((key_digest(key), block))
    return files


def _insert_files(sql: Sql, files: Sequence[tuple[str, int, int]], last: int, now: float) -> None:
    """Note files of so many rows and bytes, whose rows follow the row `last`."""
    values: list[object] = []
    for name, rows, size in files:
        values += (name, last + 1, last + rows, size, now)
        last += rows
    marks = ",".join(["(?,?,?,?,?)"] * len(files))
    sql(f"INSERT INTO Files (name, first, last, size, used) VALUES {marks}", values)


def _until(files: Sequence[Victim], size: int) -> list[Victim]:
    """The first files, as many as it takes to reach `size` bytes, or enough at a time."""
    taken: list[Victim] = []
    work = 0
    for file in files:
        if size <= 0 or work >= _EVICT_ROWS:
            break
        taken.append(file)
        size -= file[0]
        work += 1 + file[1]
    return taken


def is_damaged(error: BaseException) -> bool:
    """Whether an error means that the database is of no use for good, and must be made anew."""
    broken = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, OtherLayout) or _sqlite_code(error) in broken


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
