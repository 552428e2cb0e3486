"""How blocks lie in the cache on disk: what is asked of it for a run, and what it is given.

A row is a whole block, or one sector of a block. A stream's blocks become rows as they are
whole, so that a read of some sectors asks for the row of the block first.

INVARIANTS
- A sector lands only when the row that has it was verified; and what is here is never
  written into again.
- What takes off for the sake of a row (the rest of its block) is one of the run's parts
  until it lands or turns back, so that it comes down with the run.
- A block is pinned for as long as the cache reads its buffer.

Must not know: how the cache keeps a row, S3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from s3mount.reading.block import Block, Content
from s3mount.reading.blocks import Geometry, Part, Piece
from s3mount.reading.memory import Memory
from s3mount.reading.run import Run

# Rows that are read aside at once: their memory is beside the budget, a MiB each.
ASIDES = 2


class Cache(Protocol):
    """What reading asks of a cache on disk. A failure of any kind is a miss."""

    def surely_absent(self, key: str) -> bool:
        """Whether the row is certainly not there: True saves the question."""
        ...

    async def get(self, wants: Sequence[tuple[str, memoryview]]) -> list[bool]:
        """Fill each buffer with its row, verified; False where there is none."""
        ...

    def put(
        self,
        key: str,
        data: memoryview,
        release: Callable[[], None],
        reclaim: Callable[[], bool],
        keeps: int,
    ) -> bool:
        """Store the row later, and then call `release` on the trio thread.

        Until then `keeps` bytes of memory are nobody else's, as a block's buffer is one.

        False: not now. `reclaim` may be called later: True as for `put`, the bytes are still
        those, and are kept until `release`.
        """
        ...


class Hold:
    """A block's buffer, held for the cache."""

    __slots__ = ("_block", "_memory")

    def __init__(self, block: Block, memory: Memory) -> None:
        self._block = block
        self._memory = memory

    def claim(self) -> bool:
        """Keep the buffer as it is; False when the block was evicted."""
        if not self._block.is_current:
            return False
        self._block.pins += 1
        return True

    def release(self) -> None:
        """The cache no longer reads it."""
        self._block.pins -= 1
        self._memory.notify()


class Rows:
    """The rows of the blocks in `memory`."""

    def __init__(self, cache: Cache, memory: Memory, geometry: Geometry) -> None:
        self._cache = cache
        self._memory = memory
        self._geometry = geometry
        self._asides = trio.Semaphore(ASIDES)

    async def bring(self, content: Content, run: Run) -> list[Piece]:
        """Land what the cache has of the run; what it has not."""
        await self._from_whole_rows(content, run)
        pieces = await self._from_sector_rows(content, run)
        self._memory.notify()
        return pieces

    def store(self, block: Block, part: Part) -> None:
        """Hand what landed to the cache: the whole block, or each new sector by itself."""
        whole = self._whole(block.content, block.index)
        if block.have == whole.mask:
            part = whole
        for row in self._rows(block.content, [part]):
            first, stop = self._geometry.span(row, block.content.info.size)
            key = self._key(block.content, row)
            hold = Hold(block, self._memory)
            hold.claim()
            data, keeps = block.buffer[first:stop], self._memory.taken_by(block)
            if not self._cache.put(key, data, hold.release, hold.claim, keeps):
                block.pins -= 1

    # --- whole blocks ---------------------------------------------------------------

    async def _from_whole_rows(self, content: Content, run: Run) -> None:
        """Land what lies in rows of whole blocks; the run keeps the other parts.

        A row is verified as a whole. So all of it is read for any sector, and lands; or it is
        read aside, where other sectors of the block are here or come from elsewhere.
        """
        wanted = list(run.parts)
        whole: dict[Part, Part] = {}  # what is wanted: what lands for its sake
        aside: list[Part] = []
        for i, part in enumerate(wanted):
            block, row = content.blocks[part.block], self._whole(content, part.block)
            if self._cache.surely_absent(self._key(content, row)):
                continue
            if block.have or block.flying & ~part.mask:
                aside.append(part)
                continue
            whole[part] = row
            block.take_off(row.mask & ~part.mask)
            run.parts[i] = row  # if nothing comes of it, all of it comes down
        if whole:
            wants = [
                (self._key(content, row), content.blocks[row.block].buffer)
                for row in whole.values()
            ]
            hits = await self._cache.get(wants)
            run.parts = wanted
            for (part, row), hit in zip(whole.items(), hits, strict=True):
                block = content.blocks[part.block]
                if hit:
                    block.land(row.mask)
                    run.parts.remove(part)
                else:
                    block.turn_back(row.mask & ~part.mask)
        for part in aside:
            await self._from_aside(content, run, part)

    async def _from_aside(self, content: Content, run: Run, part: Part) -> None:
        """Land a part of a block, of which other sectors are here, from the row of all of it."""
        block = content.blocks[part.block]
        async with self._asides:
            row = memoryview(bytearray(len(block.buffer)))
            [hit] = await self._cache.get(
                [(self._key(content, self._whole(content, part.block)), row)]
            )
            if hit:
                first, stop = self._geometry.span(part, content.info.size)
                block.buffer[first:stop] = row[first:stop]
                block.land(part.mask)
                run.parts.remove(part)

    # --- single sectors -------------------------------------------------------------

    async def _from_sector_rows(self, content: Content, run: Run) -> list[Piece]:
        """Land what lies in rows of single sectors; what does not.

        A block that is wanted whole is one GET in any case.
        """
        left = {part.block: part.mask for part in run.parts}
        wants: list[tuple[str, memoryview]] = []
        rows: list[Part] = []
        for row in self._rows(content, run.parts):
            if row == self._whole(content, row.block):
                continue
            key = self._key(content, row)
            if not self._cache.surely_absent(key):
                first, stop = self._geometry.span(row, content.info.size)
                wants.append((key, content.blocks[row.block].buffer[first:stop]))
                rows.append(row)
        for row, hit in zip(rows, await self._cache.get(wants) if wants else (), strict=True):
            if hit:
                left[row.block] &= ~row.mask
                content.blocks[row.block].land(row.mask)
        return [Piece(*item) for item in left.items()]

    def _rows(self, content: Content, parts: Sequence[Part]) -> list[Part]:
        """The rows in which parts may lie: whole blocks, or single sectors."""
        rows: list[Part] = []
        for part in parts:
            if part == self._whole(content, part.block):
                rows.append(part)
            else:
                rows.extend(Part(part.block, bit, bit + 1) for bit in range(part.first, part.stop))
        return rows

    def _whole(self, content: Content, index: int) -> Part:
        return Part(index, 0, self._geometry.full_mask(index, content.info.size).bit_length())

    def _key(self, content: Content, part: Part) -> str:
        first, stop = self._geometry.span(part, content.info.size)
        offset = part.block * self._geometry.block_size + first
        return f"{content.version}/{offset}+{stop - first}"
