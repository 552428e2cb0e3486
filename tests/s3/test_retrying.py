"""The retry policy, over the fake bucket, by trio's fake clock: exact, and without waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from s3mount.errors import (
    AccessDenied,
    BadReply,
    DeadlineExceeded,
    Interrupted,
    NotFound,
    RequestError,
    ServerError,
    Throttled,
    Unreachable,
    VersionChanged,
)
from s3mount.metrics import Metrics
from s3mount.model import ListPage, RangeReply
from s3mount.s3.errors import RetryLater
from s3mount.s3.fake import FakeBucket, Fault, Request
from s3mount.s3.retrying import BASE, CAP, Retrying, pause

BODY = bytes(range(256)) * 4


def retrying(fake: FakeBucket, **options: float) -> Retrying:
    settings = {"retries": 10, "deadline": 60.0} | options
    return Retrying(
        fake,
        retries=int(settings["retries"]),
        deadline=settings["deadline"],
        metrics=fake.metrics,
        jitter=lambda: 0.5,
    )


def buffers(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


@pytest.fixture
def fake() -> FakeBucket:
    bucket = FakeBucket()
    bucket.put("a", BODY)
    return bucket


@pytest.mark.parametrize(
    "error", [Throttled("x"), ServerError("x"), Unreachable("x"), BadReply("x")]
)
@pytest.mark.parametrize("kind", ["head", "list", "get"])
async def test_what_may_pass_is_tried_again(
    fake: FakeBucket, autojump_clock: MockClock, kind: str, error: RequestError
) -> None:
    fake.inject(kind, error, error)  # type: ignore[arg-type]  # the three kinds of the literal
    bucket = retrying(fake)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "head": lambda: bucket.head("a"),
        "list": lambda: bucket.list_page(""),
        "get": lambda: bucket.get_range("a", 0, buffers(4), etag=None),
    }
    await calls[kind]()
    assert fake.count(kind) == 3  # type: ignore[arg-type]  # the same
    assert fake.metrics["retries"] == 2


@pytest.mark.parametrize("error", [NotFound("x"), AccessDenied("x"), VersionChanged("x")])
async def test_what_will_not_pass_is_raised_at_once(
    fake: FakeBucket, autojump_clock: MockClock, error: RequestError
) -> None:
    fake.inject("head", error)
    fake.inject("get", error)
    bucket = retrying(fake)
    with pytest.raises(type(error)):
        await bucket.head("a")
    with pytest.raises(type(error)):
        await bucket.get_range("a", 0, buffers(4), etag=None)
    assert len(fake.requests) == 2
    assert fake.metrics["retries"] == 0


async def test_the_last_error_is_raised_when_the_tries_are_used_up(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.rule = lambda request: Fault(Throttled("slow down"))
    bucket = retrying(fake, retries=3)
    for call in (
        lambda: bucket.head("a"),
        lambda: bucket.get_range("a", 0, buffers(1), etag=None),
    ):
        fake.requests.clear()
        with pytest.raises(Throttled, match="slow down"):
            await call()
        assert len(fake.requests) == 4


async def test_no_retries_means_one_try(fake: FakeBucket, autojump_clock: MockClock) -> None:
    fake.inject("head", Unreachable("reset"))
    with pytest.raises(Unreachable):
        await retrying(fake, retries=0).head("a")
    assert len(fake.requests) == 1


async def test_the_deadline_ends_tries_and_names_the_last_cause(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.rule = lambda request: Fault(ServerError("internal error"))
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded, match=r"HEAD of 'a' .* 7 s: internal error; raise"):
        await retrying(fake, retries=1000, deadline=7.0).head("a")
    assert trio.current_time() - began == pytest.approx(7.0)


async def test_the_deadline_ends_a_request_that_is_never_answered(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.rule = lambda request: Fault(stall=True)
    bucket = retrying(fake, deadline=7.0)
    for call in (
        lambda: bucket.list_page(""),
        lambda: bucket.get_range("a", 0, buffers(1), etag=None),
    ):
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded, match="no answer came"):
            await call()
        assert trio.current_time() - began == pytest.approx(7.0)
    assert fake.in_flight == 0


async def test_a_body_may_last_as_long_as_its_buffers_come(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.bytes_per_second = 100.0  # 256 bytes: 2.56 s
    into = buffers(256, 256, 256, 256)
    reply = await retrying(fake, deadline=3.0).get_range("a", 0, into, etag=None)
    assert reply.received == 1024
    assert trio.current_time() > 10
    with pytest.raises(DeadlineExceeded):
        await retrying(fake, deadline=2.0).get_range("a", 0, into, etag=None)


async def test_retry_after_is_waited_out(fake: FakeBucket, autojump_clock: MockClock) -> None:
    fake.inject("list", RetryLater("slow down", retry_after=11.0))
    began = trio.current_time()
    await retrying(fake).list_page("")
    assert trio.current_time() - began == pytest.approx(11.0)


async def test_a_body_goes_on_where_it_broke_off(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.inject("get", Fault(after=100), Fault(after=0), Fault(Unreachable("no")), Fault(after=200))
    into = buffers(64, 64, 64, 1000)
    filled: list[int] = []
    reply = await retrying(fake).get_range("a", 10, into, etag=None, on_filled=filled.append)
    assert b"".join(into)[: reply.received] == BODY[10:]
    assert (reply.received, reply.info) == (1014, await fake.head("a"))
    assert filled == [0, 1, 2, 3]
    assert [request.start for request in fake.requests[:-1]] == [10, 110, 110, 110, 310]
    etag = reply.info.etag
    assert [request.etag for request in fake.requests[:-1]] == [None, etag, etag, etag, etag]


async def test_tries_are_counted_anew_when_a_buffer_came(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.rule = lambda request: Fault(after=64) if request.start < 900 else None
    into = buffers(*[64] * 16)
    reply = await retrying(fake, retries=1).get_range("a", 0, into, etag=None)
    assert (reply.received, fake.count("get")) == (1024, 16)


async def test_a_replaced_object_is_not_mixed_into_what_was_shown(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.inject("get", Fault(after=100))

    def replace(index: int) -> None:
        fake.put("a", b"new" * 500)

    with pytest.raises(VersionChanged):
        await retrying(fake).get_range("a", 0, buffers(64, 64), etag=None, on_filled=replace)


async def test_a_replaced_object_is_read_anew_while_nothing_was_shown(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    def replace(request: Request) -> Fault | None:
        if len(fake.requests) == 1:
            return Fault(after=50)
        if len(fake.requests) == 2:
            fake.put("a", b"new" * 500)
        return None

    fake.rule = replace
    into = buffers(64, 64)
    reply = await retrying(fake).get_range("a", 0, into, etag=None)
    assert b"".join(into) == (b"new" * 500)[:128]
    assert reply.info.size == 1500
    assert [request.start for request in fake.requests] == [0, 50, 0]


async def test_a_version_that_was_asked_for_stays_asked_for(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    info = await fake.head("a")

    def replace(request: Request) -> None:
        fake.put("a", b"n" * 2000)

    fake.rule = replace
    with pytest.raises(VersionChanged):
        await retrying(fake).get_range("a", 0, buffers(64), etag=info.etag)


async def test_a_versioned_bucket_goes_on_with_the_version(autojump_clock: MockClock) -> None:
    fake = FakeBucket(versioned=True)
    info = fake.put("a", BODY)
    fake.inject("get", Fault(after=100))
    into = buffers(64, 64)

    def replace(index: int) -> None:
        fake.put("a", b"new" * 500)

    reply = await retrying(fake).get_range("a", 0, into, etag=None, on_filled=replace)
    assert b"".join(into) == BODY[:128]
    assert reply.info == info


async def test_bytes_of_an_unknown_version_are_not_built_upon(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    fake.inject("get", Fault(Interrupted("broke off", received=3)))
    with pytest.raises(Interrupted):
        await retrying(fake).get_range("a", 0, buffers(64), etag=None)
    info = await fake.head("a")
    fake.inject("get", Fault(Interrupted("broke off", received=3)))
    reply = await retrying(fake).get_range("a", 0, buffers(64), etag=info.etag)
    assert reply == RangeReply(info, 64)


async def test_cancellation_passes_through(fake: FakeBucket, autojump_clock: MockClock) -> None:
    fake.latency = 5.0
    with trio.move_on_after(1) as scope:
        await retrying(fake).get_range("a", 0, buffers(64), etag=None)
    assert scope.cancelled_caught
    assert len(fake.requests) == 1


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_limit(attempt: int, fraction: float) -> None:
    for error in (Throttled("x"), ServerError("x"), Unreachable("x"), BadReply("x")):
        assert 0 <= pause(error, attempt, fraction) <= CAP
    assert pause(Unreachable("x"), 1, fraction) == 0
    assert pause(Throttled("x"), 1, fraction) == pytest.approx(fraction * BASE)
    assert pause(Unreachable("x"), 2, fraction) == pytest.approx(fraction * BASE)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(0, 30),
    st.lists(st.integers(0, 60), max_size=12),
    st.booleans(),
)
def test_any_breaks_give_the_same_bytes(
    sizes: list[int], start: int, breaks: list[int], pinned: bool
) -> None:
    body = bytes(range(100))

    async def main() -> None:
        fake = FakeBucket(metrics=Metrics())
        info = fake.put("a", body)
        fake.inject("get", *[Fault(after=after) for after in breaks])
        into, filled = buffers(*sizes), list[int]()
        reply = await retrying(fake, retries=100).get_range(
            "a", start, into, etag=info.etag if pinned else None, on_filled=filled.append
        )
        want = body[start : start + sum(sizes)]
        assert b"".join(into)[: reply.received] == want
        assert b"".join(into)[reply.received :].strip(b"\0") == b""
        touched = [i for i in range(len(sizes)) if sum(sizes[:i]) < len(want)]
        assert filled == touched
        assert fake.metrics["bytes.fetched"] == len(want)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_briefly_tries_less_and_then_as_before(
    fake: FakeBucket, autojump_clock: MockClock
) -> None:
    bucket = retrying(fake, retries=5)
    fake.inject("head", *[Unreachable("x")] * 3)
    with bucket.briefly(2), pytest.raises(Unreachable):
        await bucket.head("a")
    assert fake.count("head") == 3
    fake.inject("head", *[Unreachable("x")] * 5)
    await bucket.head("a")
    assert fake.count("head") == 3 + 6


class _SomePagesEmpty(FakeBucket):
    """Answers each token first with an empty page, as S3 may."""

    async def list_page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> ListPage:
        if token is None or not token.startswith("!"):
            await trio.lowlevel.checkpoint()
            return ListPage((), (), "!" + (token or start_after or ""))
        return await super().list_page(
            prefix,
            delimiter=delimiter,
            start_after=token[1:],
            max_keys=max_keys,
        )


async def test_empty_pages_are_passed_over(autojump_clock: MockClock) -> None:
    fake = _SomePagesEmpty()
    for key in ("a", "b", "c"):
        fake.put(key, b"")
    bucket = retrying(fake)
    page = await bucket.list_page("", start_after="a")
    assert [info.key for info in page.objects] == ["b", "c"]
    assert page.next_token is None
    nothing = await bucket.list_page("z")
    assert (nothing.last, nothing.next_token) == ("", None)
