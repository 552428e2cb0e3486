"""The fetcher over a bucket in memory: each byte once, the right ones, within the memory."""

from __future__ import annotations

import gc

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from s3mount.errors import (
    AccessDenied,
    BadReply,
    NotFound,
    RequestError,
    ServerError,
    VersionChanged,
)
from s3mount.metrics import Metrics
from s3mount.s3.fake import FakeBucket, Fault
from s3mount.s3.retrying import Retrying
from tests.reading.rig import (
    BLOCK,
    SECTOR,
    UNIT,
    MemoryCache,
    body,
    cut,
    gets,
    read_all,
    rig_of,
)

# --- each byte once -----------------------------------------------------------------------


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 100), (3, 5), (15, 17), (96, 100)])
async def test_a_read_is_one_get_of_the_sectors_it_touches(
    nursery: trio.Nursery, autojump_clock: MockClock, start: int, stop: int
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(100))
    rig = rig_of(bucket, nursery)
    assert await rig.read(info, start, stop) == cut(start, stop)
    first, last = start // SECTOR * SECTOR, min(-(-stop // SECTOR) * SECTOR, 100)
    assert gets(bucket) == [(first, last)]
    assert await rig.read(info, start, stop) == cut(start, stop)
    assert bucket.count("get") == 1


async def test_a_hundred_readers_of_the_same_bytes_are_one_get(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=1.0)
    info = bucket.put("a", body(100))
    rig = rig_of(bucket, nursery)
    assert set(await read_all(rig, info, [(10, 20)] * 100)) == {cut(10, 20)}
    assert bucket.count("get") == 1


async def test_overlapping_readers_fetch_each_sector_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=1.0)
    info = bucket.put("a", body(200))
    rig = rig_of(bucket, nursery)
    ranges = [(0, 50), (30, 90), (60, 61), (0, 200), (199, 200)]
    assert await read_all(rig, info, ranges) == [cut(i, j) for i, j in ranges]
    fetched = [byte for start, stop in gets(bucket) for byte in range(start, stop)]
    assert sorted(fetched) == list(range(200))


async def test_what_is_cached_in_the_middle_is_not_fetched_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(64))
    rig = rig_of(bucket, nursery)
    await rig.read(info, 20, 30)
    assert gets(bucket) == [(20, 32)]
    assert await rig.read(info, 0, 64) == body(64)
    assert sorted(gets(bucket)[1:]) == [(0, 20), (32, 64)]


async def test_rows_in_the_cache_on_disk_are_not_fetched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(100))
    cache = MemoryCache(nursery)
    await rig_of(bucket, nursery, cache=cache).read(info, 32, 64)
    await trio.testing.wait_all_tasks_blocked()
    bucket.requests.clear()
    rig = rig_of(bucket, nursery, cache=cache)
    assert await rig.read(info, 0, 100) == body(100)
    assert sorted(gets(bucket)) == [(0, 32), (64, 100)]
    await trio.testing.wait_all_tasks_blocked()
    bucket.requests.clear()
    assert await rig_of(bucket, nursery, cache=cache).read(info, 0, 100) == body(100)
    assert gets(bucket) == []


async def test_single_sectors_are_cached_by_themselves(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(100))
    cache = MemoryCache(nursery)
    await rig_of(bucket, nursery, cache=cache).read(info, 20, 28)
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(map(len, cache.rows.values())) == [SECTOR * UNIT] * 2
    rig = rig_of(bucket, nursery, cache=cache)
    assert await rig.read(info, 21, 22) == cut(21, 22)
    assert bucket.count("get") == 1


# --- the cache fails ----------------------------------------------------------------------


@pytest.mark.parametrize("knows_absent", [True, False])
async def test_damaged_and_missing_rows_are_fetched(
    nursery: trio.Nursery, autojump_clock: MockClock, knows_absent: bool
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(160))
    cache = MemoryCache(nursery, knows_absent=knows_absent, latency=1.0)
    await rig_of(bucket, nursery, cache=cache).read(info, 0, 160)
    await trio.testing.wait_all_tasks_blocked()
    keys = list(cache.rows)
    del cache.rows[keys[2]]
    cache.damaged |= {keys[5], keys[6]}
    bucket.requests.clear()
    assert await rig_of(bucket, nursery, cache=cache).read(info, 0, 160) == body(160)
    assert sorted(gets(bucket)) == [(32, 48), (80, 112)]


async def test_a_cache_that_refuses_everything_costs_only_requests(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(400))
    rig = rig_of(bucket, nursery, cache=MemoryCache(nursery, refuses=lambda _: True), blocks=4)
    for start in range(0, 400, 40):
        assert await rig.read(info, start, start + 40) == cut(start, start + 40)


