"""What the benchmark makes of what it reads: faults told apart, medians, the best peer."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from benchmarks.datasets import fault_content, fault_size
from benchmarks.markdown import document
from benchmarks.measure import Place, Run, TooSlowError, bounded
from benchmarks.modelled_s3 import ModelledS3
from benchmarks.plot import draw
from benchmarks.prices import dollars
from benchmarks.programs import PROGRAMS
from benchmarks.report import Result, best_peer, join, median, read_json, summary, write_json
from benchmarks.rows import ROWS
from benchmarks.rows.faults import Field, judge
from benchmarks.rows.shell import WorkFailedError, run

ROW = {row.name: row for row in ROWS}
ABOUT: dict[str, Any] = {
    "date": "2026-11-21T12:00:00+00:00",
    "commands": ["scripts/bench --limit 20"],
    "cpus": 2,
    "kernel": "6.18.0",
    "python": "3.11.7",
    "programs": ["s3mount", "goofys", "s3fs"],
    "versions": {"s3mount": "0.1.0", "goofys": "0.24.0", "s3fs": "1.90"},
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


@pytest.mark.parametrize("where", ["in its work", "before"])
def test_work_that_hangs_is_ended(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a child that has not come to lead a group of its own."""
    if where == "before":
        monkeypatch.setattr(os, "setsid", signal.pause)
    rescues: list[bool] = []
    with pytest.raises(TooSlowError, match="> 0 s"):
        bounded(signal.pause, 0.2, lambda: rescues.append(True))
    assert rescues == []
    assert multiprocessing.active_children() == []


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


def test_results_of_two_times_are_joined() -> None:
    def result(name: str, **programs: float) -> Result:
        return Result(ROW[name], {program: [Run(value)] for program, value in programs.items()})

    now = {
        **ABOUT,
        "commands": ["scripts/bench --add"],
        "programs": ["geesefs"],
        "versions": {"geesefs": "0.43.8"},
    }
    before = (ABOUT, [result("stat", s3mount=1.0, goofys=2.0), result("zcat", s3mount=3.0)])
    about, results = join(before, (now, [result("stat", goofys=4.0), result("seq", geesefs=5.0)]))
    assert about["programs"] == ["s3mount", "s3fs", "goofys", "geesefs"]
    assert about["versions"] == {**ABOUT["versions"], "geesefs": "0.43.8"}
    assert about["commands"] == [*ABOUT["commands"], "scripts/bench --add"]
    assert results == [
        result("seq", geesefs=5.0),
        result("zcat", s3mount=3.0),
        result("stat", s3mount=1.0, goofys=4.0),
    ]
    assert join(None, before) is before


def test_a_document_tells_the_best_and_who_was_ended() -> None:
    asked = {"GET": 1000, "LIST": 2}
    runs = [Run(0.9, requests=asked, items=1000, cpu=0.7, peak_rss=100 << 20, dollars=0.00041)]
    peers = {"s3mount": runs, "goofys": [Run(26.4)], "s3fs": [Run(None, "> 20 s")]}
    text = document(ABOUT, [Result(ROW["grep-1000"], peers, {"curl x64": [Run(0.5)]})])
    assert text.startswith(
        "## Figures\n\n2026-11-21, 2 CPUs, Linux 6.18.0, Python 3.11.7; goofys 0."
    )
    assert "```console\n$ scripts/bench --limit 20\n```" in text
    assert "| work | s3mount | goofys | s3fs | bare client, or local |" in text
    assert "16 KiB, s | **0.9**, 1,002 R | 26.4, 0 R | > 20 s | 0.5 (curl x64) |" in text
    assert "16 KiB: requests | 410 | 0 |  |" in text
    assert (
        "16 KiB, s | 0.9 | 29.33 (goofys) | 0.56 (curl x64) | 1000 GET 2 LIST; 1 and 0 KiB each"
        " | 0.000410 | 100 MiB | 0.70 s | 0.9 s, 1,010 requests |"
    ) in text


def test_a_document_tells_what_a_stream_takes() -> None:
    ours = Run(500.0, cpu=1.5, seconds=2.0, peak_rss=130 << 20)
    runs = [replace(ours, value=400.0), ours, replace(ours, value=600.0)]
    text = document(ABOUT, [Result(ROW["seq"], {"s3mount": runs, "s3fs": [Run(400.0)]})])
    assert "cold: peak memory | 130 MiB | 0 MiB |" in text
    assert "cold: CPU | 1.50 s | 0.00 s |" in text
    assert "| 500 (400-600) | 1.25 (s3fs) |" in text
    assert "| 1.50 s, 1.50 a GB |" in text


def test_a_document_tells_who_fetched_the_file_for_a_few_reads() -> None:
    runs = {"s3mount": [Run(27.0, fetched=13 << 20)], "s3fs": [Run(0.1, fetched=700_000_000)]}
    text = document(ABOUT, [Result(ROW["random"], runs)])
    assert "| **27**, 0 R | 0.1, 0 R, 700 MB fetched |" in text


def test_a_document_has_no_peers_where_none_took_part() -> None:
    text = document(ABOUT, [Result(ROW["known-1m"], {"s3mount": [Run(300.0)]})])
    assert "known names, B | 300 |" in text
    assert "| work |" not in text
    assert "| fault |" not in text


def test_a_document_tells_what_readers_were_handed() -> None:
    calm = {"s3mount": [Run(800.0)], "goofys": [Run(100.0)]}
    hung = Run(61.0, wrong="9 wrong", details={"wrong": 9.0, "hung": 2.0, "short": 0.0})
    ours = {"wrong": 0.0, "short": 2.0, "told by the next read": 2.0, "worst s": 1.23}
    struck = {"s3mount": [Run(600.0, details=ours)], "goofys": [hung]}
    slow = {"s3mount": [Run(2.5)], "goofys": [Run(None, "> 15 s")]}
    results = [
        Result(ROW[f"fault-{name}"], programs)
        for name, programs in (("none", calm), ("html", struck), ("hang", slow))
    ]
    text = document(ABOUT, results)
    assert "| fault | s3mount | goofys | s3mount: longest operation |" in text
    assert "61 WRONG hangs" in summary(results, ABOUT["programs"])
    assert "ops | 600 (0.75), 2 short (2 told) | 61 (0.61), 9 wrong, hangs | 1.2 s |" in text
    assert "s | 2.5 | > 15 s |  |" in text


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    peers = {"s3mount": [Run(0.9)], "goofys": [Run(None, "hangs")], "s3fs": [Run(None, "> 20 s")]}
    draw(tmp_path / "results.png", ABOUT, [Result(ROW["grep-1000"], peers)])
    with Image.open(tmp_path / "results.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 300


def test_a_peer_is_ended_at_the_limit_and_s3mount_at_the_rows(tmp_path: Path) -> None:
    place = Place(cast("ModelledS3", None), tmp_path, {}, limit=10.0)
    grep, stream, peer = ROW["grep-1000"], ROW["seq"], PROGRAMS["goofys"]
    assert place.patience(grep, peer) == 10.0
    assert place.patience(stream, peer) == 30.0
    # Not before s3mount was done with it.
    assert place.patience(grep, peer, at_least=22.0) == 22.0
    assert place.patience(grep, peer, at_least=1000.0) == grep.timeout
    assert place.patience(grep, PROGRAMS["s3mount"]) == grep.timeout
