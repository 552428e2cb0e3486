"""What the cache does in the background: learns which keys there are, sweeps orphans.

Runs in a thread of its own for as long as the database is open, in small steps with
pauses between them: a million rows are learned in some 15 s, and swept in some two minutes, and a
reader that needs the interpreter meanwhile waits for one step, about 1 ms.

INVARIANTS
- Only value files are removed, only those that no row names, and only when they are
  old: a younger one may be another daemon's, whose row is about to be committed.
- What is learned is handed over as plain values.

Knows no trio.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from threading import Event

from s3mount.cache.block_disk import is_value_name
from s3mount.cache.jobs import Connections
from s3mount.cache.key_filter import KeyFilter
from s3mount.cache.row_index import IndexFailure, RowIndex

log = logging.getLogger(__name__)

_STEP_KEYS = 1000
_STEP_FILES = 50
_PAUSE = 0.005  # seconds between steps
_POLL = 1.0  # seconds after which another daemon's new rows are seen
_MIN_CAPACITY = 1 << 16
_ORPHAN_AGE = 3600.0  # seconds; a writer has its rows committed within one, or never
_ORPHAN_AGE_FRESH = 10.0  # when the database is new, and what was there before is not in it
# The second sweep finds what was too young for the first: the orphans of a crash.
_SECOND_SWEEP = 65 * 60.0
_SWEEP_PERIOD = 24 * 3600.0

Learned = Callable[[KeyFilter], None]
Added = Callable[[bytes], None]


class Upkeep:
    """The background work for one open database, until `stop` is set."""

    def __init__(
        self, connections: Connections, index: RowIndex, *, learned: Learned, added: Added
    ) -> None:
        """`learned(filter)` gives a new filter of all keys, `added(digests)` further keys.

        Both are called in the thread that runs `run`.
        """
        self.stop = Event()
        self._connections = connections
        self._index = index
        self._learned = learned
        self._added = added
        self._last = 0  # rowid of the last row that was learned
        self._count = 0  # keys in the filter
        self._capacity = 0

    def run(self) -> None:
        """Learn, sweep, and go on learning what others add. Ends when `stop` is set.

        A failure ends it too: without it the cache is a bit slower and no less right.
        """
        try:
            self._connections.use(self._index)
            orphan_age = _ORPHAN_AGE if self._index.rows() else _ORPHAN_AGE_FRESH
            sweep_at = time.monotonic()
            following = _SECOND_SWEEP
            while not self.stop.is_set():
                if self._count >= self._capacity:
                    self._learn_all()
                else:
                    self._learn_new()
                if time.monotonic() >= sweep_at:
                    sweep(self._index, self.stop, orphan_age)
                    sweep_at = time.monotonic() + following
                    orphan_age, following = _ORPHAN_AGE, _SWEEP_PERIOD
                self.stop.wait(_POLL)
        except (*IndexFailure, OSError) as error:
            log.info("the background work on the cache ended: %s", error)

    def _learn_all(self) -> None:
        """Make a filter of all rows, with room for as many again.

        Keys that are put meanwhile are met at the end of the scan, or by `_learn_new`.
        """
        self._capacity = max(_MIN_CAPACITY, 2 * self._index.rows())
        keys = KeyFilter(self._capacity)
        self._last = self._count = 0
        while digests := self._next_digests():
            keys.add_all(digests)
            if self.stop.wait(_PAUSE):
                return
        self._learned(keys)

    def _learn_new(self) -> None:
        # Rowids grow, unless the newest rows were deleted.
        self._last = min(self._last, self._index.last_rowid())
        while digests := self._next_digests():
            self._added(digests)
            if self.stop.wait(_PAUSE):
                return

    def _next_digests(self) -> bytes:
        self._last, digests = self._index.digests_after(self._last, _STEP_KEYS)
        self._count += len(digests)
        return b"".join(digests)


def sweep(index: RowIndex, stop: Event, orphan_age: float) -> int:
    """Remove value files without a row that are older than `orphan_age` s. How many were."""
    removed = 0
    for number in range(256):
        directory = f"{number:02x}"
        try:
            names = os.listdir(f"{index.directory}/{directory}")
        except FileNotFoundError:
            continue
        for start in range(0, len(names), _STEP_FILES):
            filenames = [f"{directory}/{name}" for name in names[start : start + _STEP_FILES]]
            removed += sum(map(partial(_remove_orphan, index, orphan_age), filenames))
            if stop.wait(_PAUSE):
                return removed
    if removed:
        log.info("%d orphaned files removed from the cache", removed)
    return removed


def _remove_orphan(index: RowIndex, orphan_age: float, filename: str) -> bool:
    if not is_value_name(filename) or index.names(filename):
        return False
    try:
        age = time.time() - os.stat(f"{index.directory}/{filename}").st_mtime
    except FileNotFoundError:
        return False
    if age < orphan_age:
        return False
    index.disk.remove(filename)
    return True