async def test_a_buffer_is_not_used_again_before_the_cache_lets_it_go(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """MemoryCache fails when it finds other bytes than it was given."""
    bucket = FakeBucket()
    info = bucket.put("a", body(800))
    async with trio.open_nursery() as holding:  # ends when the cache has let all go
        cache = MemoryCache(holding, hold=10.0)
        rig = rig_of(bucket, nursery, cache=cache, blocks=4)
        for start in range(0, 800, BLOCK):
            assert await rig.read(info, start, start + BLOCK) == cut(start, start + BLOCK)
    assert cache.held == 0
    assert len(cache.rows) == 50


# --- memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [2, 3, 5])
async def test_many_readers_share_little_memory_and_all_are_served(
    nursery: trio.Nursery, autojump_clock: MockClock, blocks: int
) -> None:
    bucket = FakeBucket(latency=0.01)
    infos = [bucket.put(f"{i}", body(300, i)) for i in range(8)]
    rig = rig_of(bucket, nursery, cache=MemoryCache(nursery, hold=0.05), blocks=blocks)
    served = 0

    async def reader(i: int) -> None:
        nonlocal served
        for start in range(i, 280, 9):
            assert await rig.read(infos[i], start, start + 20) == cut(start, start + 20, i)
        served += 1

    with trio.fail_after(1000):
        async with trio.open_nursery() as readers:
            for i in range(8):
                readers.start_soon(reader, i)
    assert served == 8


async def test_a_read_of_two_blocks_ends_with_memory_for_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=0.01)
    info = bucket.put("a", body(100))
    rig = rig_of(bucket, nursery, blocks=1)
    with trio.fail_after(100):
        assert await rig.read(info, 10, 90) == cut(10, 90)


