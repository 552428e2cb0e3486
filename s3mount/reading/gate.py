"""Who gets a connection first: runs that a reader waits for, then those read ahead.

INVARIANTS
- No more runs than `connections` are inside.
- A run read ahead does not enter while an urgent one waits, and leaves `RESERVED` of the
  connections to the urgent ones.
- Among equals, who was sent off first goes first: no stream starves.

Touched on the trio thread alone.
"""

from __future__ import annotations

from operator import attrgetter

import trio

from s3mount.reading.run import Run

# A share: an urgent run should not have to wait for one of 4 MiB to end.
RESERVED = 1 / 8


class Gate:
    """Admits runs, as many at once as there are connections."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._for_all = max(1, connections - int(connections * RESERVED))
        self._inside = 0
        self._urgent: dict[Run, None] = {}  # waiting
        self._others: dict[Run, None] = {}

    @property
    def is_crowded(self) -> bool:
        """Whether a run read ahead is waiting."""
        return bool(self._others)

    async def enter(self, run: Run) -> None:
        """Wait for a connection; `leave` must follow, unless this is cancelled."""
        limit = self._connections if run.urgent else self._for_all
        if self._inside < limit and not self._urgent and (run.urgent or not self._others):
            self._inside += 1  # the usual case
            return
        admitted = run.admitted = trio.Event()
        (self._urgent if run.urgent else self._others)[run] = None
        self._admit()
        if admitted.is_set():
            return
        try:
            await admitted.wait()
        except trio.Cancelled:
            if run in self._urgent or run in self._others:
                self._urgent.pop(run, None)
                self._others.pop(run, None)
            else:  # admitted, and cancelled before it could go
                self.leave()
            raise

    def leave(self) -> None:
        """A run needs its connection no more."""
        self._inside -= 1
        self._admit()

    def promote(self, run: Run) -> None:
        """A reader waits for this run now."""
        run.urgent = True
        if run in self._others:
            del self._others[run]
            self._urgent[run] = None
            self._admit()

    def _admit(self) -> None:
        """Let in who may enter now."""
        while self._urgent and self._inside < self._connections:
            self._let_in(self._urgent)
        while self._others and self._inside < self._for_all:
            self._let_in(self._others)

    def _let_in(self, queue: dict[Run, None]) -> None:
        run = min(queue, key=attrgetter("number"))
        del queue[run]
        self._inside += 1
        assert run.admitted is not None
        run.admitted.set()
        run.admitted = None
