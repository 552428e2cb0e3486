"""Who waits for the kernel's next request, as pyfuse3's loop asks for turns."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from s3mount.kernel import turns


class _Kernel:
    """Requests, and tasks that answer them as pyfuse3's do: receive, answer, come back."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[str](100)
        self.answered: list[tuple[str, str]] = []
        self.may_go_on = trio.Event()

    async def work(self, name: str) -> None:
        while True:
            async with turns._turns:
                request = await self.receive.receive()
            if request == "end":
                return
            await turns.WhileWaiting(self._answer(name, request))

    async def _answer(self, name: str, request: str) -> None:
        if request == "slow":
            await self.may_go_on.wait()
        self.answered.append((name, request))


async def test_a_turn_is_handed_on_when_an_answer_has_to_wait_and_when_a_task_ends() -> None:
    kernel = _Kernel()
    async with turns._Nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(kernel.work, name, name=name)
            await wait_all_tasks_blocked()
        for request in ("quick", "quick", "slow", "quick"):
            kernel.send.send_nowait(request)
            await wait_all_tasks_blocked()
        # Who answers at once is the next to receive.
        assert kernel.answered == [("a", "quick"), ("a", "quick"), ("b", "quick")]
        kernel.may_go_on.set()
        await wait_all_tasks_blocked()
        for _ in "abc":
            kernel.send.send_nowait("end")
        with trio.fail_after(5):
            await wait_all_tasks_blocked()
    assert kernel.answered[3:] == [("a", "slow")]


async def test_a_mount_that_ends_while_a_request_is_handed_over_ends_in_peace() -> None:
    kernel = _Kernel()

    async def receive_in_vain() -> None:
        async with turns._turns:
            raise ConnectionAbortedError(errno.ECONNABORTED, "fuse_session_receive_buf failed")

    with trio.fail_after(5):
        async with turns._Nursery() as nursery:
            nursery.start_soon(receive_in_vain, name="a")
            nursery.start_soon(kernel.work, "b", name="b")
            kernel.send.send_nowait("end")  # as ENODEV, which the next one to receive is told


async def test_an_answers_value_error_and_cancellation_pass_through() -> None:
    async def ask(error: Exception | None) -> int:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        await trio.lowlevel.checkpoint()
        return 7

    async def forever() -> None:
        await trio.sleep_forever()

    assert await turns.WhileWaiting(ask(None)) == 7
    with pytest.raises(KeyError):
        await turns.WhileWaiting(ask(KeyError("x")))
    with trio.move_on_after(0) as scope:
        await turns.WhileWaiting(forever())
    assert scope.cancelled_caught


async def test_the_next_request_is_looked_for_after_what_was_answered_at_once() -> None:
    async def at_once() -> None:
        pass

    async def waiting() -> None:
        await trio.lowlevel.checkpoint()

    async def long() -> None:
        turns.none_soon()

    for answer, is_looked_for in (
        (at_once, True),
        (waiting, False),
        (at_once, True),
        (long, False),
    ):
        await turns.WhileWaiting(answer())
        assert turns._turns.answered_at_once is is_looked_for


async def test_who_is_cancelled_while_it_waits_for_a_turn_gets_none() -> None:
    kernel = _Kernel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.work, "a")
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await kernel.work("b")
        assert not turns._turns._waiting
        nursery.cancel_scope.cancel()
    assert not turns._turns._is_taken
