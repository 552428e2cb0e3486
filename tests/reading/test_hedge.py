"""Second requests: who wins, what is written where, and what they cost. By a fake clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.errors import (
    AccessDenied,
    BadReply,
    Interrupted,
    RequestError,
    ServerError,
    Throttled,
    VersionChanged,
)
from s3mount.metrics import Metrics
from s3mount.model import ListPage, RangeReply
from s3mount.s3.bucket import OnFilled
from s3mount.s3.errors import BodyInterrupted
from s3mount.s3.fake import FakeBucket, Fault, Request
from s3mount.s3.hedging import LONGEST_HEDGE, MOST_BESIDE, TICK, Hedging
from s3mount.s3.patience import ALLOWANCE, ENOUGH, LOST_FIRST, LOST_NEXT, PROBE, UNKNOWN
from s3mount.s3.retrying import Retrying

SIZE = 1000
BODY = bytes((i * 7 + i // 251) % 256 for i in range(SIZE))
LATENCY = 0.03


@asynccontextmanager
async def hedging(bucket: FakeBucket, share: float = 0.1) -> AsyncIterator[Hedging]:
    async with trio.open_nursery() as nursery:
        yield Hedging(bucket, share=share, metrics=bucket.metrics, nursery=nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def bucket() -> FakeBucket:
    fake = FakeBucket(latency=LATENCY)
    fake.put("a", BODY)
    return fake


class Read:
    """A ranged GET of the object "a" into buffers of 100 bytes."""

    def __init__(self, bucket: FakeBucket, start: int = 0, count: int = 5) -> None:
        self.etag: str | None = bucket._objects["a"].info.etag
        self.start = start
        self.into = [memoryview(bytearray(b"\xee" * 100)) for _ in range(count)]
        self.told: list[int] = []
        self.shown: list[bytes] = []  # what each buffer held when it was told of

    def on_filled(self, index: int) -> None:
        self.told.append(index)
        self.shown.append(bytes(self.into[index]))

    async def by(self, hedged: Hedging | Retrying) -> int:
        reply = await hedged.get_range(
            "a", self.start, self.into, etag=self.etag, on_filled=self.on_filled
        )
        return reply.received

    @property
    def bytes(self) -> bytes:
        return b"".join(self.into)

    def check(self) -> None:
        """Every buffer was told of once, in order, holding what it holds now: the right bytes."""
        assert self.told == list(range(len(self.into)))
        assert self.shown == [bytes(buffer) for buffer in self.into]
        assert self.bytes == BODY[self.start : self.start + 100 * len(self.into)]


async def learn(hedged: Hedging, bucket: FakeBucket) -> None:
    """Have enough answers seen, and forget that they were asked for."""
    for _ in range(ENOUGH):
        await Read(bucket).by(hedged)
    bucket.requests.clear()


def counts(metrics: Metrics) -> tuple[int, int, int]:
    return metrics["requests.hedged"], metrics["requests.repeated"], metrics["hedges.won"]


async def test_in_calm_there_is_one_request(bucket: FakeBucket, autojump_clock: MockClock) -> None:
    async with hedging(bucket) as hedged:
        for _ in range(100):
            read = Read(bucket)
            assert await read.by(hedged) == 500
            read.check()
    assert bucket.count("get") == 100
    assert counts(bucket.metrics) == (0, 0, 0)


async def test_an_answer_that_never_comes_costs_little_more_than_two(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(stall=True))
        read, began = Read(bucket), trio.current_time()
        assert await read.by(hedged) == 500
        # late after twice the usual; looked at every tick; and a round trip
        assert trio.current_time() - began <= 3 * LATENCY + 2 * TICK
    read.check()
    assert [request.start for request in bucket.requests] == [0, 0]
    assert counts(bucket.metrics) == (1, 0, 1)


async def test_a_body_that_stalls_is_asked_for_from_the_buffer_that_is_missing(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    bucket.bytes_per_second = 1e6
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(after=250, stall=True))
        read = Read(bucket, start=100)
        assert await read.by(hedged) == 500
    read.check()
    assert [(r.start, r.size) for r in bucket.requests] == [(100, 500), (300, 300)]
    assert counts(bucket.metrics) == (1, 0, 1)


async def test_the_first_request_wins_when_it_goes_on_before_the_second(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(latency=0.05))
        bucket.inject("get", Fault(latency=60.0))
        read, began = Read(bucket), trio.current_time()
        await read.by(hedged)
        assert trio.current_time() - began == pytest.approx(0.08)
        await trio.testing.wait_all_tasks_blocked()
        assert bucket.in_flight == 0, "the loser is cancelled"
    read.check()
    assert counts(bucket.metrics) == (1, 0, 0)


async def test_before_anything_is_known_it_waits_longer(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    bucket.inject("get", Fault(stall=True))
    async with hedging(bucket) as hedged:
        read, began = Read(bucket), trio.current_time()
        await read.by(hedged)
        assert trio.current_time() - began == pytest.approx(UNKNOWN + LATENCY, abs=2 * TICK)
    read.check()


async def test_hedges_keep_to_their_share_and_what_is_lost_is_asked_for_again(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    bucket.rule = lambda _: Fault(stall=True)
    async with hedging(bucket, share=0.25) as hedged:
        async with trio.open_nursery() as readers:
            for _ in range(40):
                readers.start_soon(Read(bucket).by, hedged)
            await trio.sleep(LOST_FIRST - 2 * TICK)
            assert counts(bucket.metrics) == (ALLOWANCE + 0.25 * 40, 0, 0)
            await trio.sleep(60.0)
            assert bucket.metrics["requests.hedged"] == ALLOWANCE + 0.25 * 40
            assert bucket.in_flight <= 3 * 40
            readers.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert bucket.in_flight == 0


@pytest.mark.parametrize("kind", ["get", "list", "head"])
async def test_an_endpoint_that_was_dead_is_noticed_when_it_is_back(
    bucket: FakeBucket, autojump_clock: MockClock, kind: str
) -> None:
    died = trio.current_time()
    bucket.rule = lambda _: Fault(stall=True) if trio.current_time() < died + 8.0 else None
    async with hedging(bucket, share=0.0) as hedged:
        if kind == "get":
            read = Read(bucket)
            await read.by(hedged)
            read.check()
        elif kind == "list":
            assert len((await hedged.list_page("")).objects) == 1
        else:
            assert (await hedged.head("a")).size == SIZE
        assert trio.current_time() - died <= 8.0 + LOST_NEXT + LATENCY + 2 * TICK
    assert counts(bucket.metrics)[:2] == (0, 5)  # after 1, 3, 5, 7 and 9 seconds


async def test_while_nothing_is_answered_one_request_alone_is_sent_again(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    died = trio.current_time()
    bucket.rule = lambda _: Fault(stall=True) if trio.current_time() < died + 8.0 else None
    reads = [Read(bucket) for _ in range(90)]
    async with hedging(bucket, share=0.0) as hedged:
        async with trio.open_nursery() as readers:
            for read in reads:
                readers.start_soon(read.by, hedged)
        # The one that is answered tells that the others may be asked for again.
        assert trio.current_time() - died <= 8.0 + PROBE + 2 * LATENCY + 3 * TICK
    for read in reads:
        read.check()
    # one each second from 1 to 8, and then the other 89
    assert counts(bucket.metrics) == (0, 8 + 89, 90)


async def test_an_endpoint_that_takes_long_for_everything_is_not_asked_for_all_twice(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    bucket.latency = 5.0
    async with hedging(bucket, share=0.0) as hedged, trio.open_nursery() as readers:
        for _ in range(20):
            readers.start_soon(hedged.list_page, "")
    assert bucket.count("list") == 20 + 4  # after 1, 2, 3 and 4 seconds


async def test_a_slow_endpoint_is_left_to_answer(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    """The first request stays, or one that takes five seconds would never get an answer."""
    bucket.latency = 5.0
    async with hedging(bucket, share=0.0) as hedged:
        read, began = Read(bucket), trio.current_time()
        await read.by(hedged)
        assert trio.current_time() - began == pytest.approx(5.0)
        read.check()
        for _ in range(5):
            await Read(bucket).by(hedged)
        bucket.requests.clear()
        await Read(bucket).by(hedged)
        assert bucket.count("get") == 1, "by now it is known to be slow"


@pytest.mark.parametrize("error", [AccessDenied("x"), VersionChanged("x")])
async def test_what_will_not_pass_is_raised_at_once_whoever_says_it(
    bucket: FakeBucket, autojump_clock: MockClock, error: RequestError
) -> None:
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(stall=True), error)
        with trio.fail_after(1.0), pytest.raises(type(error)):
            await Read(bucket).by(hedged)


async def test_an_error_of_the_first_request_waits_for_the_second(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(ServerError("500"), latency=0.05))
        read = Read(bucket)
        await read.by(hedged)
    read.check()


async def test_without_a_second_request_an_error_is_raised_as_it_is(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    bucket.inject("get", Fault(after=250))
    async with hedging(bucket) as hedged:
        read = Read(bucket)
        with pytest.raises(Interrupted) as caught:
            await read.by(hedged)
    assert caught.value.received == 250
    assert read.bytes[:250] == BODY[:250]


async def test_what_a_second_request_received_in_part_is_not_counted(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(stall=True), Fault(after=250), Fault(stall=True))
        read = Read(bucket)
        with pytest.raises(Interrupted) as caught:
            await read.by(hedged)
    received = caught.value.received
    assert received % 100 == 0
    assert read.told == list(range(received // 100))
    assert read.bytes[:received] == BODY[:received]


async def test_what_was_made_use_of_counts_whatever_the_last_error_is(
    autojump_clock: MockClock,
) -> None:
    """Who retries must go on behind what was told of, also when the last request was refused."""
    asked = 0

    class Scripted(FakeBucket):
        async def get_range(
            self,
            key: str,
            start: int,
            into: Sequence[memoryview],
            *,
            etag: str | None,
            version_id: str | None = None,
            on_filled: OnFilled | None = None,
        ) -> RangeReply:
            nonlocal asked
            asked += 1
            if asked == 2:
                assert on_filled is not None
                for index in range(3):
                    into[index][:] = BODY[100 * index : 100 * index + 100]
                    on_filled(index)
                await trio.sleep(UNKNOWN + 0.1)
                info = self._objects[key].info
                raise BodyInterrupted("it broke off", received=300, info=info)
            if asked == 3:
                await trio.sleep(0.2)
                raise Throttled("503")
            await trio.sleep_forever()
            raise AssertionError

    bucket = Scripted()
    bucket.put("a", BODY)
    async with hedging(bucket) as hedged:
        read = Read(bucket)
        with pytest.raises(Interrupted) as caught:
            await read.by(hedged)
    assert asked == 3
    assert caught.value.received == 200
    assert read.told == [0, 1]
    assert read.bytes[:200] == BODY[:200]


async def test_without_an_etag_only_a_body_that_has_not_begun_is_hedged(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    """Two answers without a pin may be of two versions."""
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(after=250, stall=True))
        read = Read(bucket)
        read.etag = None
        with trio.move_on_after(30.0) as scope:
            await read.by(hedged)
        assert scope.cancelled_caught
        assert bucket.count("get") == 1
        bucket.inject("get", Fault(stall=True))
        read = Read(bucket)
        read.etag = None
        await read.by(hedged)
    read.check()


async def test_an_object_that_ends_early_leaves_the_rest_of_the_buffers_alone(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    async with hedging(bucket) as hedged:
        await learn(hedged, bucket)
        bucket.inject("get", Fault(stall=True))
        read = Read(bucket, start=730)
        assert await read.by(hedged) == 270
    assert read.told == [0, 1, 2]
    assert read.bytes == BODY[730:] + b"\xee" * 230


async def test_a_hedge_brings_a_little_and_the_rest_is_asked_for_anew(
    autojump_clock: MockClock,
) -> None:
    size = LONGEST_HEDGE // 2
    bucket = FakeBucket(latency=LATENCY)
    body = bytes(size) + b"\1" * size + b"\2" * size + b"\3" * size
    info = bucket.put("a", body)
    bucket.inject("get", Fault(stall=True))
    into = [memoryview(bytearray(size)) for _ in range(4)]
    told: list[int] = []
    async with hedging(bucket) as hedged:
        retrying = Retrying(hedged, retries=3, deadline=60.0, metrics=bucket.metrics)
        reply = await retrying.get_range("a", 0, into, etag=info.etag, on_filled=told.append)
    assert reply.received == 4 * size
    assert b"".join(into) == body
    assert told == [0, 1, 2, 3]
    assert [(r.start, r.size) for r in bucket.requests] == [
        (0, 4 * size),
        (0, 2 * size),
        (2 * size, 2 * size),
    ]


async def test_a_caller_that_is_cancelled_leaves_no_request_behind(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    bucket.rule = lambda _: Fault(stall=True)
    async with hedging(bucket) as hedged:
        for call in (lambda: Read(bucket).by(hedged), lambda: hedged.list_page("")):
            with trio.move_on_after(3.5):
                await call()
            await trio.testing.wait_all_tasks_blocked()
            assert bucket.in_flight == 0


faults = st.sampled_from(
    [
        None,
        Fault(stall=True),
        Fault(after=30, stall=True),
        Fault(after=250, stall=True),
        Fault(after=1),
        Fault(after=399),
        Fault(latency=0.2),
        Fault(latency=3.0),
        Fault(ServerError("500")),
        Fault(Throttled("503")),
        Fault(BadReply("a page of HTML")),
    ]
)


@settings(max_examples=300)
@given(
    faults=st.lists(faults, max_size=12),
    reads=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 8)), min_size=1, max_size=8),
    rate=st.sampled_from([1e3, 1e5, float("inf")]),
)
def test_whatever_goes_wrong_bytes_are_right_and_told_of_once(
    faults: list[Fault | None], reads: list[tuple[int, int]], rate: float
) -> None:
    async def main() -> None:
        bucket = FakeBucket(latency=LATENCY, bytes_per_second=rate)
        bucket.put("a", BODY)
        left = list(faults)
        bucket.rule = lambda request: left.pop() if left else None

        async def one(start: int, count: int) -> None:
            read = Read(bucket, start, min(count, -(-(SIZE - start) // 100)))
            with trio.fail_after(300.0):
                received = await read.by(retrying)
            assert received == min(SIZE - start, 100 * len(read.into))
            assert read.told == list(range(len(read.into)))
            assert read.bytes[:received] == BODY[start : start + received]
            assert read.shown == [bytes(buffer) for buffer in read.into]

        async with hedging(bucket) as hedged:
            retrying = Retrying(hedged, retries=20, deadline=120.0, metrics=bucket.metrics)
            async with trio.open_nursery() as readers:
                for start, count in reads:
                    readers.start_soon(one, start, count)
            await trio.testing.wait_all_tasks_blocked()
            assert bucket.in_flight == 0

    trio.run(main, clock=MockClock(autojump_threshold=0.0))


async def read_blocks(hedged: Hedging, bucket: FakeBucket, count: int) -> None:
    """Read an object by GETs of a MiB each, all at once."""
    block = bytes(range(256)) * (LONGEST_HEDGE // 256)
    etag = bucket.put("big", block * count).etag
    buffers = [memoryview(bytearray(LONGEST_HEDGE)) for _ in range(count)]
    async with trio.open_nursery() as readers:
        for i, buffer in enumerate(buffers):
            ask = partial(hedged.get_range, "big", i * LONGEST_HEDGE, [buffer], etag=etag)
            readers.start_soon(ask)
    assert all(buffer == block for buffer in buffers)


async def test_later_requests_for_all_of_many_hold_little_memory(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    asked = set[int]()
    later: list[float] = []  # when they were sent; each takes LATENCY

    def stall_at_first(request: Request) -> Fault | None:
        if request.start not in asked:
            asked.add(request.start)
            return Fault(stall=True)
        later.append(trio.current_time())
        return None

    bucket.rule = stall_at_first
    async with hedging(bucket, share=0.0) as hedged:
        with trio.fail_after(LOST_FIRST + 10 * LATENCY):
            await read_blocks(hedged, bucket, 20)
    at_once = [sum(now - LATENCY < sent <= now for sent in later) for now in later]
    assert max(at_once) == MOST_BESIDE // LONGEST_HEDGE
    assert counts(bucket.metrics) == (0, 20, 20)


async def test_later_requests_that_stay_silent_keep_no_others_from_being_sent(
    bucket: FakeBucket, autojump_clock: MockClock
) -> None:
    async with hedging(bucket, share=1.0) as hedged, trio.open_nursery() as readers:
        await learn(hedged, bucket)
        bucket.rule = lambda request: Fault(stall=request.key == "big")
        readers.start_soon(read_blocks, hedged, bucket, 6)
        await trio.sleep(5 * LOST_FIRST)
        assert bucket.metrics["requests.hedged"] == 6
        bucket.inject("get", Fault(stall=True))
        read = Read(bucket)
        with trio.fail_after(3 * LATENCY + 2 * TICK):
            await read.by(hedged)
        read.check()
        readers.cancel_scope.cancel()


class _BreaksWhenAskedAgain(FakeBucket):
    """Its first listing comes late; whatever is sent again meets a bug."""

    calls = 0

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("a bug")
        await trio.sleep(10)
        return await super().list_page(prefix, max_keys=max_keys)


async def test_a_bug_in_a_request_sent_again_ends_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    broken = _BreaksWhenAskedAgain()
    broken.put("a", BODY)
    async with hedging(broken) as hedged:
        page = await hedged.list_page("")
        assert [info.key for info in page.objects] == ["a"]
    assert broken.calls > 1
    assert "this is a bug" in caplog.text
