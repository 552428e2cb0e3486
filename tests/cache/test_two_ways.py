"""The way to the disk: learned from what was written, and tried anew now and then."""

from __future__ import annotations

import pytest

from s3mount.cache.two_ways import STALL, TwoWays

MIB = 1 << 20


def measured(*, disk: float, page_cache: float, disk_size: int = MIB) -> TwoWays:
    """Both ways, measured once at the time 0."""
    ways = TwoWays()
    ways.note(disk_size, disk, 0.0, hurry=False)
    ways.note(MIB, page_cache, 0.0, hurry=True)
    return ways


def test_the_page_cache_is_tried_until_it_is_measured() -> None:
    ways = TwoWays()
    ways.note(MIB, 0.001, 100.0, hurry=False)
    assert ways.may_hurry(100.0, waited=0.0)
    ways.note(MIB, 0.002, 100.0, hurry=True)
    assert not ways.may_hurry(100.0, waited=0.0)


def test_a_disk_that_is_not_measured_yet_is_taken_for_the_faster_way() -> None:
    ways = TwoWays()
    ways.note(MIB, 0.001, 0.0, hurry=True)
    assert not ways.may_hurry(1.0, waited=0.0)


@pytest.mark.parametrize("page_cache", [0.001, 0.009])
def test_the_faster_way_is_taken(page_cache: float) -> None:
    ways = measured(disk=0.004, page_cache=page_cache)
    assert ways.may_hurry(1.0, waited=0.0) == (page_cache < 0.004)


def test_sizes_are_accounted_for() -> None:
    ways = measured(disk=0.004, disk_size=4 * MIB, page_cache=0.002)
    assert not ways.may_hurry(1.0, waited=0.0)


def test_one_stall_is_forgotten_and_a_lasting_change_learned() -> None:
    ways = measured(disk=0.002, page_cache=0.001)
    for hurry in (True, False):
        ways.note(MIB, 0.4, 1.0, hurry=hurry)
    assert ways.may_hurry(1.0, waited=0.0)
    for _ in range(4):  # full of what waits for the disk
        ways.note(MIB, 0.004, 1.0, hurry=True)
    assert not ways.may_hurry(1.0, waited=0.0)


def test_while_the_disk_stalls_the_page_cache_takes_what_it_can() -> None:
    ways = measured(disk=0.002, page_cache=0.004)
    assert not ways.may_hurry(1.0, waited=STALL)
    assert ways.may_hurry(1.0, waited=STALL + 0.001)


def test_what_is_known_of_the_page_cache_ages() -> None:
    ways = measured(disk=0.002, page_cache=0.001)
    assert ways.may_hurry(30.1, waited=0.0)
    ways.note(MIB, 0.004, 30.1, hurry=True)
    assert not ways.may_hurry(60.1, waited=0.0)
    assert ways.may_hurry(60.2, waited=0.0)
    ways.note(MIB, 0.001, 60.2, hurry=True)
    assert ways.may_hurry(60.3, waited=0.0)
