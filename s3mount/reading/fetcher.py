"""Brings the sectors that readers want: from memory, from the cache, or from S3.

Each missing sector is fetched once, whoever wants it (single flight): a sector is
absent, flying or here, and only an absent one takes off. Adjacent absent sectors become
one run, which is one ranged GET; each block of it wakes its readers as it completes. The
runs that a reader waits for go before those that are read ahead.

The flights belong to the daemon's nursery: a reader that goes away leaves them alone,
and a failure reaches all who wait.

INVARIANTS
- Bytes become visible (`Block.land`) only when the GET that brought them was pinned to
  the content's ETag, or the cache verified them.
- Every sector that takes off lands, crashes or turns back, whatever happens; and until
  then it belongs to one run of its content.

Must not know: handles, inodes, errno, what a window is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from s3mount.errors import BadReply, NotFound, Unreachable, VersionChanged
from s3mount.model import ObjectInfo, RangeReply
from s3mount.reading.block import Block, Content
from s3mount.reading.blocks import Geometry, Part, Piece
from s3mount.reading.gate import Gate
from s3mount.reading.memory import Memory
from s3mount.reading.run import NEARLY_DONE, Run
from s3mount.s3.bucket import Bucket

# Bytes that one request brings for readers that wait, at most.
LONGEST_DEMAND = 4 * 1024 * 1024


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
        connections: int,
    ) -> None:
        self._bucket = bucket
        self._cache = cache
        self._memory = memory
        self.geometry = geometry
        self._nursery = nursery
        self._scope = scope
        self._gate = Gate(connections)
        self._contents: WeakValueDictionary[tuple[str, str, int], Content] = WeakValueDictionary()
        self._scratch = memoryview(bytearray())

    def content(self, info: ObjectInfo) -> Content:
        """The content of this version, shared by all who read it."""
        key = (info.key, info.etag, info.size)
        content = self._contents.get(key)
        if content is None:
            content = self._contents[key] = Content(info, self._scope)
        return content

    def request(
        self,
        content: Content,
        start: int,
        stop: int,
        *,
        urgent: bool,
        longest: int = LONGEST_DEMAND,
    ) -> int:
        """Have the bytes [start, stop) brought, in runs of `longest` bytes, without waiting.

        Returns the offset up to which they are here or on their way: less than `stop`
        when memory is full. What is not `urgent` takes no memory from what was fetched
        ahead before, by whomever, and is asked for in whole runs.
        """
        pieces = self.geometry.pieces(start, stop)
        affordable = len(pieces) if urgent else self._affordable(content, pieces, longest)
        due: list[Piece] = []
        reached = stop
        for i, (index, mask) in enumerate(pieces):
            block = content.blocks.get(index)
            if block is None:
                if i < affordable:
                    block = self._new_block(content, index, urgent=urgent)
                if block is None:
                    reached = max(start, index * self.geometry.block_size)
                    break
            missing = mask & ~block.have & ~block.flying
            if missing:
                block.take_off(missing)
                due.append(Piece(index, missing))
            if urgent and self._gate.is_crowded and mask & block.flying & ~missing:
                self._promote(content, index, mask)
        for parts in self.geometry.runs(due, longest):
            self._launch(content, Run(parts, urgent=urgent), ask_cache=True)
        return reached

    def disclaim(self, content: Content, start: int, stop: int) -> None:
        """Nobody will read [start, stop), which was requested and not urgently.

        What is on its way is ended, unless it is nearly done or somebody waits for it;
        what is here may go first.
        """
        size = self.geometry.block_size
        blocks = {
            index: block
            for index, block in content.blocks.items()
            if start < (index + 1) * size and index * size < stop and not block.waiters
        }
        for run in list(content.runs):
            if run.urgent or not run.is_within(blocks):
                continue
            left = sum(part.stop - part.first for part in run.left) * self.geometry.sector_size
            if run.admitted is not None or left > NEARLY_DONE:
                run.drop()
        for block in blocks.values():
            self._memory.spend(block)

    async def read(self, content: Content, start: int, stop: int, *, goes_on: bool) -> memoryview:
        """The bytes [start, stop), which lie within the object.

        `goes_on`: the reader comes back for the rest of the last block. The buffer is good
        until the caller next awaits.

        Raises any `RequestError` of the flights that were to bring them.
        """
        pieces = self.geometry.pieces(start, stop)
        blocks = [await self._arrival(content, piece, start, stop) for piece in pieces]
        if not all(block.is_current for block in blocks):
            return await self._copy(content, start, stop)
        size = self.geometry.block_size
        end = content.info.size
        for block in blocks:
            if not goes_on or stop >= min(end, (block.index + 1) * size):
                self._memory.spend(block)
        self._memory.notify()  # what was waited for may be evicted now
        first = start - blocks[0].index * size
        if len(blocks) == 1:
            return blocks[0].buffer[first : first + stop - start]
        joined = self._memory.joined(blocks, first, stop - start)
        return self._join(blocks, first, stop - start) if joined is None else joined

    # --- gathering ----------------------------------------------------------------

    async def _arrival(self, content: Content, piece: Piece, start: int, stop: int) -> Block:
        """The block of a piece of [start, stop), with the sectors that are wanted, at this moment.

        Between a look at what is there and the wait for it nothing is awaited, or the wait
        might be for what has happened already.
        """
        index, mask = piece
        while True:
            block = content.blocks.get(index)
            if block is not None and block.have & mask == mask:
                return block
            first = max(start, index * self.geometry.block_size)
            self.request(content, first, stop, urgent=True)
            block = content.blocks.get(index)
            if block is None:
                await self._memory.wait_for_space()
                continue
            try:
                await block.arrival(mask)
            finally:
                # Nobody may be waiting for the block any more: it may make room for another.
                self._memory.notify()

    async def _copy(self, content: Content, start: int, stop: int) -> memoryview:
        """The bytes, taken out of each block as it comes: memory does not hold all at once."""
        copy = bytearray()
        for piece in self.geometry.pieces(start, stop):
            block = await self._arrival(content, piece, start, stop)
            base = piece.block * self.geometry.block_size
            copy += block.buffer[max(0, start - base) : stop - base]
            self._memory.spend(block)
        return memoryview(copy)

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
        block = Block(content, index)
        if not self._memory.give(block, length, urgent=urgent):
            return None
        content.blocks[index] = block
        return block

    def _affordable(self, content: Content, pieces: list[Piece], longest: int) -> int:
        """How many of the pieces there is memory for, in whole runs."""
        room = self._memory.room(len(pieces))
        for count, (index, _) in enumerate(pieces):
            room -= index not in content.blocks
            if room < 0:
                # A stream that waits for nothing takes what there is.
                per_run = max(1, longest // self.geometry.block_size) if content.runs else 1
                return count - count % per_run
        return len(pieces)

    def _promote(self, content: Content, index: int, mask: int) -> None:
        for run in content.runs:
            if not run.urgent and run.brings(index, mask):
                self._gate.promote(run)

    # --- flying -------------------------------------------------------------------

    def _launch(self, content: Content, run: Run, *, ask_cache: bool) -> None:
        content.runs.add(run)
        self._nursery.start_soon(self._bring, content, run, ask_cache)

    async def _bring(self, content: Content, run: Run, ask_cache: bool) -> None:
        """Bring what took off: from the cache what it has, the rest from S3."""
        failure: Exception = Unreachable("the mount is ending")
        try:
            with run.scope:
                if ask_cache and self._cache is not None:
                    await self._from_cache(self._cache, content, run)
                if run.left:
                    failure = await self._from_s3(content, run)
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait get it
            failure = error
        finally:
            content.runs.discard(run)
            for part in run.left:
                self._come_down(content, part, None if run.is_dropped else failure)

    async def _from_cache(self, cache: Cache, content: Content, run: Run) -> None:
        """Land what the cache has. The run keeps the first row of the rest, new runs the others."""
        await self._from_whole_rows(cache, content, run)
        pieces = await self._from_sector_rows(cache, content, run)
        self._memory.notify()
        rest = self.geometry.runs(pieces, sys.maxsize)
        run.parts = rest[0] if rest else []
        for parts in rest[1:]:
            self._launch(content, Run(parts, urgent=run.urgent), ask_cache=False)

    async def _from_whole_rows(self, cache: Cache, content: Content, run: Run) -> None:
        """Land what lies in rows of whole blocks; the run keeps the other parts.

        A row is verified as a whole. So all of it is read for any sector, and lands; or it is
        read aside, where other sectors of the block are here or come from elsewhere.
        """
        wanted = list(run.parts)
        asked: dict[Part, memoryview] = {}
        keys: list[str] = []
        for i, part in enumerate(wanted):
            whole = self._whole(content, part.block)
            key = self._row_key(content, whole)
            if cache.surely_absent(key):
                continue
            block = content.blocks[part.block]
            if block.have or block.flying & ~part.mask:
                asked[part] = memoryview(bytearray(len(block.buffer)))
            else:
                asked[part] = block.buffer
                block.take_off(whole.mask & ~part.mask)
                run.parts[i] = whole  # if nothing comes of it, all of it comes down
            keys.append(key)
        if not keys:
            return
        hits = await cache.get(list(zip(keys, asked.values(), strict=True)))
        run.parts, flown = wanted, {part.block: part for part in run.parts}
        for (part, buffer), hit in zip(asked.items(), hits, strict=True):
            block = content.blocks[part.block]
            if not hit:
                block.turn_back(flown[part.block].mask & ~part.mask)
                continue
            if buffer is not block.buffer:
                first, stop = self.geometry.span(part, content.info.size)
                block.buffer[first:stop] = buffer[first:stop]
            block.land(flown[part.block].mask)
            run.parts.remove(part)

    async def _from_sector_rows(self, cache: Cache, content: Content, run: Run) -> list[Piece]:
        """Land what lies in rows of single sectors; what does not.

        A block that is wanted whole is one GET in any case.
        """
        left = {part.block: part.mask for part in run.parts}
        wants: list[tuple[str, memoryview]] = []
        rows: list[Part] = []
        for row in self._rows(content, run.parts):
            if row == self._whole(content, row.block):
                continue
            key = self._row_key(content, row)
            if not cache.surely_absent(key):
                first, stop = self.geometry.span(row, content.info.size)
                wants.append((key, content.blocks[row.block].buffer[first:stop]))
                rows.append(row)
        for row, hit in zip(rows, await cache.get(wants) if wants else (), strict=True):
            if hit:
                left[row.block] &= ~row.mask
                content.blocks[row.block].land(row.mask)
        return [Piece(*item) for item in left.items()]

    async def _from_s3(self, content: Content, run: Run) -> Exception:
        """One ranged GET for the run; returns what to tell those who wait for what did not come."""
        await self._gate.enter(run)
        try:
            try:
                reply = await self._get(content, run, None)
                content.version_id = reply.info.version_id
            except (VersionChanged, NotFound):
                # Replaced, or deleted: in a versioned bucket the version is still there.
                if content.version_id is None:
                    raise
                reply = await self._get(content, run, content.version_id)
        finally:
            self._gate.leave()
        return BadReply(
            f"{content.info.key!r}: {reply.received} bytes came of a range that has more"
        )

    def _rows(self, content: Content, parts: list[Part]) -> list[Part]:
        """The rows in which parts may lie in the cache: whole blocks, or single sectors."""
        rows: list[Part] = []
        for part in parts:
            if part == self._whole(content, part.block):
                rows.append(part)
            else:
                rows.extend(Part(part.block, bit, bit + 1) for bit in range(part.first, part.stop))
        return rows

    def _whole(self, content: Content, index: int) -> Part:
        return Part(index, 0, self.geometry.full_mask(index, content.info.size).bit_length())

    def _row_key(self, content: Content, part: Part) -> str:
        first, stop = self.geometry.span(part, content.info.size)
        offset = part.block * self.geometry.block_size + first
        return f"{content.version}/{offset}+{stop - first}"

    async def _get(self, content: Content, run: Run, version_id: str | None) -> RangeReply:
        """One GET of what is left of the run, pinned to the content's version.

        What landed already may be evicted by now, and its buffers be others'.
        """
        parts, landed = run.left, run.landed
        into = []
        for part in parts:
            first, stop = self.geometry.span(part, content.info.size)
            into.append(content.blocks[part.block].buffer[first:stop])

        def on_filled(i: int) -> None:
            run.landed = landed + i + 1
            self._land(content, parts[i])

        return await self._bucket.get_range(
            content.info.key,
            self.geometry.start(parts[0]),
            into,
            etag=content.info.etag,
            version_id=version_id,
            on_filled=on_filled,
        )

    def _land(self, content: Content, part: Part) -> None:
        block = content.blocks[part.block]
        block.land(part.mask)
        if self._cache is not None:
            self._store(self._cache, block, part)
        self._memory.notify()

    def _come_down(self, content: Content, part: Part, failure: Exception | None) -> None:
        """A part did not land: for a reason, or because nobody wants it (None)."""
        block = content.blocks[part.block]
        if failure is None:
            block.turn_back(part.mask)
        else:
            block.crash(part.mask, failure)
        if not block.have and not block.flying:
            self._memory.drop(block)
        self._memory.notify()

    # --- storing ------------------------------------------------------------------

    def _store(self, cache: Cache, block: Block, part: Part) -> None:
        """Hand what landed to the cache: the whole block, or each new sector by itself."""
        whole = self._whole(block.content, block.index)
        if block.have == whole.mask:
            part = whole
        for row in self._rows(block.content, [part]):
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
