"""One run: a row of sectors that one ranged GET brings, and how far it has come.

Runs are what compete for connections, and what is ended when nobody wants them any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import trio

from s3mount.reading.blocks import Part

# Of a run that nobody wants any more, so much may still come: ending the connection costs a
# handshake, which is a round trip or three, and brings nothing.
NEARLY_DONE = 512 * 1024


_numbers = count()


class Run:
    """A row of parts of one content; `landed` of them are here."""

    __slots__ = ("admitted", "is_dropped", "landed", "number", "parts", "scope", "urgent")

    def __init__(self, parts: list[Part], *, urgent: bool) -> None:
        self.parts = parts
        self.number = next(_numbers)  # trio starts tasks in any order; runs go in this one
        self.urgent = urgent
        self.landed = 0
        self.scope = trio.CancelScope()
        self.is_dropped = False
        self.admitted: trio.Event | None = None  # set while it waits for a connection

    @property
    def left(self) -> list[Part]:
        """The parts that are still on their way."""
        return self.parts[self.landed :]

    def brings(self, block: int, mask: int) -> bool:
        """Whether any of these sectors of that block are on their way in it."""
        return any(part.block == block and part.mask & mask for part in self.left)

    def is_within(self, blocks: Iterable[int]) -> bool:
        """Whether all that is on its way belongs to these blocks."""
        return all(part.block in blocks for part in self.left)

    def drop(self) -> None:
        """Nobody wants it any more: end it."""
        self.is_dropped = True
        self.scope.cancel()
