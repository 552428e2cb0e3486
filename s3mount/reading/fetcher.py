"""Brings the sectors that readers want: from memory, from the cache, or from S3.

Each missing sector is fetched once, whoever wants it (single flight): a sector is
absent, flying or here, and only an absent one takes off. Adjacent absent sectors become
one run, which is one ranged GET; each block of it wakes its readers as it completes.

The flights belong to the daemon's nursery: a reader that goes away leaves them alone,
and a failure reaches all who wait.

INVARIANTS
- Bytes become visible (`Block.land`) only when the GET that brought them was pinned to
  the content's ETag, or the cache verified them.
- Every sector that takes off lands, crashes or turns back, whatever happens.

Must not know: handles, inodes, errno, what a window is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from s3mount.errors import BadReply, Unreachable, VersionChanged
from s3mount.model import ObjectInfo, RangeReply
from s3mount.reading.block import Block, Content
from s3mount.reading.blocks import Geometry, Part, Piece
from s3mount.reading.memory import Memory
from s3mount.s3.bucket import Bucket, OnFilled


class Cache(Protocol):
    """What reading asks of a cache on disk. A failure of any kind is a miss."""

    def surely_absent(self, key: str) -> bool:
        """Whether the row is certainly not there: True saves the question."""
        ...

    async def get(self, wants: Sequence[tuple[str, memoryview]]) -> list[bool]:
        """Fill each buffer with its row, verified; False where there is none."""
        ...

    def put(self, key: str, data: memoryview, release: ReleaseSoon) -> bool:
        """Store the row later; False: dropped, and `release` will not be called."""
        ...


class ReleaseSoon(Protocol):
    """Called on the trio thread when the cache no longer needs a buffer."""

    def __call__(self) -> None: ...


class Fetcher:
    """Contents by version, and the flights that bring their sectors."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        cache: Cache | None,
        memory: Memory,
        geometry: Geometry,
        nursery: trio.Nursery,
        scope: str,
        longest_run: int,
    ) -> None:
        self._bucket = bucket
        self._cache = cache
        self._memory = memory
        self.geometry = geometry
        self._nursery = nursery
        self._scope = scope
        self._longest_run = longest_run
        self._contents: WeakValueDictionary[tuple[str, str, int], Content] = WeakValueDictionary()
        self._scratch = memoryview(bytearray())

    def content(self, info: ObjectInfo) -> Content:
        """The content of this version, shared by all who read it."""
        key = (info.key, info.etag, info.size)
        content = self._contents.get(key)
        if content is None:
            content = self._contents[key] = Content(info, self._scope)
        return content

    def request(self, content: Content, start: int, stop: int, *, urgent: bool) -> int:
        """Have the bytes [start, stop) brought, without waiting.

        Returns the offset up to which they are here or on their way: less than `stop`
        when memory is full.
        """
        due: list[Piece] = []
        reached = stop
        for index, mask in self.geometry.pieces(start, stop):
            block = content.blocks.get(index) or self._new_block(content, index, urgent=urgent)
            if block is None:
                reached = max(start, index * self.geometry.block_size)
                break
            missing = mask & ~block.have & ~block.flying
            if missing:
                block.take_off(missing)
                due.append(Piece(index, missing))
        if due:
            self._nursery.start_soon(self._bring, content, due)
        return reached

    async def read(self, content: Content, start: int, stop: int, *, goes_on: bool) -> memoryview:
        """The bytes [start, stop), which lie within the object.

        `goes_on`: the reader comes back for the rest of the last block. The buffer is good
        until the caller next awaits.

        Raises any `RequestError` of the flights that were to bring them.
        """
        blocks = await self._gather(content, start, stop)
        size = self.geometry.block_size
        end = content.info.size
        for block in blocks:
            if not goes_on or stop >= min(end, (block.index + 1) * size):
                self._memory.spend(block)
        first = start - blocks[0].index * size
        if len(blocks) == 1:
            return blocks[0].buffer[first : first + stop - start]
        return self._join(blocks, first, stop - start)

    # --- gathering ----------------------------------------------------------------

    async def _gather(self, content: Content, start: int, stop: int) -> list[Block]:
        """The blocks that hold [start, stop), all here at this moment."""
        pieces = self.geometry.pieces(start, stop)
        while True:
            self.request(content, start, stop, urgent=True)
            blocks = []
            for index, mask in pieces:
                block = content.blocks.get(index)
                if block is None:
                    await self._memory.wait_for_space()
                    break
                await block.arrival(mask)
                blocks.append(block)
            if len(blocks) == len(pieces) and all(
                block.is_current and block.have & mask == mask
                for block, (_, mask) in zip(blocks, pieces, strict=True)
            ):
                return blocks

    def _join(self, blocks: list[Block], first: int, length: int) -> memoryview:
        """A copy of a stretch that lies in several blocks.

        One scratch buffer serves all: the reply is written before anything else runs.
        """
        if len(self._scratch) < length:
            self._scratch = memoryview(bytearray(length))
        done = 0
        for block in blocks:
            part = block.buffer[first : first + length - done]
            self._scratch[done : done + len(part)] = part
            done += len(part)
            first = 0
        return self._scratch[:length]

    def _new_block(self, content: Content, index: int, *, urgent: bool) -> Block | None:
        length = self.geometry.block_length(index, content.info.size)
        buffer = self._memory.lend(length, urgent=urgent)
        if buffer is None:
            return None
        block = content.blocks[index] = Block(content, index, buffer)
        self._memory.keep(block)
        return block

    # --- flying -------------------------------------------------------------------

    async def _bring(self, content: Content, due: list[Piece]) -> None:
        """Bring sectors that took off: what the cache has from there, the rest from S3."""
        try:
            if self._cache is not None:
                due = await self._from_cache(self._cache, content, due)
            runs = self.geometry.runs(due, self._longest_run)
            for run in runs[1:]:
                self._nursery.start_soon(self._fly, content, run)
        except BaseException:
            for index, mask in due:
                self._crash(content, index, mask, Unreachable("the mount is ending"))
            raise
        if runs:
            await self._fly(content, runs[0])

    async def _from_cache(self, cache: Cache, content: Content, due: list[Piece]) -> list[Piece]:
        """Land what the cache has; returns what it has not."""
        wants: list[tuple[str, memoryview]] = []
        parts: list[Part] = []
        for part in self._rows(content, due):
            key = self._row_key(content, part)
            if not cache.surely_absent(key):
                first, stop = self.geometry.span(part, content.info.size)
                wants.append((key, content.blocks[part.block].buffer[first:stop]))
                parts.append(part)
        if not wants:
            return due
        left = dict(due)
        for part, hit in zip(parts, await cache.get(wants), strict=True):
            if hit:
                left[part.block] &= ~part.mask
                content.blocks[part.block].land(part.mask)
        self._memory.notify()
        return [Piece(index, mask) for index, mask in left.items() if mask]

    def _rows(self, content: Content, pieces: list[Piece]) -> list[Part]:
        """The rows in which pieces may lie in the cache: whole blocks, or single sectors."""
        rows: list[Part] = []
        for index, mask in pieces:
            full = self.geometry.full_mask(index, content.info.size)
            if mask == full:
                rows.append(Part(index, 0, full.bit_length()))
            else:
                bits = range(mask.bit_length())
                rows.extend(Part(index, bit, bit + 1) for bit in bits if mask >> bit & 1)
        return rows

    def _row_key(self, content: Content, part: Part) -> str:
        first, stop = self.geometry.span(part, content.info.size)
        offset = part.block * self.geometry.block_size + first
        return f"{content.version}/{offset}+{stop - first}"

    async def _fly(self, content: Content, run: list[Part]) -> None:
        """One ranged GET for a run."""
        landed = 0

        def on_filled(i: int) -> None:
            nonlocal landed
            landed = i + 1
            self._land(content, run[i])

        failure: Exception = Unreachable("the mount is ending")
        try:
            reply = await self._get(content, run, on_filled)
            failure = BadReply(
                f"{content.info.key!r}: {reply.received} bytes came of a range that has more"
            )
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait get it
            failure = error
        finally:
            for part in run[landed:]:
                self._crash(content, part.block, part.mask, failure)

    async def _get(self, content: Content, run: list[Part], on_filled: OnFilled) -> RangeReply:
        """The GET, pinned to the content's version; by its VersionId once it was replaced."""
        info = content.info
        into = []
        for part in run:
            first, stop = self.geometry.span(part, info.size)
            into.append(content.blocks[part.block].buffer[first:stop])
        start = self.geometry.start(run[0])
        try:
            reply = await self._bucket.get_range(
                info.key, start, into, etag=info.etag, on_filled=on_filled
            )
        except VersionChanged:
            if content.version_id is None:
                raise
            return await self._bucket.get_range(
                info.key,
                start,
                into,
                etag=info.etag,
                version_id=content.version_id,
                on_filled=on_filled,
            )
        content.version_id = reply.info.version_id
        return reply

    def _land(self, content: Content, part: Part) -> None:
        block = content.blocks[part.block]
        block.land(part.mask)
        if self._cache is not None:
            self._store(self._cache, block, part)
        self._memory.notify()

    def _crash(self, content: Content, index: int, mask: int, failure: Exception) -> None:
        block = content.blocks[index]
        block.crash(mask, failure)
        if not block.have and not block.flying:
            self._memory.drop(block)
        self._memory.notify()

    # --- storing ------------------------------------------------------------------

    def _store(self, cache: Cache, block: Block, part: Part) -> None:
        """Hand what landed to the cache: the whole block, or each new sector by itself."""
        full = self.geometry.full_mask(block.index, block.content.info.size)
        rows = [Piece(block.index, full if block.have == full else part.mask)]
        for row in self._rows(block.content, rows):
            first, stop = self.geometry.span(row, block.content.info.size)
            block.pins += 1
            key = self._row_key(block.content, row)
            if not cache.put(key, block.buffer[first:stop], block_release(block, self._memory)):
                block.pins -= 1


def block_release(block: Block, memory: Memory) -> ReleaseSoon:
    """What the cache calls when it no longer reads the block's buffer."""

    def release() -> None:
        block.pins -= 1
        memory.notify()

    return release
