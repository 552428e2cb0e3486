"""A while that a machine which stands still does not use up, by a fake clock."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from s3mount.waiting import PARTS, come


async def test_it_ends_with_the_event(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    event = trio.Event()

    async def later() -> None:
        await trio.sleep(0.99)
        event.set()

    nursery.start_soon(later)
    assert await come(event, 1.0)
    assert trio.current_time() - 0.99 < 1e-6
    assert await come(event, 0.0)


async def test_it_ends_with_the_while(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    assert not await come(trio.Event(), 1.0)
    assert abs(trio.current_time() - began - 1.0) < 1e-6


async def test_a_stall_is_a_part_of_the_while(mock_clock: MockClock) -> None:
    event = trio.Event()
    results: list[bool] = []

    async def wait() -> None:
        results.append(await come(event, 1.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for _ in range(PARTS - 1):
            await wait_all_tasks_blocked()
            mock_clock.jump(100.0)
        await wait_all_tasks_blocked()
        assert results == []
        event.set()
    assert results == [True]
