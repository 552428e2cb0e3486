"""The blocks held in memory, within one budget.

Whole blocks lie in the slots of one arena, which is reserved and not touched until it is
needed. Slots are used again and again: the first touch of fresh memory costs more than the
copy into it. A block is put into the slot behind that of the block before it, if what is
there may go: so neighbours in a file that is streamed are neighbours in memory, and a read
that crosses blocks is answered without a copy (the kernel's own readahead is out of step
with blocks by 256 KiB, so most reads do; the copies took a sixth of the time).

Who goes first, when the budget is full:
1. spent blocks, read to their end or disclaimed: the one spent longest ago;
2. fresh blocks, fetched ahead and not read yet, the oldest: for a reader that waits, or
   when nobody came for them within `STALE` seconds.
So reading ahead does not push out what was read ahead.

INVARIANTS
- `used` <= `limit`, except that one buffer is always granted, and until what was in use
  when the limit was lowered is let go.
- A block that is flying (a GET writes into it), pinned (the cache writer reads it) or
  waited for is not evicted.

Touched on the trio thread alone; waits, but does no I/O.
"""

from __future__ import annotations

import mmap
from itertools import islice

import trio

from s3mount.reading.block import Block

# Longer than any program looks at one file of a row before it opens the next.
STALE = 30.0

# Bytes that a small block takes beside those of the file: its objects, and its content's.
# 1.5 KB were measured: without them, a million files of 100 bytes would take 1.6 GB for 100 MB.
BESIDE = 1536


