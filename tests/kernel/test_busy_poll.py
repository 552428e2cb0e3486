"""Whether the kernel's next request is looked for, or slept through."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
import trio

from s3mount.kernel.busy_poll import LOOK, RUN, SOON, BusyPoll, looking

FD = 7
US = 1e-6


class _Program:
    """Asks again so many seconds after each answer; a look, and a wake-up, take 10 us each."""

    def __init__(self, thinks: float, *, cores: int = 2) -> None:
        self.thinks = thinks
        self.now = 100.0
        self.asks_at = 0.0
        self.looks = self.sleeps = 0
        self._busy_poll = BusyPoll(self._is_ready, self._sleep, lambda: self.now, cores=cores)

    async def ask(self, times: int, *, answered_at_once: bool = True) -> None:
        for _ in range(times):
            self.asks_at = self.now + self.thinks
            await self._busy_poll.wait(FD, answered_at_once=answered_at_once)
            self.now = max(self.now, self.asks_at)

    def _is_ready(self, fd: int) -> bool:
        assert fd == FD
        self.looks += 1
        self.now += 10 * US
        return self.now >= self.asks_at

    async def _sleep(self, fd: int) -> None:
        assert fd == FD
        self.sleeps += 1
        self.now = max(self.now, self.asks_at) + 10 * US
        await trio.lowlevel.checkpoint()


async def test_what_comes_soon_is_looked_for_and_not_slept_through() -> None:
    program = _Program(20 * US)
    await program.ask(100)
    assert program.sleeps == 1
    assert program.looks == 2 * 99


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(_Program(2 * SOON), id="a program that thinks"),
        pytest.param(_Program(20 * US, cores=1), id="a single core, which the program needs"),
    ],
)
async def test_else_it_is_slept_through(program: _Program) -> None:
    await program.ask(100)
    assert program.sleeps == 100
    assert not program.looks


async def test_after_an_answer_that_waited_it_is_slept_through() -> None:
    program = _Program(20 * US)
    await program.ask(10)
    looks = program.looks
    await program.ask(10, answered_at_once=False)
    assert program.looks == looks


async def test_who_goes_away_is_looked_for_once() -> None:
    program = _Program(20 * US)
    await program.ask(10)
    looks = program.looks
    program.thinks = 1.0
    await program.ask(10)
    assert 0 < (program.looks - looks) * 10 * US <= LOOK + 10 * US


async def test_other_tasks_have_their_turn() -> None:
    program = _Program(20 * US)
    turns: list[float] = []

    async def other() -> None:
        while True:
            turns.append(program.now)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await program.ask(1000)
        nursery.cancel_scope.cancel()
    assert program.sleeps == 1
    gaps = [after - before for before, after in pairwise(turns)]
    assert len(gaps) > 10
    assert max(gaps) <= 2 * (RUN + 50 * US)  # trio shuffles whose turn comes first in a round


def test_looking_tells_what_is_there() -> None:
    reader, writer = os.pipe()
    is_ready = looking()
    assert not is_ready(reader)
    os.write(writer, b"x")
    assert is_ready(reader)
    os.close(writer)
    os.close(reader)
