"""What is known of the bucket, kept on local disk from one mount to the next.

A directory is read back when somebody first comes to it, and counts as if it had been in
memory all the time: what is older than its time-to-live is not taken. What was learned
since is written now and then, and at the end, so that a mount that is killed loses only
the last part.

INVARIANTS
- A directory that changed since it was read or written is not read: what is on disk is
  older than what was shown already.
- Times are kept by the wall clock. One that was set back makes nothing fresh: when it shows
  a time before the last writing, all that was kept is forgotten.

Must not know: inodes, files, SQLite.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator

import trio

from s3mount.cache.name_rows import Row
from s3mount.cache.name_store import NameStore
from s3mount.namespace.directory import Directory
from s3mount.namespace.stretch import recall, stretches

log = logging.getLogger(__name__)

# Seconds between two writings; more where one takes long, for a share of the time at most.
EVERY = 3.0
SHARE = 0.05
# Written at once: a few ms of work for the thread that serves the mount, and then others' turn.
BATCH_BYTES = 256 * 1024
BATCH_DIRECTORIES = 100


class Remembered:
    """Reads directories from the store, and writes those that changed."""

    def __init__(
        self, store: NameStore, *, ttl: float, wall: Callable[[], float] = time.time
    ) -> None:
        """`ttl`: what was learned longer ago is of no use; `wall`: seconds since the epoch."""
        self._store = store
        self._ttl = ttl
        self._wall = wall
        self._changed: dict[str, Directory] = {}
        self._writing: dict[str, Directory] = {}
        self._is_failing = False
        saved = store.saved
        self._went_back = saved is not None and saved > wall()
        # Otherwise no look at the disk is worth its 10 us.
        self._is_worth_reading = saved is not None and not self._went_back and saved + ttl >= wall()

    def recall(self, directory: Directory) -> bool:
        """Have a directory of which nothing is known know what was kept; False: nothing was."""
        prefix = directory.prefix
        if not self._is_worth_reading or prefix in self._changed or prefix in self._writing:
            return False
        stored = self._store.read(prefix)
        recall(directory, stored, clock=self._clock, now=self._wall(), ttl=self._ttl)
        return directory.known.oldest() is not None

    def changed(self, directory: Directory) -> None:
        """Something was learned, or is in doubt, of the directory: write it in time."""
        self._changed[directory.prefix] = directory

    def emptied(self, gone: Directory) -> None:
        """What was known of a directory that stays is here now, and no longer in memory."""
        for waiting in (self._changed, self._writing):
            if gone.prefix in waiting:
                waiting[gone.prefix] = gone

    def dropped(self, directory: Directory) -> None:
        """The directory is no longer in memory."""
        if self._is_failing and directory.prefix in self._changed:
            # It must not stay for as long as nothing can be written: nothing is kept of it.
            self._changed[directory.prefix] = Directory(directory.prefix)

    async def keep(self) -> None:
        """Write what changed, now and then, until cancelled."""
        pause = EVERY
        while True:
            await trio.sleep(pause)
            started = trio.current_time()
            await self.save()
            pause = max(EVERY, (trio.current_time() - started) / SHARE)

    async def save(self) -> None:
        """Write what changed since the last time. A failure is the store's to tell."""
        if self._went_back:
            log.warning("the clock was set back: names of the last mount are listed anew")
            self._went_back = not await self._store.forget()
        if not self._changed:
            return
        # What the writing that failed has left, too: changed again or not, it is written.
        self._writing, self._changed = self._changed, {}
        is_done = await self._write(self._writing.values()) and await self._store.shrink()
        if is_done:
            self._is_worth_reading = True
        else:
            self._changed = self._writing | self._changed
        self._writing = {}
        self._is_failing = not is_done

    async def _write(self, directories: Iterable[Directory]) -> bool:
        batch: list[Row] = []
        size = 0
        for directory in directories:
            for row in self._rows(directory):
                batch.append(row)
                size += len(row.data or b"")
                if size >= BATCH_BYTES or len(batch) >= BATCH_DIRECTORIES:
                    if not await self._store.write(batch, self._wall()):
                        return False
                    batch, size = [], 0
        return not batch or await self._store.write(batch, self._wall())

    def _rows(self, directory: Directory) -> Iterator[Row]:
        """What is to be kept of the directory, in place of all that was."""
        generation = random.getrandbits(62)
        number = 0
        for stretch in stretches(directory, self._clock):
            yield Row(directory.prefix, number, generation, *stretch)
            number += 1
        if number == 0:
            yield Row(directory.prefix, 0, generation, 0.0, None)

    @property
    def _clock(self) -> float:
        """What the wall clock is ahead of trio's."""
        return self._wall() - trio.current_time()