async def test_space_that_comes_free_while_waiting_for_another_block_is_seen(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    bucket.rule = lambda request: Fault(latency=1.0 if request.key == "other" else 2.0)
    info, other = bucket.put("a", body(100)), bucket.put("other", body(100, 1))
    rig = rig_of(bucket, nursery, blocks=2)
    nursery.start_soon(rig.read, other, 0, BLOCK)
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(100):
        assert await rig.read(info, 0, 2 * BLOCK) == cut(0, 2 * BLOCK)


async def test_reading_ahead_takes_no_more_than_there_is(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=1.0)
    info = bucket.put("a", body(1000))
    rig = rig_of(bucket, nursery, blocks=4)
    content = rig.fetcher.content(info)
    reached = rig.fetcher.request(content, 0, 1000 * UNIT, urgent=False) // UNIT
    assert reached <= 4 * BLOCK
    await trio.testing.wait_all_tasks_blocked()
    bucket.requests.clear()
    assert await rig.read(info, 0, reached) == cut(0, reached)
    assert bucket.requests == []
    assert await rig.read(info, 900, 1000) == cut(900, 1000)


async def test_a_version_that_nobody_reads_is_forgotten(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    rig = rig_of(bucket, nursery, blocks=2)
    for i in range(50):
        info = bucket.put(f"{i}", body(20, i))
        await rig.read(info, 0, 20)
    gc.collect()
    assert len(rig.fetcher._contents) <= 2


# --- failures -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ServerError("500"), AccessDenied("403"), NotFound("404")])
async def test_a_failure_reaches_all_who_wait_and_the_next_try_works(
    nursery: trio.Nursery, autojump_clock: MockClock, error: RequestError
) -> None:
    bucket = FakeBucket(latency=1.0)
    info = bucket.put("a", body(100))
    bucket.inject("get", error)
    rig = rig_of(bucket, nursery)
    caught = []

    async def reader() -> None:
        with pytest.raises(type(error)) as info_:
            await rig.read(info, 10, 60)
        caught.append(info_.value)

    async with trio.open_nursery() as readers:
        for _ in range(10):
            readers.start_soon(reader)
    assert caught == [error] * 10
    assert bucket.count("get") == 1
    assert await rig.read(info, 10, 60) == cut(10, 60)
    assert bucket.count("get") == 2


async def test_what_arrived_before_a_body_broke_off_is_kept(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(100))
    bucket.inject("get", Fault(after=40 * UNIT))
    rig = rig_of(bucket, nursery)
    rig.fetcher.request(rig.fetcher.content(info), 0, 100 * UNIT, urgent=True)
    await trio.testing.wait_all_tasks_blocked()
    assert gets(bucket) == [(0, 100)]
    assert await rig.read(info, 0, 100) == body(100)
    assert gets(bucket)[1:] == [(32, 100)]


async def test_a_failure_leaves_other_readers_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=1.0)
    info = bucket.put("a", body(100))
    bucket.rule = lambda request: Fault(ServerError("500")) if request.start >= 64 * UNIT else None
    rig = rig_of(bucket, nursery)
    failed = trio.Event()

    async def bad() -> None:
        with pytest.raises(ServerError):
            await rig.read(info, 64, 100)
        failed.set()

    nursery.start_soon(bad)
    assert await rig.read(info, 0, 60) == cut(0, 60)
    await failed.wait()


async def test_an_answer_that_is_too_short_is_an_error(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    info = bucket.put("a", body(20))
    rig = rig_of(bucket, nursery)
    longer = rig.fetcher.content(info._replace(size=40 * UNIT))
    rig.fetcher.request(longer, 0, 40 * UNIT, urgent=True)
    with pytest.raises(BadReply, match="5120 bytes came of a range that has more"):
        await longer.blocks[2].arrival(1)
    with pytest.raises(VersionChanged):
        await rig.read(longer.info, 0, 40)


async def test_a_reader_that_gives_up_leaves_the_get_to_the_others(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket(latency=2.0)
    info = bucket.put("a", body(100))
    rig = rig_of(bucket, nursery)
    results = []

    async def patient() -> None:
        results.append(await rig.read(info, 0, 100))

    async with trio.open_nursery() as readers:
        readers.start_soon(patient)
        with trio.move_on_after(1.0) as scope:
            await rig.read(info, 0, 100)
        assert scope.cancelled_caught
    assert results == [body(100)]
    assert bucket.count("get") == 1


async def test_the_end_of_the_mount_ends_every_flight(autojump_clock: MockClock) -> None:
    bucket = FakeBucket(latency=1000.0)
    info = bucket.put("a", body(100))
    flights = trio.CancelScope()
    has_ended = trio.Event()

    async def hold(task_status: trio.TaskStatus[trio.Nursery]) -> None:
        with flights:
            async with trio.open_nursery() as nursery:
                task_status.started(nursery)
                await trio.sleep_forever()
        has_ended.set()

    async with trio.open_nursery() as readers:
        rig = rig_of(bucket, await readers.start(hold))

        async def reader() -> None:
            with pytest.raises(RequestError, match="the mount is ending"):
                await rig.read(info, 0, 100)

        readers.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        flights.cancel()
        await has_ended.wait()
    assert trio.current_time() < 10
    assert bucket.in_flight == 0


# --- versions -----------------------------------------------------------------------------


async def test_a_replaced_object_is_an_error_and_no_byte_of_the_new_one(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bucket = FakeBucket()
    old = bucket.put("a", body(100))
    rig = rig_of(bucket, nursery)
    assert await rig.read(old, 0, 10) == cut(0, 10)
    new = bucket.put("a", body(100, 1))
    with pytest.raises(VersionChanged):
        await rig.read(old, 50, 60)
    assert await rig.read(old, 0, 10) == cut(0, 10)
    assert await rig.read(new, 0, 100) == body(100, 1)


@pytest.mark.parametrize("then", ["replaced", "deleted"])
async def test_in_a_versioned_bucket_the_old_version_is_read_on(
    nursery: trio.Nursery, autojump_clock: MockClock, then: str
) -> None:
    bucket = FakeBucket(versioned=True)
    listed = bucket.put("a", body(100))._replace(version_id=None)
    rig = rig_of(bucket, nursery)
    assert await rig.read(listed, 0, 10) == cut(0, 10)
    if then == "replaced":
        bucket.put("a", body(100, 1))
    else:
        bucket.delete("a")
    assert await rig.read(listed, 10, 100) == cut(10, 100)


async def test_a_get_that_is_resumed_by_version_writes_into_no_other_block(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Blocks that landed early may be evicted, and their buffers lent, before the GET goes on."""
    bucket = FakeBucket(versioned=True, bytes_per_second=BLOCK * UNIT)
    info = bucket.put("a", body(64))
    other = bucket.put("other", body(400, 1))
    retrying = Retrying(bucket, retries=3, deadline=1000.0, metrics=Metrics(), jitter=lambda: 0.0)
    rig = rig_of(retrying, nursery, blocks=4)
    assert await rig.read(info, 0, 4) == cut(0, 4)  # the version is known now
    for start in range(0, 64, BLOCK):
        await rig.read(other, start, start + BLOCK)
    bucket.inject("get", Fault(after=40 * UNIT))

    async def replace() -> None:
        await trio.sleep(1.5)
        bucket.put("a", body(64, 2))

    nursery.start_soon(replace)
    rig.fetcher.request(rig.fetcher.content(info), 0, 64 * UNIT, urgent=True)
    for start in range(100, 400, BLOCK):
        stop = min(start + BLOCK, 400)
        assert await rig.read(other, start, stop) == cut(start, stop, 1)
        await trio.sleep(0.3)
        assert await rig.read(other, start, stop) == cut(start, stop, 1)
    assert await rig.read(info, 0, 64) == body(64)
