"""What is remembered of reads that failed, for the kernel's second try."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from s3mount.errors import Unreachable
from s3mount.reading.failures import FAILURE_SECONDS, KEPT, Failures


async def test_a_failure_is_told_once_more(autojump_clock: MockClock) -> None:
    failures, why = Failures(), Unreachable("no way")
    assert not failures
    failures.remember(100, 50, why)
    assert failures
    assert failures.recall(99) is failures.recall(150) is None
    assert failures.recall(120) is why
    assert not failures
    assert failures.recall(120) is None


async def test_a_failure_is_forgotten_soon(autojump_clock: MockClock) -> None:
    failures = Failures()
    failures.remember(0, 10, Unreachable("no way"))
    await trio.sleep(FAILURE_SECONDS)
    assert failures.recall(0) is None


@pytest.mark.parametrize("count", [KEPT, KEPT + 3])
async def test_the_latest_are_kept(autojump_clock: MockClock, count: int) -> None:
    failures = Failures()
    for at in range(count):
        failures.remember(at, 1, Unreachable(f"{at}"))
    told = [at for at in range(count) if failures.recall(at) is not None]
    assert told == list(range(count - KEPT, count))
