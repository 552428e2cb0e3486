"""Lines: answers read as they come, by the trio thread or one beside it; kept connections."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import outcome
import pytest
import trio
import trio.testing

from s3mount.errors import Closed, Unreachable
from s3mount.s3.lines import Lines, OddAnswer
from s3mount.s3.wire import Address, ClosedEarly, Connection, Head, NotHttp
from s3mount.s3.workers import Job, Workers
from tests.s3.scripted import Answer, ScriptedServer, text

BODY = "0123456789" * 2000
REQUEST = b"GET / HTTP/1.1\r\n\r\n"
GOOD = text("200 OK", BODY)
ODD = text("404 Not Found", "nothing here")


class Question(Job[bytes]):
    """Asks for a body, piece by piece or in a worker's thread. Of 404 a thread reads the text."""

    def __init__(self, *, is_long: bool = False) -> None:
        super().__init__()
        self.is_long = is_long
        self.begin()

    def begin(self) -> None:
        self.head: Head | None = None
        self.told: list[int] = []
        self.body = bytearray()
        self.failed: OSError | None = None

    def request(self) -> bytes:
        return REQUEST

    def advance(self, connection: Connection, tell: Callable[[int], None]) -> bool:
        if self.head is None:
            self.head = connection.poll_head()
            if self.head is None:
                return False
            if self.head.status != 200:
                raise OddAnswer(self.head)
        piece = bytearray(1000)
        while len(self.body) < int(self.head.headers["content-length"]):
            count = connection.poll_into(memoryview(piece))
            if count is None:
                return False
            if not count:
                raise ClosedEarly("it ended early")
            self.body += piece[:count]
        tell(len(self.body))
        self.whole = True
        return True

    def on_told(self, index: int) -> None:
        self.told.append(index)

    @property
    def keep(self) -> bool:
        return self.whole and self.head is not None and self.head.keep_alive

    @property
    def result(self) -> bytes:
        return bytes(self.body)

    def failure(self, error: OSError) -> Exception:
        self.failed = error
        return error

    def receive(self, connection: Connection, head: Head, tell: Callable[[int], None]) -> bytes:
        data = connection.read_text(head)
        self.whole = True
        return data


def address_of(server: ScriptedServer) -> Address:
    host, _, port = server.endpoint_url.removeprefix("http://").partition(":")
    return Address(host, int(port), None)


class Rig:
    """Lines and workers with at most two connections to the scripted server."""

    def __init__(
        self, server: ScriptedServer, timeout: float = 5.0, *, is_long: bool = False
    ) -> None:
        self.server = server
        self.is_long = is_long
        self.workers = Workers(address_of(server), limit=2, timeout=timeout)
        self.lines = Lines(
            self.workers.address,
            free=self.workers.free,
            borrow=self.workers.lend,
            timeout=timeout,
        )
        self.workers.borrow = self.lines.lend

    async def ask(self) -> bytes:
        question = Question(is_long=self.is_long)
        answer = await self.lines.run(question)
        is_odd = question.head is not None and question.head.status != 200
        assert question.told == ([] if is_odd else [len(answer)])
        return answer

    async def work(self) -> bytes:
        return await self.workers.run(Question())

    async def until(self, event: threading.Event) -> None:
        await trio.to_thread.run_sync(event.wait)

    async def all_at_once(self, *calls: Callable[[], Awaitable[bytes]]) -> None:
        """None of the answers, which are held, is there before all were asked for."""
        held = [Answer(GOOD[:50], "hold", rest=GOOD[50:], kept=True) for _ in calls]
        self.server.script(*held)
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)
            for answer in held:
                await self.until(answer.begun)
            for answer in held:
                answer.more.set()


@pytest.fixture(params=[False, True], ids=["small", "long"])
async def rig(scripted: ScriptedServer, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """Reads answers on the trio thread, or in the one for long ones."""
    rig = Rig(scripted, is_long=request.param)
    yield rig
    await rig.lines.aclose()
    await rig.workers.aclose()


@pytest.mark.parametrize("cut", [1, 17, len(GOOD) - len(BODY), len(GOOD) - 1])
async def test_an_answer_in_pieces(rig: Rig, cut: int) -> None:
    held = Answer(GOOD[:cut], "hold", rest=GOOD[cut:])
    rig.server.script(held)
    seen: list[bytes] = []

    async def ask() -> None:
        seen.append(await rig.ask())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await rig.until(held.begun)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        held.more.set()
    assert seen == [BODY.encode()]


async def test_a_connection_is_kept_also_after_an_odd_answer(rig: Rig) -> None:
    rig.server.script(GOOD, ODD, GOOD)
    assert [await rig.ask() for _ in range(3)] == [BODY.encode(), b"nothing here", BODY.encode()]
    assert rig.server.connections == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(b"", "close"), ClosedEarly),
        (Answer(GOOD[:20], "close"), ClosedEarly),
        (Answer(GOOD[:-1], "close"), ClosedEarly),
        (Answer(GOOD[:-1], "reset"), ConnectionResetError),
        (Answer(b"220 ready\r\n\r\n"), NotHttp),
    ],
)  # fmt: skip
async def test_an_answer_that_breaks_off_or_is_none(
    rig: Rig, answer: Answer, error: type[Exception]
) -> None:
    rig.server.script(answer, GOOD)
    with pytest.raises(error):
        await rig.ask()
    assert await rig.ask() == BODY.encode()
    assert (rig.server.connections, len(rig.server.requests)) == (2, 2)


async def test_an_idle_connection_that_was_closed_is_noticed_and_another_one_made(rig: Rig) -> None:
    first = Answer(GOOD, "close")
    rig.server.script(first, GOOD)
    assert await rig.ask() == BODY.encode()
    await rig.until(first.gone)
    assert await rig.ask() == BODY.encode()
    assert (rig.server.connections, len(rig.server.requests)) == (2, 2)


