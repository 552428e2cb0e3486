"""Runs are spent where they decide: who does a row, and who need not do it again."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

from benchmarks.measure import Run
from benchmarks.programs import PROGRAMS
from benchmarks.rows import ROWS
from benchmarks.turns import not_before, order, runs_again, runs_of, takes_part

ROW = {row.name: row for row in ROWS}
OURS, S3FS, GOOFYS = (PROGRAMS[name] for name in ("s3mount", "s3fs", "goofys"))


def test_rows_about_s3mount_are_for_it_alone() -> None:
    for row in ROWS:
        assert takes_part(OURS, row, named=False)
    assert takes_part(S3FS, ROW["seq"], named=False)
    assert not takes_part(S3FS, ROW["ls-1m"], named=False)
    assert takes_part(S3FS, ROW["ls-1m"], named=True)
    assert not takes_part(S3FS, ROW["seq-64m"], named=True)  # the option is not theirs


def test_a_program_without_a_disk_cache_is_not_asked_about_it() -> None:
    assert takes_part(S3FS, ROW["disk-warm"], named=True)
    assert not takes_part(GOOFYS, ROW["disk-warm"], named=True)


def test_a_row_may_need_fewer_runs_than_asked_for() -> None:
    assert runs_of(ROW["seq"], 3) == 3
    assert runs_of(ROW["fault-stall"], 3) == 1
    assert runs_of(ROW["find-100k"], 1) == 1


def test_everyone_comes_first_in_turn() -> None:
    programs = [OURS, S3FS, GOOFYS]
    turns = [order(programs, number) for number in range(4)]
    assert [turn[0] for turn in turns] == [OURS, S3FS, GOOFYS, OURS]
    assert all(set(turn) == set(programs) for turn in turns)
    assert order([], 1) == []


def test_what_failed_or_was_ended_is_not_waited_for_again() -> None:
    done = {"s3mount": [Run(None, "fails")], "s3fs": [Run(None, "> 5 s")], "goofys": [Run(1.0)]}
    assert runs_again("s3mount", ROW["stat"], done)
    assert not runs_again("s3fs", ROW["stat"], done)
    assert runs_again("goofys", ROW["stat"], done)
    assert not runs_again("goofys", ROW["stat"], {"goofys": [Run(1.0), Run(None, "> 5 s")]})


def test_who_is_far_from_the_best_has_said_enough() -> None:
    seconds = {"s3mount": [Run(1.0)], "s3fs": [Run(1.3)], "goofys": [Run(1.2)]}
    assert not runs_again("s3fs", ROW["stat"], seconds)
    assert runs_again("goofys", ROW["stat"], seconds)
    speed = {"s3mount": [Run(160.0)], "s3fs": [Run(120.0)], "goofys": [Run(130.0)]}
    assert not runs_again("s3fs", ROW["seq"], speed)
    assert runs_again("goofys", ROW["seq"], speed)
    # s3mount has all its runs, also where it is not the best.
    assert runs_again("s3mount", ROW["seq"], {"s3mount": [Run(1.0)], "s3fs": [Run(9.0)]})


def test_who_was_quick_and_wrong_settles_nothing() -> None:
    done = {"s3mount": [Run(1.0)], "s3fs": [Run(0.1, wrong="4 KiB at 0")], "goofys": [Run(1.2)]}
    assert runs_again("goofys", ROW["stat"], done)
    whole = {"s3fs": [Run(0.1, fetched=1 << 30)], "goofys": [Run(26.0)]}
    assert runs_again("goofys", ROW["random"], whole)


def test_who_has_not_run_yet_runs() -> None:
    assert runs_again("goofys", ROW["stat"], {"s3mount": [Run(1.0)]})


def test_nobody_is_ended_before_s3mount_was_done() -> None:
    done = {"s3mount": [Run(1.0, seconds=10.0), Run(1.0, seconds=8.0)], "s3fs": [Run(1.0)]}
    assert not_before(done) == 11.0
    assert not_before({}) == 0.0
