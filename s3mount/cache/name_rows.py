"""The rows in which names are kept on local disk: one SQLite database for all mounts of a cache.

A row is a stretch of a directory, as bytes that mean nothing here. It belongs to a source
(what was mounted, by whom) and a directory (a prefix).

INVARIANTS
- `read` gives the stretches of one `write`, in order, each with the bytes that were written
  for that source, directory and number (a checksum seeded with all three), or none.
- Every `write` is one transaction, and several mounts may use the database: what one
  overwrites of another's is lost, and nothing is mixed.
- Nothing is ever pickled or unpickled.

Knows no trio, no S3, and not what a name is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from s3mount.cache.block_disk import key_digest

DATABASE = "names.db"
VERSION = 1  # of the tables and of what is in them

# Seconds that the writer waits for another mount's transaction. The reader never does: it
# is the thread that serves the mount, and what it cannot have at once it lists.
BUSY_TIMEOUT = 5.0
_CHECKSUM_SIZE = 8
_EVICT_ROWS = 100  # per transaction: some 50 MiB at the most

_TABLES = """
CREATE TABLE IF NOT EXISTS stretch (
    source BLOB, prefix BLOB, number INTEGER, generation INTEGER, learned REAL, data BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS stretch_of ON stretch (source, prefix, number);
CREATE INDEX IF NOT EXISTS stretch_learned ON stretch (learned);
CREATE TABLE IF NOT EXISTS source (source BLOB PRIMARY KEY, saved REAL);
"""


class Damaged(Exception):
    """A row that was not written so, or a database of something else."""


class Row(NamedTuple):
    """One stretch of a directory; number 0 replaces all that was kept of the directory."""

    prefix: str
    number: int
    generation: int  # one for all stretches that were written together
    learned: float  # seconds since the epoch
    data: bytes | None  # None: nothing is kept any more


class NameRows:
    """One connection to the database, for one source; used by one thread at a time."""

    def __init__(self, directory: Path, source: str, *, timeout: float = 0.0) -> None:
        """Open the database, or create it. Raises sqlite3.Error, `Damaged`."""
        self._source = key_digest(source)
        self._connection = sqlite3.connect(
            directory / DATABASE, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        ((version,),) = self._connection.execute("PRAGMA user_version").fetchall()
        if version == VERSION:
            return
        if version != 0 or self._connection.execute("SELECT 1 FROM sqlite_master").fetchall():
            raise Damaged("it is of another version, or another program's")
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.executescript(_TABLES)
        self._connection.execute(f"PRAGMA user_version={VERSION}")

    def use(self) -> None:
        """Set this connection up for writing."""
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA journal_size_limit=8388608")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def saved(self) -> float | None:
        """When something of this source was last written; None: never."""
        query = "SELECT saved FROM source WHERE source = ?"
        found = self._connection.execute(query, (self._source,)).fetchone()
        return None if found is None else float(found[0])

    def read(self, prefix: str) -> list[bytes]:
        """The stretches of a directory, in order. Raises sqlite3.Error, `Damaged`."""
        query = (
            "SELECT number, generation, data FROM stretch WHERE source = ? AND prefix = ? "
            "ORDER BY number"
        )
        rows = self._connection.execute(query, (self._source, _encoded(prefix))).fetchall()
        generation = rows[0][1] if rows else 0
        stretches = []
        for number, of, data in rows:
            if type(data) is not bytes or self._checksum(prefix, number, data[8:]) != data[:8]:
                raise Damaged(f"a stretch of {prefix!r} does not have its checksum")
            if of == generation:
                stretches.append(data[_CHECKSUM_SIZE:])
        return stretches

    def write(self, rows: Sequence[Row], saved: float) -> None:
        """Write the rows in one transaction, as of the time `saved`. Raises sqlite3.Error."""
        with self._connection:
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            for row in rows:
                key = (self._source, _encoded(row.prefix))
                if row.number == 0:
                    execute("DELETE FROM stretch WHERE source = ? AND prefix = ?", key)
                if row.data is None:
                    continue
                data = self._checksum(row.prefix, row.number, row.data) + row.data
                execute(
                    "INSERT OR REPLACE INTO stretch VALUES (?, ?, ?, ?, ?, ?)",
                    (*key, row.number, row.generation, row.learned, data),
                )
            # A clock that was set back must not hide that it was.
            execute(
                "INSERT INTO source VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET saved = max(saved, excluded.saved)",
                (self._source, saved),
            )

    def forget(self) -> None:
        """Nothing of this source is kept any more. Raises sqlite3.Error."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM stretch WHERE source = ?", (self._source,))
            self._connection.execute("DELETE FROM source WHERE source = ?", (self._source,))

    def shrink(self, size_limit: int) -> None:
        """Give up what was learned longest ago, of any source, until the limit is kept."""
        while self._volume() > size_limit:
            deleted = self._connection.execute(
                "DELETE FROM stretch WHERE rowid IN "
                "(SELECT rowid FROM stretch ORDER BY learned LIMIT ?)",
                (_EVICT_ROWS,),
            )
            if not deleted.rowcount:
                return

    def _volume(self) -> int:
        """Bytes of the database's pages that hold something."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _checksum(self, prefix: str, number: int, data: bytes) -> bytes:
        place = self._source + number.to_bytes(8, "little") + _encoded(prefix)
        return xxh3_64_intdigest(data, xxh3_64_intdigest(place)).to_bytes(_CHECKSUM_SIZE, "little")


def _encoded(prefix: str) -> bytes:
    return prefix.encode("utf-8", "surrogatepass")
