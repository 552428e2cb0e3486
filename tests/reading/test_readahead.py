"""How much each handle may read ahead, of how much memory, beside a cache and without one."""

from __future__ import annotations

import pytest

from s3mount.reading.readahead import Readahead

MIB = 1024 * 1024
WAITED_FOR = 2  # blocks that the kernel's own readahead waits for


@pytest.mark.parametrize(
    ("memory", "alone", "beside_cache"),
    [(12, 10.8, 10.8), (78, 70.2, 60), (200, 180, 150)],
)
def test_a_cache_that_is_filled_wants_memory_where_there_is_plenty(
    memory: int, alone: float, beside_cache: float
) -> None:
    for with_cache, expected in ((False, alone), (True, beside_cache)):
        readahead = Readahead(memory * MIB, MIB, beside_cache=with_cache)
        readahead.join()
        assert readahead.limits.window == pytest.approx((expected - WAITED_FOR) * MIB, abs=1)


def test_the_length_of_runs_is_the_same_whatever_a_process_takes() -> None:
    runs = {Readahead(memory * MIB, MIB, beside_cache=True).limits.run for memory in range(68, 80)}
    assert runs == {4 * MIB}


def test_all_who_read_ahead_have_the_same_share() -> None:
    readahead = Readahead(80 * MIB, MIB)
    readahead.join()
    one = readahead.limits.window
    readahead.join()
    assert readahead.limits.window == one // 2 - MIB
    readahead.leave()
    assert readahead.limits.window == one
