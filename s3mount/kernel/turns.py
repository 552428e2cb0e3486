"""Whose turn it is to wait for the kernel's next request.

pyfuse3 answers with several tasks that take turns, by a `trio.Lock`, at waiting for the
session's descriptor. Handing the lock on is a turn of the scheduler for each request, and
nearly all requests are answered without waiting for anything: then who received one may as
well wait for the next. So here a turn is given up when its request was received, and handed
on only when the handler has to wait, or its task ends. With it, a request costs 16 us of CPU
instead of 31.

INVARIANT: while any task of pyfuse3's is not suspended in a handler, one of them waits
for the next request, or is about to. `while_waiting` and the end of each task see to it.

pyfuse3 takes trio from its module's attribute, which `pyfuse3.asyncio` replaces too.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from types import SimpleNamespace, TracebackType
from typing import Any, Self, TypeVar

import pyfuse3
import trio

from s3mount.kernel.busy_poll import BusyPoll, looking

T = TypeVar("T")


class Turns:
    """Stands for pyfuse3's lock."""

    def __init__(self) -> None:
        self._is_taken = False
        self.answered_at_once = False  # the last request, and the next is likely to come soon
        self._waiting: deque[trio.lowlevel.Task] = deque()

    async def __aenter__(self) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        task = trio.lowlevel.current_task()
        self._waiting.append(task)

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def __aexit__(self, *_: object) -> None:
        self._is_taken = False

    def hand_on(self) -> None:
        """Let another task wait, if there is one and none does."""
        if self._waiting and not self._is_taken:
            self._is_taken = True
            trio.lowlevel.reschedule(self._waiting.popleft())


_turns = Turns()


def none_soon() -> None:
    """For a handler: what it answers keeps who asked busy for a while."""
    _turns.answered_at_once = False


class WhileWaiting(Awaitable[T]):
    """Awaits a handler, and hands the turn on as soon as it waits for anything."""

    __slots__ = ("_handler",)

    def __init__(self, handler: Coroutine[Any, Any, T]) -> None:
        self._handler = handler

    def __await__(self) -> Generator[Any, Any, T]:
        handler = self._handler
        _turns.answered_at_once = True
        try:
            trap = handler.send(None)
            _turns.answered_at_once = False
            _turns.hand_on()
            while True:
                try:
                    value = yield trap
                except BaseException as error:  # noqa: BLE001  # it is the handler's
                    trap = handler.throw(error)
                else:
                    trap = handler.send(value)
        except StopIteration as end:
            result: T = end.value
            return result


class _Nursery:
    """A nursery whose tasks hand the turn on when they end."""

    def __init__(self) -> None:
        self._opening = trio.open_nursery()

    async def __aenter__(self) -> Self:
        self._nursery = await self._opening.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._opening.__aexit__(kind, error, traceback)

    def start_soon(self, loop: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        async def work() -> None:
            # The kernel's word for a mount that ends while a request is being handed over; whoever
            # receives after that is told ENODEV, by which pyfuse3 ends (fuse_dev_do_read, Linux).
            with suppress(ConnectionAbortedError):
                try:
                    await loop(*args)
                finally:
                    _turns.hand_on()

        self._nursery.start_soon(work, name=name)


async def main() -> None:
    """`pyfuse3.main`, with turns that cost nothing where nobody waits."""
    busy_poll = BusyPoll(looking(), cores=len(os.sched_getaffinity(0)))

    async def wait_readable(fd: int) -> None:
        await busy_poll.wait(fd, answered_at_once=_turns.answered_at_once)

    lowlevel = SimpleNamespace(**{**vars(trio.lowlevel), "wait_readable": wait_readable})
    ours = {"Lock": lambda: _turns, "open_nursery": _Nursery, "lowlevel": lowlevel}
    # Its stub does not tell that it has the attribute.
    pyfuse3.trio = SimpleNamespace(**{**vars(trio), **ours})  # type: ignore[attr-defined]
    await pyfuse3.main()