async def test_a_connection_that_closes_on_a_request_is_replaced_once(rig: Rig) -> None:
    """S3 closed it just then: not one byte of an answer came, so it can be sent again."""
    rig.server.script(GOOD, Answer(b"", "close"), Answer(b"", "close"), GOOD)
    assert await rig.ask() == BODY.encode()
    with pytest.raises(ClosedEarly):
        await rig.ask()
    assert (rig.server.connections, len(rig.server.requests)) == (2, 3)


async def test_who_is_cancelled_leaves_at_once_and_the_connection_ends(rig: Rig) -> None:
    held = Answer(GOOD[:-100], "hold", rest=GOOD[-100:])
    rig.server.script(held, GOOD)
    question = Question(is_long=rig.is_long)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.lines.run, question)
        await rig.until(held.begun)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    had = bytes(question.body)
    held.more.set()
    await rig.until(held.gone)
    assert await rig.ask() == BODY.encode()
    assert bytes(question.body) == had
    assert rig.server.connections == 2


async def test_who_is_cancelled_as_an_odd_answer_comes_leaves_no_connection_open(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the answer's first bytes and the thread that is to read it, which never begins."""
    rig = Rig(scripted)
    scripted.script(Answer(ODD, "hold"), GOOD)
    scope = trio.CancelScope()
    used: list[Connection] = []
    reschedule = trio.lowlevel.reschedule

    def and_cancel(task: trio.lowlevel.Task, result: outcome.Outcome[None]) -> None:
        reschedule(task, result)
        if isinstance(result, outcome.Error):
            scope.cancel()

    class Watched(Question):
        def advance(self, connection: Connection, tell: Callable[[int], None]) -> bool:
            used[:] = [connection]
            return super().advance(connection, tell)

    with scope, monkeypatch.context() as patch:
        patch.setattr(trio.lowlevel, "reschedule", and_cancel)
        await rig.lines.run(Watched())
    assert scope.cancelled_caught
    assert [connection.fileno() for connection in used] == [-1]
    assert await rig.ask() == BODY.encode()
    await rig.lines.aclose()


@pytest.mark.parametrize("is_long", [False, True])
async def test_a_silent_server_is_a_time_out(scripted: ScriptedServer, is_long: bool) -> None:
    rig = Rig(scripted, timeout=0.1)
    scripted.script(Answer(GOOD[:-1], "hold"))
    question = Question(is_long=is_long)
    with pytest.raises(TimeoutError):
        await rig.lines.run(question)
    assert isinstance(question.failed, TimeoutError)
    await rig.lines.aclose()


async def test_closing_ends_what_is_under_way_and_what_comes_later(rig: Rig) -> None:
    held = Answer(GOOD[:-1], "hold")
    rig.server.script(held)

    async def ask() -> None:
        with pytest.raises(Closed):
            await rig.ask()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await rig.until(held.begun)
        await rig.lines.aclose()
    await ask()
    assert rig.server.connections == 1


async def test_no_more_are_busy_than_the_limit(rig: Rig) -> None:
    await rig.all_at_once(rig.ask, rig.ask)
    held = [Answer(GOOD[:50], "hold", rest=GOOD[50:], kept=True) for _ in range(2)]
    rig.server.script(*held, GOOD)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(rig.ask)
        for answer in held:
            await rig.until(answer.begun)
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.server.requests) == 4
        for answer in held:
            answer.more.set()
    assert len(rig.server.requests) == 5
    assert rig.server.connections == 2


async def test_lines_and_workers_use_each_others_idle_connections(rig: Rig) -> None:
    """Together, they have no more connections open than the limit, idle ones among them."""
    ask, work = rig.ask, rig.work
    for calls in ((ask, ask), (work, work), (ask, work), (ask, ask), (work, work)):
        await rig.all_at_once(*calls)
    assert len(rig.server.requests) == 10
    assert rig.server.connections == 2


@pytest.mark.parametrize("kind", ["ask", "work"])
async def test_what_was_closed_while_idle_is_not_lent(rig: Rig, kind: str) -> None:
    first = Answer(GOOD, "close")
    rig.server.script(first, GOOD)
    calls = [rig.ask, rig.work] if kind == "ask" else [rig.work, rig.ask]
    assert await calls[0]() == BODY.encode()
    await rig.until(first.gone)
    assert await calls[1]() == BODY.encode()
    assert (rig.server.connections, len(rig.server.requests)) == (2, 2)


async def test_an_error_of_who_is_told_is_raised_in_the_callers_task(rig: Rig) -> None:
    class Unwilling(Question):
        def on_told(self, index: int) -> None:
            raise LookupError(index)

    rig.server.script(GOOD, GOOD)
    with pytest.raises(LookupError):
        await rig.lines.run(Unwilling(is_long=rig.is_long))
    assert await rig.ask() == BODY.encode()


async def test_if_the_thread_of_long_answers_fails_all_of_them_end_and_the_next_has_another(
    scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaking(Question):
        """Closes the descriptor that the thread watches: epoll_ctl(2) fails."""

        def advance(self, connection: Connection, tell: Callable[[int], None]) -> bool:
            connection.close()
            return True

    rig = Rig(scripted, is_long=True)
    held = Answer(GOOD[:-1], "hold")
    scripted.script(held, GOOD, GOOD)

    async def wait_for_held() -> None:
        with pytest.raises(Unreachable):
            await rig.ask()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_held)
        await rig.until(held.begun)
        with pytest.raises(Unreachable):
            await rig.lines.run(Breaking(is_long=True))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "this is a bug" in record.message
    assert await rig.ask() == BODY.encode()
    await rig.lines.aclose()
