"""What reading costs: the exact requests and bytes of each way to read, and who goes first."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from s3mount.model import ObjectInfo
from s3mount.reading.blocks import SECTOR_SIZE, Geometry
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.gate import RESERVED, Gate
from s3mount.reading.handle import Handle
from s3mount.reading.memory import Memory
from s3mount.reading.readahead import Readahead
from s3mount.reading.run import NEARLY_DONE, Run
from s3mount.s3.fake import FakeBucket

KIB = 1024
MIB = 1024 * KIB
BLOCK = MIB
# Every block of it begins with its number.
BIG = b"".join(i.to_bytes(4, "big") + bytes(BLOCK - 4) for i in range(64))


@dataclass
class Rig:
    bucket: FakeBucket
    fetcher: Fetcher
    memory: Memory
    readahead: Readahead
    info: ObjectInfo

    def open(self) -> Handle:
        return Handle(self.info, self.fetcher, self.readahead)

    @property
    def gets(self) -> list[tuple[int, int]]:
        """Offset and size of each GET, in the order they were asked for."""
        return [(r.start, r.size) for r in self.bucket.requests if r.kind == "get"]

    @property
    def fetched(self) -> int:
        return self.bucket.metrics["bytes.fetched"]


@asynccontextmanager
async def rig(
    memory: int = 96 * MIB, connections: int = 32, rate: float = 90e6
) -> AsyncIterator[Rig]:
    bucket = FakeBucket(latency=0.025, bytes_per_second=rate)
    info = bucket.put("big", BIG)
    async with trio.open_nursery() as nursery:
        store = Memory(BLOCK, memory)
        fetcher = Fetcher(
            bucket,
            cache=None,
            memory=store,
            geometry=Geometry(BLOCK, SECTOR_SIZE),
            nursery=nursery,
            scope="test",
            connections=connections,
        )
        yield Rig(bucket, fetcher, store, Readahead(memory, BLOCK), info)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def stream(handle: Handle, start: int, stop: int, size: int = 128 * KIB) -> None:
    for offset in range(start, stop, size):
        data = await handle.read(offset, size)
        assert bytes(data) == BIG[offset : offset + size]


async def test_a_first_read_at_the_start_fetches_one_block(autojump_clock: MockClock) -> None:
    async with rig() as it:
        await it.open().read(0, 4 * KIB)
        assert it.gets == [(0, BLOCK)]


async def test_a_stream_fetches_each_byte_once_in_few_requests(autojump_clock: MockClock) -> None:
    async with rig() as it:
        handle, began = it.open(), trio.current_time()
        await stream(handle, 0, len(BIG))
        seconds = trio.current_time() - began
        assert it.fetched == len(BIG)
        assert sum(size for _, size in it.gets) == len(BIG)
        assert len(it.gets) <= 1 + 64 / 2
        # Two round trips to begin with, and then more than ten connections' worth.
        assert seconds <= 2 * 0.037 + len(BIG) / (10 * 60e6)
        handle.close()


@pytest.mark.parametrize("memory", [8 * MIB, 14 * MIB])
async def test_a_stream_goes_on_with_little_memory(autojump_clock: MockClock, memory: int) -> None:
    async with rig(memory=memory) as it:
        began = trio.current_time()
        await stream(it.open(), 0, len(BIG))
        assert it.fetched == len(BIG)
        assert it.memory.used <= memory
        # Several requests at once, still: one after the other takes 64 * 37 ms.
        assert trio.current_time() - began < 64 * 0.037 / 2


async def test_a_random_read_fetches_its_sector_alone(autojump_clock: MockClock) -> None:
    offsets = [4 * KIB * n for n in (9000, 77, 5000, 12345, 42, 16000, 3, 8191)]
    async with rig() as it:
        handle = it.open()
        for offset in offsets:
            began = trio.current_time()
            assert bytes(await handle.read(offset, 4 * KIB)) == BIG[offset : offset + 4 * KIB]
            assert trio.current_time() - began == pytest.approx(0.025 + SECTOR_SIZE / 90e6)
        assert it.gets == [(offset // SECTOR_SIZE * SECTOR_SIZE, SECTOR_SIZE) for offset in offsets]


async def test_random_readers_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    async with rig() as it:
        handle, began = it.open(), trio.current_time()
        async with trio.open_nursery() as readers:
            for n in random.Random(1).sample(range(len(BIG) // SECTOR_SIZE), 32):
                readers.start_soon(handle.read, n * SECTOR_SIZE + 8 * KIB, 4 * KIB)
        assert trio.current_time() - began == pytest.approx(0.025 + SECTOR_SIZE / 90e6)
        assert it.fetched == 32 * SECTOR_SIZE


async def test_reading_backward_fetches_each_byte_once(autojump_clock: MockClock) -> None:
    async with rig() as it:
        handle, began = it.open(), trio.current_time()
        for offset in range(len(BIG) - 256 * KIB, 32 * BLOCK - 1, -256 * KIB):
            data = await handle.read(offset, 256 * KIB)
            assert bytes(data) == BIG[offset : offset + 256 * KIB]
        spans = sorted((start, start + size) for start, size in it.gets)
        assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))
        assert trio.current_time() - began < 0.5, "128 reads, one by one, take 3.5 s"


async def test_a_strided_reader_fetches_its_sectors_ahead_and_nothing_between(
    autojump_clock: MockClock,
) -> None:
    async with rig() as it:
        handle, began = it.open(), trio.current_time()
        for offset in range(BLOCK // 2, len(BIG), BLOCK):
            await handle.read(offset, 4 * KIB)
        assert it.fetched == 64 * SECTOR_SIZE
        assert len(it.gets) == 64
        assert trio.current_time() - began < 64 * 0.026 / 4


async def test_the_ends_of_files_take_a_round_trip_each_when_that_is_known(
    autojump_clock: MockClock,
) -> None:
    async with rig() as it:
        took, requests = [], []
        for name in "abcd":
            it.info = it.bucket.put(name, BIG)
            handle, began, before = it.open(), trio.current_time(), len(it.gets)
            await stream(handle, 63 * MIB, 64 * MIB, size=8 * KIB)
            handle.close()
            took.append(trio.current_time() - began)
            requests.append(len(it.gets) - before)
        assert all(2 * 0.025 < seconds < 2 * 0.025 + MIB / 90e6 for seconds in took[:2])
        assert all(0.025 < seconds < 0.025 + MIB / 90e6 for seconds in took[2:])
        assert requests == [8, 8, 2, 2]
        assert it.fetched == 4 * MIB


@pytest.mark.parametrize("step", [MIB, MIB // 4])
async def test_a_strided_reader_needs_no_more_memory_than_it_reads_ahead(
    autojump_clock: MockClock, step: int
) -> None:
    """Blocks that it has left behind make room."""
    async with rig(memory=40 * MIB) as it:
        handle, began = it.open(), trio.current_time()
        for offset in range(0, len(BIG), step):
            assert await handle.read(offset, 4 * KIB) == BIG[offset : offset + 4 * KIB]
        # Five doublings, and then 32 reads a round trip.
        assert trio.current_time() - began < (7 + len(BIG) / step / 32) * 0.03
        starts = [start for start, _ in it.gets]
        assert len(set(starts)) == len(starts)


async def test_streams_that_share_a_handle_fetch_each_byte_once(autojump_clock: MockClock) -> None:
    async with rig() as it:
        handle = it.open()
        async with trio.open_nursery() as readers:
            for n in range(4):
                readers.start_soon(stream, handle, n * 16 * MIB, (n + 1) * 16 * MIB)
        # Each one's first two reads, before it is known to be a stream, are of single sectors.
        assert it.fetched == len(BIG)


async def test_a_seek_ends_what_was_fetched_ahead(autojump_clock: MockClock) -> None:
    async with rig(rate=1e6) as it:  # a run takes seconds: what is not wanted must not
        handle = it.open()
        await stream(handle, 0, BLOCK)
        under_way = it.bucket.in_flight + len(handle._content.runs)
        assert under_way > 1
        await stream(handle, 40 * MIB, 41 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        ahead_of_old = [run for run in handle._content.runs if run.parts[0].block < 40]
        assert ahead_of_old == []


async def test_closing_ends_what_was_fetched_ahead(autojump_clock: MockClock) -> None:
    async with rig(rate=1e6) as it:
        handle = it.open()
        await stream(handle, 0, BLOCK)
        assert handle._content.runs
        handle.close()
        await trio.testing.wait_all_tasks_blocked()
        left = [
            sum(part.stop - part.first for part in run.left) * SECTOR_SIZE
            for run in it.open()._content.runs
        ]
        assert all(size <= NEARLY_DONE for size in left)


async def test_closing_leaves_alone_what_another_handle_reads(autojump_clock: MockClock) -> None:
    async with rig(rate=1e6) as it:
        one, other = it.open(), it.open()
        await stream(one, 0, BLOCK)
        runs = set(one._content.runs)
        assert runs
        one.close()
        await trio.testing.wait_all_tasks_blocked()
        assert set(other._content.runs) == runs


async def test_what_was_disclaimed_makes_room_for_others(autojump_clock: MockClock) -> None:
    """A reader that leaves early must not leave memory full of what nobody will read."""
    async with rig(memory=16 * MIB) as it:
        for _ in range(8):
            handle = it.open()
            await stream(handle, 0, BLOCK)
            await trio.sleep(5.0)
            handle.close()
        assert it.memory.room(100) == 16


async def test_what_was_fetched_ahead_is_not_pushed_out_by_reading_ahead(
    autojump_clock: MockClock,
) -> None:
    async with rig(memory=32 * MIB) as it:
        small = it.bucket.put("small", b"x" * 8 * MIB)
        content = it.fetcher.content(small)
        assert it.fetcher.request(content, 0, small.size, urgent=False) == small.size
        await stream(it.open(), 0, len(BIG))
        it.bucket.requests.clear()
        assert bytes(await it.fetcher.read(content, 0, MIB, goes_on=True)) == b"x" * MIB
        assert it.gets == []


async def test_many_readers_stay_within_memory_and_all_get_on(autojump_clock: MockClock) -> None:
    async with rig(memory=32 * MIB) as it:
        infos = [it.bucket.put(f"{n}", BIG[: 8 * MIB]) for n in range(64)]
        ended: list[float] = []

        async def reader(info: ObjectInfo) -> None:
            handle = Handle(info, it.fetcher, it.readahead)
            await stream(handle, 0, 8 * MIB)
            assert it.memory.used <= 32 * MIB
            handle.close()
            ended.append(trio.current_time())

        async with trio.open_nursery() as readers:
            for info in infos:
                readers.start_soon(reader, info)
        assert len(ended) == 64
        assert it.fetched <= 64 * 8 * MIB * 1.1, "little is fetched twice"


# --- who goes first -----------------------------------------------------------------------


def run_of(*, urgent: bool) -> Run:
    return Run([], urgent=urgent)


async def test_the_gate_lets_in_as_many_as_there_are_connections(
    autojump_clock: MockClock,
) -> None:
    gate = Gate(16)
    entered: list[bool] = []

    async def one(urgent: bool) -> None:
        await gate.enter(run_of(urgent=urgent))
        entered.append(urgent)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one, False)
        await trio.testing.wait_all_tasks_blocked()
        assert entered == [False] * int(16 * (1 - RESERVED))
        assert gate.is_crowded
        for _ in range(5):
            nursery.start_soon(one, True)
        await trio.testing.wait_all_tasks_blocked()
        assert entered.count(True) == 2, "what is left to the urgent ones"
        gate.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert entered.count(True) == 3, "before all others"
        nursery.cancel_scope.cancel()


async def test_a_run_that_somebody_waits_for_is_promoted(autojump_clock: MockClock) -> None:
    gate = Gate(1)
    await gate.enter(run_of(urgent=True))
    entered: list[str] = []
    runs = {name: run_of(urgent=False) for name in ("first", "second")}

    async def one(name: str) -> None:
        await gate.enter(runs[name])
        entered.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one, "second")
        await trio.testing.wait_all_tasks_blocked()
        gate.promote(runs["second"])
        for expected in (["second"], ["second", "first"]):
            gate.leave()
            await trio.testing.wait_all_tasks_blocked()
            assert entered == expected


async def test_runs_go_in_the_order_they_were_sent_off_in(autojump_clock: MockClock) -> None:
    """trio starts tasks in any order: the far end of a window would come first."""
    gate = Gate(1)
    await gate.enter(run_of(urgent=True))
    entered: list[int] = []
    runs = [run_of(urgent=False) for _ in range(5)]

    async def one(number: int) -> None:
        await gate.enter(runs[number])
        entered.append(number)

    async with trio.open_nursery() as nursery:
        for number in (3, 1, 4, 0, 2):
            nursery.start_soon(one, number)
            await trio.testing.wait_all_tasks_blocked()
        for _ in runs:
            gate.leave()
            await trio.testing.wait_all_tasks_blocked()
    assert entered == [0, 1, 2, 3, 4]


async def test_a_run_that_is_cancelled_while_it_waits_takes_no_connection(
    autojump_clock: MockClock,
) -> None:
    gate = Gate(1)
    await gate.enter(run_of(urgent=True))
    with trio.move_on_after(1.0):
        await gate.enter(run_of(urgent=False))
    assert not gate.is_crowded
    gate.leave()
    with trio.fail_after(1.0):
        await gate.enter(run_of(urgent=False))


async def test_a_run_that_is_cancelled_as_it_is_admitted_gives_its_connection_back(
    autojump_clock: MockClock,
) -> None:
    gate = Gate(1)
    await gate.enter(run_of(urgent=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.enter, run_of(urgent=True))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        gate.leave()
    with trio.fail_after(1.0):
        await gate.enter(run_of(urgent=True))


async def test_a_demand_overtakes_what_is_read_ahead(autojump_clock: MockClock) -> None:
    """With few connections and slow ones, a random read waits for one run, not for all."""
    async with rig(connections=2, rate=10e6) as it:
        handle = it.open()
        await stream(handle, 0, 2 * BLOCK)
        assert len(handle._content.runs) > 2
        other = it.bucket.put("other", BIG[:BLOCK])
        began = trio.current_time()
        await Handle(other, it.fetcher, it.readahead).read(512 * KIB, 4 * KIB)
        assert trio.current_time() - began < 0.6
