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
from weakref import WeakValueDictionary

import trio

from s3mount.errors import BadReply, NotFound, Unreachable, VersionChanged
from s3mount.model import ObjectInfo, RangeReply
from s3mount.reading.block import Block, Content
from s3mount.reading.blocks import Geometry, Part, Piece
from s3mount.reading.gate import Gate
from s3mount.reading.memory import Memory
from s3mount.reading.rows import Cache, Rows
from s3mount.reading.run import NEARLY_DONE, Run
from s3mount.s3.bucket import Bucket

# Bytes that one request brings for readers that wait, at most.
LONGEST_DEMAND = 4 * 1024 * 1024


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
        self._rows = None if cache is None else Rows(cache, memory, geometry)
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

    def whole(self, content: Content) -> memoryview | None:
        """All bytes of a file of one block, when they are here; None otherwise.

        The reader takes them all. The buffer is good until the caller next awaits.
        """
        block = content.blocks.get(0)
        size = content.info.size
        if block is None or size > self.geometry.block_size:
            return None
        if block.have != self.geometry.full_mask(0, size):
            return None
        self._memory.spend(block)
        return block.buffer[:size]

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
        failure: Exception | None = None
        try:
            with run.scope:
                if ask_cache and self._rows is not None:
                    await self._from_cache(self._rows, content, run)
                if run.left:
                    received = await self._from_s3(content, run)
                    if run.left:
                        failure = BadReply(
                            f"{content.info.key!r}: {received} bytes came of a range that has more"
                        )
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait get it
            failure = error
        finally:
            content.runs.discard(run)
            for part in run.left:
                failure = failure or Unreachable("the mount is ending")
                self._come_down(content, part, None if run.is_dropped else failure)

    async def _from_cache(self, rows: Rows, content: Content, run: Run) -> None:
        """Land what the cache has. The run keeps the first row of the rest, new runs the others."""
        rest = self.geometry.runs(await rows.bring(content, run), sys.maxsize)
        run.parts = rest[0] if rest else []
        for parts in rest[1:]:
            self._launch(content, Run(parts, urgent=run.urgent), ask_cache=False)

    async def _from_s3(self, content: Content, run: Run) -> int:
        """One ranged GET for the run; returns how many bytes came."""
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
        return reply.received

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
        if self._rows is not None:
            self._rows.store(block, part)
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
