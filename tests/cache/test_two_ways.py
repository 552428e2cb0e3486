"""The way to the disk: learned from what was written, and tried anew now and then."""

from __future__ import annotations

from s3mount.cache.two_ways import STALL, TwoWays

MIB = 1 << 20


def test_the_page_cache_is_tried_once_and_not_again_before_its_measure_is_there() -> None:
    ways = TwoWays()
    assert [ways.may_hurry(100.0, waited=0.0) for _ in range(3)] == [True, False, False]


def test_the_faster_way_is_taken() -> None:
    for page_cache, disk in ((0.001, 0.004), (0.009, 0.004)):
        ways = TwoWays()
        assert ways.may_hurry(0.0, waited=0.0)
        ways.note(4 * MIB, disk, hurry=False)
        ways.note(4 * MIB, page_cache, hurry=True)
        assert ways.may_hurry(1.0, waited=0.0) == (page_cache < disk)


def test_sizes_are_accounted_for() -> None:
    ways = TwoWays()
    assert ways.may_hurry(0.0, waited=0.0)
    ways.note(4 * MIB, 0.004, hurry=False)
    ways.note(MIB, 0.002, hurry=True)
    assert not ways.may_hurry(1.0, waited=0.0)


def test_one_stall_is_forgotten_and_a_lasting_change_learned() -> None:
    ways = TwoWays()
    assert ways.may_hurry(0.0, waited=0.0)
    ways.note(MIB, 0.001, hurry=True)
    ways.note(MIB, 0.002, hurry=False)
    ways.note(MIB, 0.4, hurry=True)
    assert ways.may_hurry(1.0, waited=0.0)
    ways.note(MIB, 0.4, hurry=False)
    for _ in range(4):  # full of what waits for the disk
        ways.note(MIB, 0.004, hurry=True)
    assert not ways.may_hurry(1.0, waited=0.0)


def test_while_the_disk_stalls_the_page_cache_takes_what_it_can() -> None:
    ways = TwoWays()
    assert ways.may_hurry(0.0, waited=0.0)
    ways.note(MIB, 0.004, hurry=True)
    ways.note(MIB, 0.002, hurry=False)
    assert not ways.may_hurry(1.0, waited=STALL)
    assert ways.may_hurry(1.0, waited=STALL + 0.001)


def test_what_is_known_of_the_page_cache_ages() -> None:
    ways = TwoWays()
    assert ways.may_hurry(0.0, waited=0.0)
    ways.note(MIB, 0.004, hurry=True)
    ways.note(MIB, 0.002, hurry=False)
    assert not ways.may_hurry(30.0, waited=0.0)
    assert ways.may_hurry(30.1, waited=0.0)
    ways.note(MIB, 0.001, hurry=True)
    assert ways.may_hurry(30.2, waited=0.0)
