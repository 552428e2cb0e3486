"""Many readers at random, with faults, changes and a bad cache: right bytes or an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.errors import BadReply, RequestError
from s3mount.model import ObjectInfo
from s3mount.s3.fake import FakeBucket, Fault, Request
from tests.reading.rig import UNIT, MemoryCache, body, cut, rig_of

SIZES = (1, 16, 17, 100)

faults = st.sampled_from(
    [
        None,
        None,
        Fault(BadReply("the wrong range")),
        Fault(after=20 * UNIT),
        Fault(after=1),
        Fault(latency=2.0),
    ]
)
reads = st.tuples(
    st.sampled_from(["read", "read", "read", "give up", "replace", "pause", "ahead"]),
    st.integers(0, len(SIZES) - 1),
    st.integers(0, 99),
    st.integers(1, 60),
)


class Program:
    """Readers of a few objects, of which each has several versions."""

    def __init__(self, nursery: trio.Nursery, faults: list[Fault | None], cache: str) -> None:
        self.nursery = nursery
        self.bucket = FakeBucket(latency=0.1, bytes_per_second=200 * UNIT)
        self.bucket.rule = self.fault
        self.faults = faults
        self.cache = None
        if cache != "none":
            self.cache = MemoryCache(
                nursery,
                latency=0.05,
                hold=0.3,
                knows_absent=cache == "knows",
                refuses=lambda key: key.endswith("0+1024"),
            )
        self.seeds = dict.fromkeys(range(len(SIZES)), 0)
        self.infos = {i: self.put(i) for i in range(len(SIZES))}

    def fault(self, request: Request) -> Fault | None:
        return self.faults.pop() if self.faults and request.kind == "get" else None

    def put(self, i: int) -> ObjectInfo:
        self.seeds[i] += 10
        return self.bucket.put(str(i), body(SIZES[i], self.seeds[i] + i))

    async def run(self, steps: list[tuple[str, int, int, int]], blocks: int) -> None:
        rig = rig_of(self.bucket, self.nursery, cache=self.cache, blocks=blocks, connections=3)
        async with trio.open_nursery() as readers:
            for what, i, start, size in steps:
                info, seed = self.infos[i], self.seeds[i] + i
                begin = start % SIZES[i]
                stop = min(begin + size, SIZES[i])
                if what == "replace":
                    self.infos[i] = self.put(i)
                elif what == "pause":
                    await trio.sleep(size / 20)
                elif what == "ahead":
                    content = rig.fetcher.content(info)
                    rig.fetcher.request(content, begin * UNIT, stop * UNIT, urgent=False)
                else:
                    limit = 0.15 if what == "give up" else 1000.0
                    promised = cut(begin, stop, seed)
                    read = partial(rig.read, info, begin, stop)
                    readers.start_soon(self.read, read, promised, limit)
        if self.cache is not None:
            keys = sorted(self.cache.rows)
            self.cache.damaged |= set(keys[::3])
        self.faults.clear()
        await trio.sleep(100.0)  # what was read ahead may fail still
        for i, info in self.infos.items():  # now that all is quiet, everything can be read
            assert await rig.read(info, 0, SIZES[i]) == body(SIZES[i], self.seeds[i] + i)

    async def read(
        self, read: Callable[[], Awaitable[bytes]], promised: bytes, limit: float
    ) -> None:
        with trio.move_on_after(limit) as scope:
            try:
                data = await read()
            except RequestError as error:
                event(type(error).__name__)
                return
            assert data == promised
            event("read")
        assert limit < 1000 or not scope.cancelled_caught, "it waits for ever"


@settings(max_examples=200)
@given(
    steps=st.lists(reads, min_size=10, max_size=50),
    faults=st.lists(faults, max_size=10),
    blocks=st.integers(1, 8),
    cache=st.sampled_from(["none", "knows", "asks"]),
)
def test_every_read_is_the_right_bytes_or_an_error(
    steps: list[tuple[str, int, int, int]],
    faults: list[Fault | None],
    blocks: int,
    cache: str,
) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await Program(nursery, list(faults), cache).run(steps, blocks)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0.0))
