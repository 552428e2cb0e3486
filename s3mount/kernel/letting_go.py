"""Has the kernel let go of names, in a thread: it may wait for a process that waits for us.

A name that the kernel holds holds an inode here. Under `--memory-limit` a walk shows the kernel
more names than there may be, so it has to go no faster than the kernel lets go: else 100,000
names that wait for it would take more memory than names that stay.

INVARIANT: a walk waits at most `PATIENCE` for each directory. What it waits for may be held up
by a process that stands in a lookup, and that one must not wait for ever.
"""

from __future__ import annotations

import logging
from collections import deque

import pyfuse3
import trio
from pyfuse3 import FileNameT, InodeT

log = logging.getLogger(__name__)

# Names that may wait for the kernel before walks wait for them.
MOST = 2000
PATIENCE = 0.2  # seconds
# Names per hop to the thread.
BATCH = 500


class LettingGo:
    """The names that the kernel is to forget, first in, first out."""

    def __init__(self) -> None:
        self._names: deque[tuple[int, str]] = deque()
        self._some = trio.Event()
        self._few = trio.Event()
        self._has_ended = False

    def ask(self, ino: int, names: list[str]) -> None:
        """Have the kernel forget these names of the directory `ino`, soon."""
        self._names.extend((ino, name) for name in names)
        self._some.set()

    async def catch_up(self) -> None:
        """Wait while very many names wait for the kernel, but not for long."""
        if len(self._names) > MOST:
            with trio.move_on_after(PATIENCE):
                await self._few.wait()

    async def run(self) -> None:
        """Tell the kernel, until cancelled."""
        try:
            while True:
                await self._some.wait()
                while self._names:
                    count = min(BATCH, len(self._names))
                    batch = [self._names.popleft() for _ in range(count)]
                    # Abandoned at the end: who holds it up may be waiting for our end.
                    await trio.to_thread.run_sync(self._tell, batch, abandon_on_cancel=True)
                    if len(self._names) <= MOST:
                        self._few.set()
                        self._few = trio.Event()
                self._some = trio.Event()
        finally:
            self._has_ended = True

    def _tell(self, batch: list[tuple[int, str]]) -> None:
        for ino, name in batch:
            if self._has_ended:
                return
            try:
                pyfuse3.invalidate_entry(InodeT(ino), FileNameT(name.encode()))
            except OSError as error:  # ENOENT: the kernel does not know it any more
                log.debug("%r in inode %d is not forgotten: %s", name, ino, error)
