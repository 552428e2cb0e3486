"""A pause is told of once, and only when it lasts."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from s3mount.cache.pauses import Pauses


async def test_a_pause_ends_what_goes_on(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    told: list[float] = []
    pauses = Pauses(1.0, lambda: told.append(trio.current_time() - began))
    for _ in range(5):
        pauses.note()
        await trio.sleep(0.75)
    await trio.sleep(10)
    assert told == [4.0]
    pauses.note()
    await trio.sleep(10)
    assert told == [4.0, 14.75]
