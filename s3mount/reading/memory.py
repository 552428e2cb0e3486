"""The blocks held in memory, within one budget.

Buffers are lent for blocks and come back when a block is evicted. Full-size buffers
are reused, never returned to the system: the first touch of fresh memory costs more
than the copy into it.

Who goes first, when the budget is full:
1. spent blocks, read to their end or disclaimed: the one spent longest ago;
2. fresh blocks, fetched ahead and not read yet, the oldest: for a reader that waits, or
   when nobody came for them within `STALE` seconds.
So reading ahead does not push out what was read ahead.

INVARIANTS
- `used` <= `limit`, except that one buffer is always granted.
- A block that is flying (a GET writes into it), pinned (the cache writer reads it) or
  waited for is not evicted.

Touched on the trio thread alone; waits, but does no I/O.
"""

from __future__ import annotations

import trio

from s3mount.reading.block import Block

# Longer than any program looks at one file of a row before it opens the next.
STALE = 30.0


class Memory:
    """The budget, its free buffers, and the order in which blocks are evicted."""

    def __init__(self, block_size: int, limit: int) -> None:
        self.block_size = block_size
        self.limit = max(limit, block_size)  # bytes
        self.used = 0  # bytes lent or on the free list
        self._free: list[memoryview] = []
        self._fresh: dict[Block, None] = {}  # oldest first
        self._spent: dict[Block, None] = {}  # spent longest ago first
        self._wanted = trio.lowlevel.ParkingLot()

    def lend(self, length: int, *, urgent: bool) -> memoryview | None:
        """A buffer of `length` bytes, or None when the budget is full.

        `urgent` (a reader waits for it) may evict what was fetched ahead for others.
        """
        is_full_size = length * 2 > self.block_size
        if is_full_size and self._free:
            return self._free.pop()[:length]
        cost = self.block_size if is_full_size else length
        while self.used + cost > self.limit and self.used:
            if not self._evict(urgent=urgent):
                return None
            if is_full_size and self._free:
                return self._free.pop()[:length]
        self.used += cost
        return memoryview(bytearray(cost))[:length]

    @property
    def room(self) -> int:
        """Blocks that could be lent now without taking what was fetched ahead."""
        unused = (self.limit - self.used) // self.block_size
        return unused + len(self._free) + sum(block.is_idle for block in self._spent)

    async def wait_for_space(self) -> None:
        """Until some block landed, was spent or let go: `lend` may succeed then."""
        await self._wanted.park()

    def keep(self, block: Block) -> None:
        """The block has its buffer and is in the table of its file."""
        self._fresh[block] = None

    def spend(self, block: Block) -> None:
        """The block was read to its end, or nobody will read it: it may go."""
        self._fresh.pop(block, None)
        self._spent.pop(block, None)
        self._spent[block] = None
        self.notify()

    def drop(self, block: Block) -> None:
        """Forget the block and take its buffer back."""
        self._fresh.pop(block, None)
        self._spent.pop(block, None)
        block.leave()
        self._take_back(block.buffer)
        self.notify()

    def notify(self) -> None:
        """Something may be evictable now: wake those who wait for space."""
        if self._wanted:
            self._wanted.unpark_all()

    def _evict(self, *, urgent: bool) -> bool:
        """Evict one block, or a free buffer; False when nothing may go."""
        if self._free:
            self._free.pop()
            self.used -= self.block_size
            return True
        victim = next((block for block in self._spent if block.is_idle), None)
        if victim is None:
            victim = next((block for block in self._fresh if block.is_idle), None)
            if victim is None or not (urgent or victim.born + STALE < trio.current_time()):
                return False
        self._fresh.pop(victim, None)
        self._spent.pop(victim, None)
        victim.leave()
        self._take_back(victim.buffer)
        return True

    def _take_back(self, buffer: memoryview) -> None:
        whole = buffer.obj
        assert isinstance(whole, bytearray)
        if len(whole) == self.block_size:
            self._free.append(memoryview(whole))
        else:
            self.used -= len(whole)
