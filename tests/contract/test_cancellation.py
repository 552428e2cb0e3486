"""Whoever gives up gets the buffers back: nothing is written into them any more."""

from __future__ import annotations

import random
import threading

import pytest
import trio
import trio.testing

from s3mount.errors import Throttled, Unreachable
from s3mount.s3.bucket import Bucket
from s3mount.s3.wire import Connection, Head
from tests.contract.conftest import Subject
from tests.s3.scripted import Answer, ScriptedServer, error, part

BODY = bytes(range(256)) * 1000
WHOLE = part(BODY)
HALF = len(WHOLE) - 100_000


def views(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(b"." * size)) for size in sizes]


def reuse(into: list[memoryview]) -> None:
    """Fill the buffers with something else, as their owner may."""
    for view in into:
        view[:] = b"-" * len(view)


def untouched(into: list[memoryview]) -> bool:
    return all(bytes(view) == b"-" * len(view) for view in into)


async def test_cancelled_in_the_body(liar: Bucket, scripted: ScriptedServer) -> None:
    held = Answer(WHOLE[:HALF], "hold", rest=WHOLE[HALF:])
    scripted.script(held, WHOLE)
    into, filled = views(100_000, 100_000, 56_000), list[int]()
    with trio.CancelScope() as scope:

        def stop(index: int) -> None:
            filled.append(index)
            scope.cancel()

        await liar.get_range("a", 0, into, etag=None, on_filled=stop)
    assert scope.cancelled_caught
    assert filled == [0]
    assert bytes(into[0]) == BODY[:100_000]
    reuse(into)
    held.more.set()
    await trio.to_thread.run_sync(held.gone.wait)
    assert untouched(into)
    assert filled == [0]
    assert (await liar.get_range("a", 0, into, etag=None)).received == len(BODY)


async def test_cancelled_before_the_answer(liar: Bucket, scripted: ScriptedServer) -> None:
    held = Answer(b"", "hold", rest=WHOLE)
    scripted.script(held, WHOLE)
    into = views(len(BODY))
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            await liar.get_range("a", 0, into, etag=None)

        nursery.start_soon(read)
        await trio.to_thread.run_sync(scripted.asked.wait)
        nursery.cancel_scope.cancel()
    reuse(into)
    held.more.set()
    await trio.to_thread.run_sync(held.gone.wait)
    assert untouched(into)
    assert (await liar.get_range("a", 0, into, etag=None)).received == len(BODY)


async def test_cancelled_before_it_began(liar: Bucket, scripted: ScriptedServer) -> None:
    into = views(10)
    with trio.CancelScope() as scope:
        scope.cancel()
        await liar.get_range("a", 0, into, etag=None)
    assert scope.cancelled_caught
    assert scripted.requests == []


async def test_cancelled_at_any_moment(subject: Subject) -> None:
    subject.put({"a": BODY})
    chance = random.Random(1)
    kept: list[list[memoryview]] = []

    async def read() -> None:
        into = views(64_000, 64_000, 64_000, 64_000)
        with trio.move_on_after(chance.uniform(0, 0.03)) as scope:
            await subject.bucket.get_range("a", 0, into, etag=None, on_filled=lambda _: None)
        if scope.cancelled_caught:
            reuse(into)
            kept.append(into)
        else:
            assert b"".join(into) == BODY

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(read)
    into = views(len(BODY))
    reply = await subject.bucket.get_range("a", 0, into, etag=None)
    assert (reply.received, bytes(into[0])) == (len(BODY), BODY)
    assert all(untouched(into) for into in kept)


@pytest.mark.parametrize("read_timeout", [1.0])
@pytest.mark.parametrize("sent", [0, HALF], ids=["before the answer", "in the body"])
async def test_closed_meanwhile(liar: Bucket, scripted: ScriptedServer, sent: int) -> None:
    scripted.script(Answer(WHOLE[:sent], "hold"))
    into = views(len(BODY))
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - looked at below
                await liar.get_range("a", 0, into, etag=None)
            assert getattr(caught.value, "retryable", False), caught.value

        nursery.start_soon(read)
        await trio.to_thread.run_sync(scripted.asked.wait)
        await liar.aclose()
    with pytest.raises(Unreachable):
        await liar.head("a")


REFUSED = error("503 Slow Down", "SlowDown")


@pytest.mark.parametrize("liar", ["lean"], indirect=True)
async def test_cancelled_while_a_thread_reads_a_refusal(
    liar: Bucket, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_by: list[threading.Thread] = []
    close, read_text = Connection.close, Connection.read_text
    begun = threading.Event()

    def note(connection: Connection) -> None:
        closed_by.append(threading.current_thread())
        close(connection)

    def begin(connection: Connection, head: Head) -> bytes:
        begun.set()
        return read_text(connection, head)

    monkeypatch.setattr(Connection, "close", note)
    monkeypatch.setattr(Connection, "read_text", begin)
    held = Answer(REFUSED[:-10], "hold", rest=REFUSED[-10:])
    scripted.script(held)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            await liar.get_range("a", 0, views(100), etag=None)

        nursery.start_soon(read)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
    # Whoever reads closes: by its next recv(2), the descriptor might be another connection's.
    assert threading.main_thread() not in closed_by
    held.more.set()
    await trio.to_thread.run_sync(held.gone.wait)


async def test_a_connection_is_used_again_after_a_refusal(
    liar: Bucket, scripted: ScriptedServer
) -> None:
    scripted.script(REFUSED, part(b"x" * 100))
    into = views(100)
    with pytest.raises(Throttled):
        await liar.get_range("a", 0, into, etag=None)
    await liar.get_range("a", 0, into, etag=None)
    assert bytes(into[0]) == b"x" * 100
    assert scripted.connections == 1