class Memory:
    """The budget, its free buffers, and the order in which blocks are evicted."""

    def __init__(self, block_size: int, limit: int) -> None:
        self.block_size = block_size
        self.limit = max(limit, block_size)  # bytes
        self.used = 0  # bytes lent, or in slots that are free and were used before
        self._slots = self.limit // block_size
        # Private: shared memory, which is Python's default, is not given back by MADV_DONTNEED,
        # and gets no huge pages where its address is not a multiple of 2 MiB, as it rarely is.
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._map = mmap.mmap(-1, self._slots * block_size, flags=private)
        # One page fault for 2 MiB and not for 4 KiB, and one segment for a disk that reads 1 MiB.
        self._map.madvise(mmap.MADV_HUGEPAGE)
        self._arena = memoryview(self._map)
        self._free: dict[int, None] = {}  # slots used before, freed longest ago first
        self._untouched = dict.fromkeys(range(self._slots))
        self._holders: dict[int, Block] = {}  # who has the slot
        self._fresh: dict[Block, None] = {}  # oldest first
        self._spent: dict[Block, None] = {}  # spent longest ago first
        self._wanted = trio.lowlevel.ParkingLot()

    def give(self, block: Block, length: int, *, urgent: bool) -> bool:
        """Give the block a buffer of `length` bytes; False when the budget is full.

        `urgent` (a reader waits for it) may evict what was fetched ahead for others.
        """
        if length * 2 > self.block_size:
            slot = self._take_slot(self._slot_behind(block), urgent=urgent)
            if slot is None:
                return False
            block.slot = slot
            self._holders[slot] = block
            start = slot * self.block_size
            block.buffer = self._arena[start : start + length]
        else:
            if not self._make_room(length + BESIDE, urgent=urgent):
                return False
            self.used += length + BESIDE
            block.buffer = memoryview(bytearray(length))
        self._fresh[block] = None
        return True

    def joined(self, blocks: list[Block], first: int, length: int) -> memoryview | None:
        """`length` bytes from the offset `first` in the first of these adjacent blocks of a file.

        None when they do not lie one behind the other.
        """
        slot = blocks[0].slot
        if slot is None or any(block.slot != slot + i for i, block in enumerate(blocks)):
            return None
        start = slot * self.block_size + first
        return self._arena[start : start + length]

    def room(self, wanted: int) -> int:
        """Blocks, of `wanted`, that could be given buffers now without taking what is fresh.

        Thousands of small files may be spent: they are not counted but as far as it matters.
        """
        unused = (self.limit - self.used) // self.block_size + len(self._free)
        if unused >= wanted:
            return wanted
        idle = islice((block for block in self._spent if block.is_idle), wanted - unused)
        return unused + sum(1 for _ in idle)

    async def wait_for_space(self) -> None:
        """Until some block landed, was spent or let go: `give` may succeed then."""
        await self._wanted.park()

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
        if block.slot is None:
            self.used -= len(block.buffer) + BESIDE
        else:
            del self._holders[block.slot]
            self._free[block.slot] = None
        self._give_back_excess()
        self.notify()

    def taken_by(self, block: Block) -> int:
        """Bytes that nobody else has while the block is here."""
        return len(block.buffer) if block.slot is None else self.block_size

    def resize(self, limit: int) -> None:
        """Use so much from now on. What is in use beyond it is given back as it is let go."""
        self.limit = max(self.block_size, min(limit, self._slots * self.block_size))
        while self.used > self.limit and (self._free or self._evict(urgent=False)):
            self._give_back_excess()
        self.notify()

    def _give_back_excess(self) -> None:
        while self._free and self.used > self.limit:
            self._give_back(next(iter(self._free)))

    def notify(self) -> None:
        """Something may be evictable now: wake those who wait for space."""
        if self._wanted:
            self._wanted.unpark_all()

    # --- slots --------------------------------------------------------------------

    @staticmethod
    def _slot_behind(block: Block) -> int:
        before = block.content.blocks.get(block.index - 1)
        return -1 if before is None or before.slot is None else before.slot + 1

    def _take_slot(self, wanted: int, *, urgent: bool) -> int | None:
        """A slot, `wanted` if what is there may go; None when the budget is full."""
        if wanted > 0 and not self._is_available(wanted):
            wanted = self._longest_stretch()
        holder = self._holders.get(wanted)
        if holder is not None and holder in self._spent and holder.is_idle:
            self.drop(holder)
        can_grow = self._untouched and self.used + self.block_size <= self.limit
        if not self._free and not can_grow:
            self._make_room(self.block_size, urgent=urgent, keep_slots=True)
        if wanted in self._free:
            del self._free[wanted]
            return wanted
        if self._untouched and self.used + self.block_size <= self.limit:
            slot = wanted if wanted in self._untouched else next(iter(self._untouched))
            del self._untouched[slot]
            self.used += self.block_size
            return slot
        slot = next(iter(self._free), None)
        if slot is not None:
            del self._free[slot]
        return slot

    def _is_available(self, slot: int) -> bool:
        """Whether the slot is free, or holds what may go."""
        holder = self._holders.get(slot)
        if holder is None:
            return slot < self._slots
        return holder in self._spent and holder.is_idle

    def _longest_stretch(self) -> int:
        """Where the longest row of available slots begins; -1 without any."""
        best, longest, length = -1, 0, 0
        for slot in range(self._slots):
            length = length + 1 if self._is_available(slot) else 0
            if length > longest:
                best, longest = slot - length + 1, length
        return best

    def _make_room(self, size: int, *, urgent: bool, keep_slots: bool = False) -> bool:
        """Evict until `size` bytes more may be used; with `keep_slots`, until a slot is free."""
        while self.used + size > self.limit and self.used:
            if self._free:
                if keep_slots:
                    return True
                self._give_back(next(iter(self._free)))
            elif not self._evict(urgent=urgent):
                return False
        return True

    def _give_back(self, slot: int) -> None:
        """Return the memory of a free slot to the system."""
        del self._free[slot]
        self._untouched[slot] = None
        self._map.madvise(mmap.MADV_DONTNEED, slot * self.block_size, self.block_size)
        self.used -= self.block_size

    def _evict(self, *, urgent: bool) -> bool:
        """Evict one block; False when none may go."""
        victim = next((block for block in self._spent if block.is_idle), None)
        if victim is None:
            victim = next((block for block in self._fresh if block.is_idle), None)
            if victim is None or not (urgent or victim.born + STALE < trio.current_time()):
                return False
        self.drop(victim)
        return True
