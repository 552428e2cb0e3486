"""What the benchmark makes of what it reads: faults told apart, medians, the best peer."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

import os
import signal
import time

import pytest

from benchmarks.datasets import fault_content, fault_size
from benchmarks.measure import Run, TooSlowError, bounded
from benchmarks.prices import dollars
from benchmarks.report import Result, best_peer, median, summary
from benchmarks.rows import ROWS
from benchmarks.rows.faults import Field, judge
from benchmarks.rows.shell import WorkFailedError, run

ROW = {row.name: row for row in ROWS}


def test_right_bytes_of_any_version_are_right() -> None:
    for version in range(3):
        data = fault_content(7, version, 4096, 8192)
        assert judge(7, 4096, 8192, data) == (None, version)
    size = fault_size(7, 1)
    assert judge(7, size - 32, 8192, fault_content(7, 1, size - 32, 32)) == (None, 1)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (fault_content(8, 0, 4096, 8192), Field.WRONG),  # another object
        (fault_content(7, 0, 8192, 8192), Field.WRONG),  # another place
        (bytes(8192), Field.WRONG),
        (b"<html>" * 100, Field.WRONG),
        (fault_content(7, 0, 4096, 4096), Field.SHORT),
        (b"", Field.SHORT),
        (fault_content(7, 0, 4096, 4096) + fault_content(7, 1, 8192, 4096), Field.MIXED),
    ],
)
def test_wrong_bytes_are_told_apart(data: bytes, problem: Field) -> None:
    assert judge(7, 4096, 8192, data)[0] is problem


def test_a_median_needs_more_than_half_of_the_runs() -> None:
    assert median([Run(3.0), Run(1.0), Run(2.0)]) == 2.0
    assert median([Run(3.0), Run(None, "> 60 s"), Run(2.0)]) == 2.5
    assert median([Run(3.0), Run(None, "> 60 s")]) is None


def test_the_best_peer_did_the_work_and_did_it_right() -> None:
    result = Result(
        ROW["random"],
        {
            "s3mount": [Run(27.0)],
            "whole file": [Run(0.1, fetched=1 << 30)],
            "liar": [Run(1.0, wrong="4 KiB at 0")],
            "good": [Run(54.0, fetched=1 << 20)],
        },
    )
    assert best_peer(result) == ("good", 54.0)
    table = summary([result], ["s3mount", "good"])
    assert "2.00 (good)" in table


def test_work_that_hangs_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(TooSlowError, match="> 0 s"):
        bounded(signal.pause, 0.2, lambda: None)
    assert time.monotonic() - start < 10


def test_what_work_says_comes_back() -> None:
    assert bounded(os.getpid, 5, lambda: None) != os.getpid()
    with pytest.raises(WorkFailedError, match="No such file"):
        bounded(lambda: run(["cat", "/nowhere/at/all"]), 5, lambda: None)


def test_prices() -> None:
    assert dollars({"LIST": 1000, "GET": 10_000, "DELETE": 5}) == pytest.approx(0.009)


def test_rows_have_names_of_their_own() -> None:
    assert len(ROW) == len(ROWS)
    assert not set(ROW) & {row.group for row in ROWS if row.group not in ROW}
