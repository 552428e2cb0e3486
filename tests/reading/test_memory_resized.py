"""The budget of buffers may change while they are in use."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from s3mount.s3.fake import FakeBucket
from tests.reading.rig import BLOCK, UNIT, MemoryCache, body, cut, rig_of

BLOCK_BYTES = BLOCK * UNIT


async def test_what_is_too_much_is_given_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.01)
    info = bucket.put("a", body(12 * BLOCK))
    rig = rig_of(bucket, nursery, blocks=10)
    assert await rig.read(info, 0, 10 * BLOCK) == cut(0, 10 * BLOCK)
    assert rig.memory.used == 10 * BLOCK_BYTES
    rig.memory.resize(3 * BLOCK_BYTES)
    assert rig.memory.used == 3 * BLOCK_BYTES
    assert await rig.read(info, 0, 12 * BLOCK) == cut(0, 12 * BLOCK)
    rig.memory.resize(100 * BLOCK_BYTES)  # there are no more than ten
    assert await rig.read(info, 0, 10 * BLOCK) == cut(0, 10 * BLOCK)
    assert rig.memory.used == 10 * BLOCK_BYTES
    rig.memory.resize(0)
    assert await rig.read(info, 0, 5 * BLOCK) == cut(0, 5 * BLOCK)
    assert rig.memory.used == BLOCK_BYTES


async def test_readers_get_the_right_bytes_while_the_limit_goes_up_and_down(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.01)
    infos = [bucket.put(f"{i}", body(300, i)) for i in range(8)]
    rig = rig_of(bucket, nursery, cache=MemoryCache(nursery, hold=0.05), blocks=9)
    memory, fetcher = rig.memory, rig.fetcher

    async def reader(i: int) -> None:
        for start in range(i, 280, 9):
            content = fetcher.content(infos[i])
            data = await fetcher.read(content, start * UNIT, (start + 20) * UNIT, goes_on=False)
            assert bytes(data) == cut(start, start + 20, i)

    with trio.fail_after(1000):
        async with trio.open_nursery() as readers:
            for i in range(8):
                readers.start_soon(reader, i)
            for blocks in (9, 2, 5, 1, 8, 3, 2):
                memory.resize(blocks * BLOCK_BYTES)
                await trio.sleep(0.2)
    await trio.sleep(1)
    assert memory.used <= memory.limit == 2 * BLOCK_BYTES
