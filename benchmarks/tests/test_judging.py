"""What the benchmark makes of what it reads: faults told apart, medians, the best peer."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from benchmarks.datasets import fault_content, fault_size
from benchmarks.markdown import document
from benchmarks.measure import Place, Run, TooSlowError, bounded
from benchmarks.modelled_s3 import ModelledS3
from benchmarks.plot import draw
from benchmarks.prices import dollars
from benchmarks.programs import PROGRAMS
from benchmarks.report import Result, best_peer, median, read_json, summary, write_json
from benchmarks.rows import ROWS
from benchmarks.rows.faults import Field, judge
from benchmarks.rows.shell import WorkFailedError, run

ROW = {row.name: row for row in ROWS}
ABOUT = {
    "date": "2026-11-21T12:00:00+00:00",
    "command": "scripts/bench --limit 20",
    "cpus": 2,
    "kernel": "6.18.0",
    "python": "3.11.7",
    "programs": ["s3mount", "goofys", "s3fs"],
    "runs": 1,
    "limit": 20.0,
    "model": "25 ms to the first byte, unless the row says otherwise",
}


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


def test_results_are_read_again_as_they_were_written(tmp_path: Path) -> None:
    runs = [Run(0.9, requests={"GET": 1000, "LIST": 2}, fetched=1 << 24, items=1000)]
    peers = {"s3mount": runs, "goofys": [Run(26.4)], "s3fs": [Run(None, "> 20 s")]}
    written = [Result(ROW["grep-1000"], peers, {"curl x64": [Run(0.5)]})]
    write_json(tmp_path / "results.json", ABOUT, written)
    assert read_json(tmp_path / "results.json") == (ABOUT, written)


def test_a_document_tells_the_best_and_who_was_ended() -> None:
    runs = [Run(0.9, requests={"GET": 1000, "LIST": 2}, items=1000, cpu=0.7, peak_rss=100 << 20)]
    peers = {"s3mount": runs, "goofys": [Run(26.4)], "s3fs": [Run(None, "> 20 s")]}
    text = document(ABOUT, [Result(ROW["grep-1000"], peers, {"curl x64": [Run(0.5)]})])
    assert "| **0.9 s**, 1,002 R | 26.4 s, 0 R | > 20 s | 0.5 s (curl x64) |" in text
    assert "| s3mount | 100 MiB | 0.70 s | $0.000000 |" in text


def test_a_document_tells_what_readers_were_handed() -> None:
    hung = Run(61.0, wrong="9 wrong", details={"wrong": 9.0, "hung": 2.0, "short": 0.0})
    programs = {"s3mount": [Run(600.0, details={"wrong": 0.0})], "goofys": [hung]}
    text = document(ABOUT, [Result(ROW["fault-html"], programs)])
    assert "| 600 | 61, 9 wrong, 2 hung |" in text


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    peers = {"s3mount": [Run(0.9)], "goofys": [Run(None, "hangs")], "s3fs": [Run(None, "> 20 s")]}
    draw(tmp_path / "results.png", ABOUT, [Result(ROW["grep-1000"], peers)])
    with Image.open(tmp_path / "results.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 300


def test_a_peer_is_ended_at_the_limit_and_s3mount_at_the_rows(tmp_path: Path) -> None:
    place = Place(cast("ModelledS3", None), tmp_path, {}, limit=10.0)
    grep, fault = ROW["grep-1000"], ROW["fault-stall"]
    assert place.seconds_for(grep, PROGRAMS["goofys"]) == 10.0
    assert place.seconds_for(grep, PROGRAMS["s3mount"]) == grep.timeout
    assert place.seconds_for(fault, PROGRAMS["goofys"]) == fault.timeout
