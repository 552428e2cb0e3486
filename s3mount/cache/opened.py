"""A database in use, and what is known of its rows for as long as it is the one in use.

Lives on the trio thread; its background work has a thread of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import outcome
import trio

from s3mount.cache.block_disk import MIN_DIRECT, key_digest
from s3mount.cache.jobs import Connections, Want
from s3mount.cache.key_filter import KnownKeys
from s3mount.cache.recent_rows import RecentRows
from s3mount.cache.row_index import RowIndex
from s3mount.cache.threads import Threads
from s3mount.cache.upkeep import Upkeep


class Opened:
    """What is known ends with the database: another one may hold other rows."""

    def __init__(self, index: RowIndex, connections: Connections, background: Threads) -> None:
        self.index = index
        self.keys = KnownKeys()
        self.recent = RecentRows()
        self.is_looking_around = False  # a thread looks up what a stream may ask for next
        soon = trio.lowlevel.current_trio_token().run_sync_soon
        self._upkeep = Upkeep(
            connections,
            index,
            learned=lambda keys: soon(self.keys.learn, keys),
            added=lambda digests: soon(self.keys.add, digests),
        )
        background.submit(self._upkeep.run, _ended)

    def wants(self, rows: Sequence[tuple[str, memoryview]]) -> list[Want]:
        """What to read, with what is known of where it is."""
        return [Want(key, buffer, self.recent.where(key_digest(key))) for key, buffer in rows]

    def is_to_look_around(self, wants: Sequence[Want]) -> bool:
        """Whether to look up, with these rows, what was written around them; notes that it is.

        One thread at a time: the many reads of a stream would all find the same.
        """
        _, buffer, known = wants[-1]
        if self.is_looking_around or known is not None or len(buffer) < MIN_DIRECT:
            return False
        self.is_looking_around = True
        return True

    def leave(self) -> None:
        """End the background work: the database is of no more use."""
        self._upkeep.stop.set()


def _ended(_: outcome.Outcome[None]) -> None:
    """Without the background work the cache is a bit slower, and no less right."""
