"""One block of one version of an object, in memory, and the file it belongs to.

INVARIANTS
- `have` and `flying` are disjoint: a sector is absent, on its way, or here.
- A sector in `have` never changes again: it is bytes of one version.

Touched on the trio thread alone; a GET writes only into sectors that are `flying`.
"""

from __future__ import annotations

import hashlib

import trio

from s3mount.model import ObjectInfo
from s3mount.reading.run import Run


class Content:
    """The bytes of one version of one object, as far as they are in memory."""

    # __weakref__: the fetcher finds contents for as long as a handle or a block keeps them
    __slots__ = ("__weakref__", "blocks", "info", "readers", "runs", "version", "version_id")

    def __init__(self, info: ObjectInfo, scope: str) -> None:
        self.info = info
        self.version_id = info.version_id
        self.version = version_of(info, scope)
        self.blocks: dict[int, Block] = {}
        self.runs: set[Run] = set()  # those that are not over
        self.readers = 0  # handles that have it open


def version_of(info: ObjectInfo, scope: str) -> str:
    """What names this version of this object in the cache on disk.

    `scope` tells buckets and endpoints apart that share a cache directory.
    """
    parts = (scope, info.key, info.etag, str(info.size))
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


class Block:
    """The buffer of one block, and which of its sectors are here."""

    __slots__ = ("_lot", "born", "buffer", "content", "failure", "flying", "have", "index",
                 "pins", "slot", "waiters")  # fmt: skip

    def __init__(self, content: Content, index: int) -> None:
        self.content = content
        self.index = index
        self.buffer = memoryview(b"")  # `Memory` gives it one
        self.slot: int | None = None  # of Memory's arena
        self.have = 0
        self.flying = 0
        self.pins = 0  # held by the cache writer
        self.waiters = 0
        self.born = trio.current_time()
        self.failure: Exception | None = None  # of the last flight that did not land
        self._lot: trio.lowlevel.ParkingLot | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody writes into it, reads it elsewhere, or waits for it."""
        return not (self.flying or self.pins or self.waiters)

    @property
    def is_current(self) -> bool:
        """Whether its content still has it: it was not evicted."""
        return self.content.blocks.get(self.index) is self

    def take_off(self, mask: int) -> None:
        """These sectors are on their way."""
        self.flying |= mask
        self.failure = None

    def land(self, mask: int) -> None:
        """These sectors are here: wake who waits."""
        self.flying &= ~mask
        self.have |= mask
        self._wake()

    def turn_back(self, mask: int) -> None:
        """These sectors are not on their way after all; whoever waits must ask for them."""
        self.flying &= ~mask
        self._wake()

    def crash(self, mask: int, failure: Exception) -> None:
        """These sectors will not come: wake who waits, with the reason."""
        self.flying &= ~mask
        self.failure = failure
        self._wake()

    async def arrival(self, mask: int) -> None:
        """Wait until these sectors are here, or until some of them are no longer on their way.

        Raises the failure of the flight that was to bring them.
        """
        self.waiters += 1
        try:
            while self.have & mask != mask:
                if mask & ~self.have & ~self.flying:
                    if self.failure is not None:
                        raise self.failure.with_traceback(None)
                    return
                if self._lot is None:
                    self._lot = trio.lowlevel.ParkingLot()
                await self._lot.park()
        finally:
            self.waiters -= 1

    def leave(self) -> None:
        """It is evicted: its content has it no more."""
        if self.is_current:
            del self.content.blocks[self.index]

    def _wake(self) -> None:
        if self._lot is not None:
            self._lot.unpark_all()
