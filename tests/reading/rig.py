"""What the tests of reading start from: a fetcher over a bucket in memory, with tiny blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import trio

from s3mount.model import ObjectInfo
from s3mount.reading.blocks import Geometry
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.memory import Memory
from s3mount.reading.rows import Cache
from s3mount.s3.bucket import Bucket
from s3mount.s3.fake import FakeBucket

# Offsets and sizes are given in units: as small numbers as possible, in whole pages.
UNIT = 256  # bytes
SECTOR = 4  # units
BLOCK = 16  # units: 4 KiB, which is a page


def body(size: int, seed: int = 0) -> bytes:
    """Bytes that tell their offset and their version; `size` in units."""
    return cut(0, size, seed)


@cache
def cut(start: int, stop: int, seed: int = 0) -> bytes:
    """The units [start, stop) of a body."""
    units = range(start * 32, stop * 32)  # 8 bytes each
    return b"".join((unit | seed << 32).to_bytes(8, "big") for unit in units)


@dataclass
class Rig:
    """A fetcher and its memory."""

    fetcher: Fetcher
    memory: Memory

    async def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """The units [start, stop), copied at once; the memory must keep within its limit."""
        content = self.fetcher.content(info)
        stop = min(stop * UNIT, info.size)
        data = bytes(await self.fetcher.read(content, start * UNIT, stop, goes_on=False))
        assert self.memory.used <= self.memory.limit
        return data


def rig_of(
    bucket: Bucket,
    nursery: trio.Nursery,
    *,
    cache: Cache | None = None,
    blocks: int = 16,
    connections: int = 8,
) -> Rig:
    """A fetcher with room for so many blocks."""
    memory = Memory(BLOCK * UNIT, blocks * BLOCK * UNIT)
    fetcher = Fetcher(
        bucket,
        cache=cache,
        memory=memory,
        geometry=Geometry(BLOCK * UNIT, SECTOR * UNIT),
        nursery=nursery,
        scope="test",
        connections=connections,
    )
    return Rig(fetcher, memory)


def gets(bucket: FakeBucket) -> list[tuple[int, int]]:
    """The ranges asked for, in order, in units."""
    asked = [r for r in bucket.requests if r.kind == "get"]
    return [(r.start // UNIT, (r.start + r.size) // UNIT) for r in asked]


async def read_all(rig: Rig, info: ObjectInfo, ranges: list[tuple[int, int]]) -> list[bytes]:
    """All at once."""
    results: dict[int, bytes] = {}

    async def one(i: int, start: int, stop: int) -> None:
        results[i] = await rig.read(info, start, stop)

    async with trio.open_nursery() as readers:
        for i, (start, stop) in enumerate(ranges):
            readers.start_soon(one, i, start, stop)
    return [results[i] for i in range(len(ranges))]


@dataclass
class MemoryCache:
    """A cache that can be slow, lose rows, refuse them, and hold buffers for long.

    It copies a row only when it lets the buffer go, and fails when the bytes were changed
    until then. A miss may leave anything in the buffer.
    """

    nursery: trio.Nursery
    latency: float = 0.0
    hold: float = 0.0  # seconds between `put` and `release`
    rows: dict[str, bytes] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    refuses: Callable[[str], bool] = lambda _key: False
    knows_absent: bool = True
    asked: list[str] = field(default_factory=list)
    rows_at_once: int = 0
    most_rows_at_once: int = 0
    held: int = 0
    kept: dict[str, int] = field(default_factory=dict)  # what `put` was told of each row
    is_behind: bool = False
    late: list[Callable[[], bool]] = field(default_factory=list)
    gone: int = 0

    def surely_absent(self, key: str) -> bool:
        """See `Cache`."""
        return self.knows_absent and key not in self.rows

    async def get(self, wants: Sequence[tuple[str, memoryview]]) -> list[bool]:
        """See `Cache`."""
        self.asked += [key for key, _ in wants]
        self.rows_at_once += len(wants)
        self.most_rows_at_once = max(self.most_rows_at_once, self.rows_at_once)
        await trio.sleep(self.latency)
        self.rows_at_once -= len(wants)
        return [self._fill(key, buffer) for key, buffer in wants]

    def _fill(self, key: str, buffer: memoryview) -> bool:
        row = self.rows.get(key)
        if row is None or key in self.damaged:
            buffer[:] = b"\xee" * len(buffer)
            return False
        buffer[:] = row
        return True

    def put(
        self,
        key: str,
        data: memoryview,
        release: Callable[[], None],
        reclaim: Callable[[], bool],
        keeps: int,
    ) -> bool:
        """See `Cache`."""
        self.kept[key] = keeps
        if self.refuses(key):
            return False
        if self.is_behind:
            self.late.append(partial(self._take_late, key, data, release, reclaim))
            return False
        return self._take(key, data, release)

    def catch_up(self) -> None:
        """Take what was refused while this was behind, as far as it is still there."""
        self.gone += sum(not take() for take in self.late)
        self.late.clear()

    def _take_late(
        self,
        key: str,
        data: memoryview,
        release: Callable[[], None],
        reclaim: Callable[[], bool],
    ) -> bool:
        return reclaim() and self._take(key, data, release)

    def _take(self, key: str, data: memoryview, release: Callable[[], None]) -> bool:
        self.held += 1
        self.nursery.start_soon(self._store, key, data, bytes(data), release)
        return True

    async def _store(
        self, key: str, data: memoryview, promised: bytes, release: Callable[[], None]
    ) -> None:
        await trio.sleep(self.hold)
        assert bytes(data) == promised, "the buffer was used again before it was released"
        self.rows[key] = promised
        self.held -= 1
        release()
