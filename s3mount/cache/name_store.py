"""Names on local disk: read at once by the thread that serves the mount, written by another.

A failure of any kind is one warning, and means that nothing is kept: the mount lists what
it would have read. A database that is damaged is removed, and made anew.

INVARIANT: no method raises but for what the caller did wrong.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from s3mount.cache.directory import prepare
from s3mount.cache.jobs import sole_opener
from s3mount.cache.name_rows import BUSY_TIMEOUT, DATABASE, Damaged, NameRows, Row
from s3mount.cache.row_index import is_damaged
from s3mount.cache.threads import Threads

log = logging.getLogger(__name__)

T = TypeVar("T")


class NameStore:
    """The names of one source in the database of a cache directory."""

    def __init__(self, directory: Path, source: str, *, size_limit: int) -> None:
        """Use `open`. Starts the thread."""
        self._directory = directory
        self._source = source
        self._size_limit = size_limit
        self._thread = Threads("names", 1, at_exit=self._close_writer)
        self._reader: NameRows | None = None
        self._writer: NameRows | None = None
        self._has_failed = False  # and was said to, and has not done well since
        self.saved: float | None = None  # when names of this source were written before we came

    @classmethod
    async def open(cls, directory: Path, source: str, *, size_limit: int) -> NameStore:
        """Open the database in `directory`, or create both.

        `source` tells what is mounted, in any words: names are for the same words only.
        Raises `UsageError` for a directory that cannot be a cache.
        """
        store = cls(directory, source, size_limit=size_limit)
        try:
            store._reader = await store._thread.run(store._open)
            if store._reader is not None:
                store.saved = store._tried(store._reader.saved, None)
        except BaseException:
            await store.aclose()
            raise
        return store

    def read(self, prefix: str) -> list[bytes]:
        """What was kept of the directory `prefix`, stretch by stretch."""
        if self._reader is None:
            return []
        return self._tried(partial(self._reader.read, prefix), [])

    async def write(self, rows: Sequence[Row], saved: float) -> bool:
        """Keep these rows; False when that failed."""
        return await self._do(lambda writer: writer.write(rows, saved))

    async def shrink(self) -> bool:
        """Keep within the limit."""
        return await self._do(lambda writer: writer.shrink(self._size_limit))

    async def forget(self) -> bool:
        """Keep nothing of what was kept of this source."""
        return await self._do(NameRows.forget)

    async def aclose(self) -> None:
        """End the thread, and close the database."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await self._thread.aclose()

    # --- on the trio thread --------------------------------------------------------

    def _tried(self, call: Callable[[], T], otherwise: T) -> T:
        try:
            return call()
        except (sqlite3.Error, Damaged) as error:
            self._stop_reading(error)
            return otherwise

    def _stop_reading(self, error: Exception) -> None:
        log.warning("names of the last mount cannot be read, and are listed anew: %s", error)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if _is_broken(error):
            self._thread.submit(self._remove, lambda _: None)

    async def _do(self, job: Callable[[NameRows], object]) -> bool:
        error = await self._thread.run(partial(self._attempt, job))
        if error is None:
            self._has_failed = False
        elif not self._has_failed:
            self._has_failed = True
            log.warning("names cannot be kept for the next mount: %s", error)
        return error is None

    # --- in the thread ---------------------------------------------------------------

    def _open(self) -> NameRows | None:
        """A connection for reading; None when there is none to be had."""
        problem = prepare(self._directory)
        if problem:
            self._warn(problem)
            return None
        try:
            return self._open_or_mend(0.0)
        except (sqlite3.Error, Damaged, OSError) as error:
            self._warn(error)
            return None

    def _warn(self, problem: object) -> None:
        self._has_failed = True
        log.warning("names cannot be kept for the next mount: %s", problem)

    def _open_or_mend(self, timeout: float) -> NameRows:
        with sole_opener(self._directory):
            try:
                return NameRows(self._directory, self._source, timeout=timeout)
            except (sqlite3.Error, Damaged) as error:
                if not _is_broken(error):
                    raise
                log.warning("names of the last mount are lost, and listed anew: %s", error)
                self._unlink()
                return NameRows(self._directory, self._source, timeout=timeout)

    def _attempt(self, job: Callable[[NameRows], object]) -> Exception | None:
        """Do the job; returns what kept it from being done."""
        try:
            if self._writer is None:
                self._writer = self._open_or_mend(BUSY_TIMEOUT)
                self._writer.use()
            job(self._writer)
        except (sqlite3.Error, Damaged, OSError) as error:
            if _is_broken(error):
                self._remove()
            return error
        return None

    def _remove(self) -> None:
        """Remove a damaged database; the next write makes a new one."""
        self._close_writer()
        try:
            with sole_opener(self._directory):
                self._unlink()
        except OSError as error:
            log.info("the damaged database of names cannot be removed: %s", error)

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            (self._directory / f"{DATABASE}{suffix}").unlink(missing_ok=True)

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _is_broken(error: Exception) -> bool:
    return isinstance(error, Damaged) or is_damaged(error)
