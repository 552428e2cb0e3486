"""Rows of whole blocks serve reads of single sectors: what the cache holds is never fetched."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from s3mount.model import ObjectInfo
from s3mount.reading.rows import ASIDES
from s3mount.s3.fake import FakeBucket
from tests.reading.rig import UNIT, MemoryCache, body, cut, gets, read_all, rig_of


async def cached(
    bucket: FakeBucket, nursery: trio.Nursery, size: int
) -> tuple[ObjectInfo, MemoryCache]:
    """An object, and a cache that has all of it."""
    info = bucket.put("a", body(size))
    cache = MemoryCache(nursery, latency=1.0)
    await rig_of(bucket, nursery, cache=cache).read(info, 0, size)
    await trio.testing.wait_all_tasks_blocked()
    bucket.requests.clear()
    return info, cache


@pytest.mark.parametrize("knows_absent", [True, False])
async def test_sectors_of_a_block_that_is_cached_whole_are_not_fetched(
    nursery: trio.Nursery, autojump_clock: MockClock, knows_absent: bool
) -> None:
    bucket = FakeBucket()
    info, cache = await cached(bucket, nursery, 100)
    cache.knows_absent = knows_absent
    rig = rig_of(bucket, nursery, cache=cache)
    assert await rig.read(info, 21, 22) == cut(21, 22)
    assert await rig.read(info, 97, 99) == cut(97, 99)
    assert await read_all(rig, info, [(40, 41), (46, 47), (30, 34)]) == [
        cut(40, 41), cut(46, 47), cut(30, 34),
    ]  # fmt: skip
    assert gets(bucket) == []
    asked = len(cache.asked)
    assert await rig.read(info, 16, 32) == cut(16, 32)
    assert len(cache.asked) == asked  # all of a row that was read is here


async def test_a_block_cached_whole_serves_the_sectors_that_are_not_here(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What is here stays as it is, though the row that has it too is damaged."""
    bucket = FakeBucket()
    info, cache = await cached(bucket, nursery, 64)
    rows, cache.rows = cache.rows, {}
    rig = rig_of(bucket, nursery, cache=cache)
    assert await rig.read(info, 4, 8) == cut(4, 8)
    assert await rig.read(info, 20, 24) == cut(20, 24)
    cache.rows = rows
    cache.damaged = {key for key in rows if "/4096+" in key}
    bucket.requests.clear()
    ranges = [(1, 2), (4, 8), (9, 12), (17, 18), (20, 24), (25, 26)]
    assert await read_all(rig, info, ranges) == [cut(*each) for each in ranges]
    assert sorted(gets(bucket)) == [(16, 20), (24, 28)]


async def test_few_rows_are_read_aside_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Their memory is beside the budget."""
    bucket = FakeBucket()
    info, cache = await cached(bucket, nursery, 128)
    rows, cache.rows = cache.rows, {}
    rig = rig_of(bucket, nursery, cache=cache)
    starts = range(0, 128, 16)
    await read_all(rig, info, [(start, start + 1) for start in starts])
    cache.rows, cache.most_rows_at_once = rows, 0
    bucket.requests.clear()
    ranges = [(start + 9, start + 10) for start in starts]
    assert await read_all(rig, info, ranges) == [cut(*each) for each in ranges]
    assert gets(bucket) == []
    assert cache.most_rows_at_once == ASIDES


async def test_a_cached_block_that_turns_out_bad_is_fetched_by_the_sector(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(64))
    cache = MemoryCache(nursery, latency=1.0, knows_absent=False)
    await rig_of(bucket, nursery, cache=cache).read(info, 36, 40)  # a row of one sector
    await rig_of(bucket, nursery, cache=cache).read(info, 0, 64)
    await trio.testing.wait_all_tasks_blocked()
    cache.damaged = {key for key in cache.rows if key.endswith("+4096")}
    bucket.requests.clear()
    rig = rig_of(bucket, nursery, cache=cache)
    # The second wants what the first one's row would have brought.
    assert await read_all(rig, info, [(33, 34), (45, 46), (37, 38)]) == [
        cut(33, 34), cut(45, 46), cut(37, 38),
    ]  # fmt: skip
    assert sorted(gets(bucket)) == [(32, 36), (44, 48)]


async def test_nobody_waits_for_ever_for_a_cached_row_that_is_read_no_more(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Reading ahead asked for a sector, its row brings the block, and then it is dropped."""
    bucket = FakeBucket()
    info, cache = await cached(bucket, nursery, 64)
    rig = rig_of(bucket, nursery, cache=cache)
    content = rig.fetcher.content(info)
    rig.fetcher.request(content, 16 * UNIT, 20 * UNIT, urgent=False)
    await trio.testing.wait_all_tasks_blocked()
    for run in content.runs:
        run.drop()
    with trio.fail_after(100):
        assert await rig.read(info, 28, 30) == cut(28, 30)
        assert await rig.read(info, 16, 20) == cut(16, 20)
    assert gets(bucket) == []


async def test_the_cache_is_told_what_a_row_keeps_from_readers(nursery: trio.Nursery) -> None:
    """A sector keeps the buffer of its block, which is a whole one but for small files."""
    bucket = FakeBucket()
    cache = MemoryCache(nursery)
    rig = rig_of(bucket, nursery, cache=cache)
    large, small = bucket.put("large", body(31)), bucket.put("small", body(7))
    await rig.read(large, 30, 31)
    await rig.read(small, 0, 1)
    kept = {key.rpartition("/")[2]: size for key, size in cache.kept.items()}
    assert kept == {f"{28 * UNIT}+{3 * UNIT}": 16 * UNIT, f"0+{4 * UNIT}": 7 * UNIT}


async def test_the_cache_may_come_back_for_a_block_as_long_as_it_is_in_memory(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(64))
    cache = MemoryCache(nursery, is_behind=True)
    rig = rig_of(bucket, nursery, cache=cache, blocks=3)
    for start in range(0, 64, 16):
        await rig.read(info, start, start + 16)
    assert (cache.rows, len(cache.late)) == ({}, 4)
    cache.is_behind = False
    cache.catch_up()
    # What is claimed stays, whoever else wants memory.
    assert await rig.read(info, 0, 16) == cut(0, 16)
    await trio.testing.wait_all_tasks_blocked()
    bucket.requests.clear()
    again = rig_of(bucket, nursery, cache=cache)
    assert await again.read(info, 0, 64) == body(64)
    assert gets(bucket) == []
    assert cache.gone == 1
