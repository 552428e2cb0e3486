"""`scripts/bench`: what it shows again, and what it shows when it is ended early."""

# as in tests/: a test's name says what it shows

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks.measure import Run
from benchmarks.report import Result, read_json
from benchmarks.rows import ROWS

ROW = {row.name: row for row in ROWS}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["scripts/bench", *map(str, arguments)])
    return bench.main()


def runs_that(monkeypatch: pytest.MonkeyPatch, *results: Result, ended: bool = False) -> None:
    """Instead of running rows: these results, and then perhaps a signal."""

    def stand_in(*_: Any) -> Iterator[Result]:
        yield from results
        if ended:
            sys.exit(143)

    monkeypatch.setattr(bench, "_results", stand_in)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def stat(value: float) -> Result:
    return Result(ROW["stat"], {"s3mount": [Run(value)]})


def test_results_are_shown_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_that(monkeypatch, stat(0.125))
    assert call(monkeypatch, "--out", tmp_path, "--programs", "s3mount", "--rows", "stat") == 0
    assert "0.125" in capsys.readouterr().out
    assert call(monkeypatch, "--from", tmp_path / "results.json", "--markdown") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("## Figures")
    assert "$ scripts/bench --programs s3mount --rows stat\n" in shown
    assert "0.125" in shown
    assert (tmp_path / "results.png").exists()


def test_what_there_is_is_shown_when_it_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_that(monkeypatch, stat(0.125), ended=True)
    assert call(monkeypatch, "--out", tmp_path, "--programs", "s3mount") == 143
    assert "0.125" in capsys.readouterr().out
    assert read_json(tmp_path / "results.json")[1] == [stat(0.125)]


def test_rows_are_added_to_those_of_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs_that(monkeypatch, stat(0.125))
    call(monkeypatch, "--out", tmp_path, "--programs", "s3mount")
    runs_that(monkeypatch, Result(ROW["miss"], {"s3mount": [Run(0.25)]}))
    call(monkeypatch, "--out", tmp_path, "--programs", "s3mount", "--add")
    data = json.loads((tmp_path / "results.json").read_text())
    assert [entry["row"] for entry in data["rows"]] == ["stat", "miss"]
    assert len(data["about"]["commands"]) == 2


def test_it_goes_on_where_it_was_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    common = ("--out", tmp_path, "--programs", "s3mount", "--add")
    runs_that(monkeypatch, stat(0.125), ended=True)
    call(monkeypatch, *common)
    chosen: list[str] = []

    def note(*given: Any) -> Iterator[Result]:
        chosen.extend(row.name for row in given[1])
        yield from ()

    monkeypatch.setattr(bench, "_results", note)
    call(monkeypatch, *common)
    assert set(chosen) == set(ROW) - {"stat"}


@pytest.mark.parametrize(
    ("value", "status"), [(Run(0.1), 0), (Run(None, "fails"), 1), (Run(0.1, wrong="1 short"), 1)]
)
def test_its_status_tells_whether_s3mount_did_all_and_did_it_right(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: Run, status: int
) -> None:
    runs_that(monkeypatch, Result(ROW["stat"], {"s3mount": [value], "s3fs": [Run(None, "fails")]}))
    assert call(monkeypatch, "--out", tmp_path, "--programs", "s3mount") == status


def test_rows_are_chosen_by_name_and_by_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen: list[list[str]] = []

    def note(*given: Any) -> Iterator[Result]:
        chosen.append([row.name for row in given[1]])
        yield from ()

    runs_that(monkeypatch)
    monkeypatch.setattr(bench, "_results", note)
    common = ("--out", tmp_path, "--programs", "s3mount")
    call(monkeypatch, *common, "--rows", "huge,stat")
    call(monkeypatch, *common, "--without", "faults,seq")
    assert chosen[0] == ["ls-1m", "known-1m", "stat"]
    assert set(chosen[1]) == {row.name for row in ROWS if row.group not in {"faults", "seq"}}
    with pytest.raises(SystemExit):
        call(monkeypatch, *common, "--rows", "nothing")
