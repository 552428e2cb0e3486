"""`scripts/bench`: mount programs side by side, the same work on the same bucket.

    scripts/bench                                        all rows, all programs that are installed
    scripts/bench --rows seq,first-byte --programs s3mount,goofys --runs 3 --out DIR
    scripts/bench --rows faults --add --out DIR          these again, the others are kept
    scripts/bench --add --out DIR                        go on where it was ended
    scripts/bench --from DIR/results.json --markdown     tables and plot again, nothing is run

Rows are chosen by name or by group. Programs take turns within each run; figures are medians.
The results go to stdout, and as results.json and results.png to --out. Some rows are run with
s3mount alone, unless they are asked for by name, as another one says as much of the others.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import datasets
from benchmarks.markdown import document
from benchmarks.measure import (
    OURS,
    Place,
    Run,
    run_limit,
    run_program,
    warm_machine,
)
from benchmarks.modelled_s3 import ModelledS3
from benchmarks.plot import draw
from benchmarks.programs import PROGRAMS, Program
from benchmarks.report import Result, details, join, read_json, summary, write_json
from benchmarks.rows import ROWS, Row
from benchmarks.turns import not_before, order, runs_again, runs_of, takes_part

_START = time.monotonic()


def _say(text: str) -> None:
    minutes, seconds = divmod(int(time.monotonic() - _START), 60)
    print(f"{minutes:3}:{seconds:02} {text}", file=sys.stderr, flush=True)


def _names(parser: argparse.ArgumentParser, names: str | None) -> set[str]:
    found = set(names.split(",")) if names else set()
    unknown = found - {row.name for row in ROWS} - {row.group for row in ROWS}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; --list shows all")
    return found


def _chosen_rows(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Row]:
    wanted, unwanted = _names(parser, options.rows), _names(parser, options.without)
    return [
        row
        for row in ROWS
        if (not wanted or {row.name, row.group} & wanted) and not {row.name, row.group} & unwanted
    ]


def _chosen_programs(parser: argparse.ArgumentParser, names: str | None) -> list[Program]:
    wanted = list(PROGRAMS) if names is None else names.split(",")
    unknown = [name for name in wanted if name not in PROGRAMS]
    if unknown:
        parser.error(f"no such program: {', '.join(unknown)}; known: {', '.join(PROGRAMS)}")
    chosen: list[Program] = []
    for program in (PROGRAMS[name] for name in wanted):
        if program.find() is not None:
            chosen.append(program)
        else:
            where = f"${program.variable}" + (" or on PATH" if program.package else "")
            message = f"{program.name} is not installed (looked for it in {where})"
            if names is not None:
                parser.error(message)
            _say(f"left out: {message}")
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--rows", help="names or groups of rows, separated by commas")
    parser.add_argument("--without", metavar="ROWS", help="names or groups to leave out")
    parser.add_argument("--programs", help="names of programs, separated by commas")
    parser.add_argument("--runs", type=int, default=3, help="of each row (default 3)")
    parser.add_argument(
        "--limit",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="what a run of another program may take, thrice that for a stream; longer is shown as"
        " that (default 5)",
    )
    parser.add_argument(
        "--fault-seconds",
        type=float,
        default=8.0,
        metavar="SECONDS",
        help="how long each fault strikes (default 8)",
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="a directory")
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep what results.json in --out has; without --rows, run only rows it does not have",
    )
    parser.add_argument("--from", dest="source", type=Path, help="show these results.json again")
    parser.add_argument("--markdown", action="store_true", help="print tables for a document")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="where the plot goes instead")
    parser.add_argument("--work", type=Path, help="where the data goes: local disk, 12 GB free")
    parser.add_argument("--list", action="store_true", help="list the rows and programs, and end")
    return parser


def _print_list() -> None:
    for row in ROWS:
        print(f"{row.name:16} {row.group:11} {row.title} ({row.unit})")
    for program in PROGRAMS.values():
        print(f"{program.name:16} {'program':11} {program.find() or 'not installed'}")


def _measure(place: Place, row: Row, programs: Sequence[Program], runs: int) -> Result:
    result = Result(row)
    ours = any(program.name == OURS for program in programs)
    for number in range(runs):
        for program in order(programs, number):
            if number and not runs_again(program.name, row, result.programs):
                continue
            verify = program.name == OURS or number == 0
            run = run_program(place, row, program, verify, not_before(result.programs))
            result.programs.setdefault(program.name, []).append(run)
            _say(f"  {row.name} {number + 1}/{runs} {program.name}: {_described(run, row)}")
        for limit in row.limits:
            if limit.mount_options is None or ours:
                run = run_limit(place, row, limit)
                result.limits.setdefault(limit.name, []).append(run)
                _say(f"  {row.name} {number + 1}/{runs} {limit.name}: {_described(run, row)}")
    return result


def _described(run: Run, row: Row) -> str:
    if run.value is None:
        return run.problem
    each = f", {run.requests_each:.3g} requests each" if run.items else ""
    return f"{run.value:.4g} {row.unit}{each}" + (f" WRONG: {run.wrong}" if run.wrong else "")


def _command(arguments: Sequence[str]) -> str:
    """The command line without what says only where things go."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for place in ("--out", "--work", "--plot"):
        parser.add_argument(place)
    return " ".join(["scripts/bench", *parser.parse_known_args(arguments)[1]])


def _about(programs: Sequence[Program]) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commands": [_command(sys.argv[1:])],
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "programs": [program.name for program in programs],
        "versions": {program.name: program.version() for program in programs},
        "model": "25 ms to the first byte, 90 MB/s a connection, unless the row says otherwise",
    }


def _show(options: argparse.Namespace, about: Mapping[str, Any], results: list[Result]) -> None:
    if options.markdown:
        print(document(about, results))
    else:
        print(summary(results, about["programs"]))
        print()
        print(details(results))
    draw(options.plot or options.out / "results.png", about, results)


def main() -> int:
    """Run the rows; 1 if s3mount did not finish one, or read a wrong byte."""
    parser = _parser()
    options = parser.parse_args()
    if options.list:
        _print_list()
        return 0
    if options.source:
        about, shown_again = read_json(options.source)
        options.plot = options.plot or options.source.with_suffix(".png")
        _show(options, about, shown_again)
        return 0
    return _run(parser, options)


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    rows = _chosen_rows(parser, options)
    programs = _chosen_programs(parser, options.programs)
    if os.geteuid() != 0:
        parser.error("dropping page caches needs root: run it as root")
    for directory in (options.out, options.work):
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
    about, results = _about(programs), list[Result]()
    path = options.out / "results.json"
    before = read_json(path) if options.add and path.exists() else None
    if before and not options.rows:
        there = {result.row.name for result in before[1]}
        rows = [row for row in rows if row.name not in there]
    # Told to end, it unmounts, cleans up and shows the rows that are done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ended = 0
    try:
        for result in _results(options, rows, programs):
            results.append(result)
            write_json(path, *join(before, (about, results)))
    except (KeyboardInterrupt, SystemExit):
        ended = 143
        _say("ended early: these rows are done; with --add and without --rows it goes on")
    _show(options, *join(before, (about, results)))
    ours = [run for result in results for run in result.programs.get(OURS, [])]
    return ended or int(any(run.value is None or run.wrong for run in ours))


def _results(
    options: argparse.Namespace, rows: Sequence[Row], programs: Sequence[Program]
) -> Iterator[Result]:
    """Run the rows, each with all its runs."""
    named = set((options.rows or "").split(","))
    work = Path(tempfile.mkdtemp(prefix="s3mount-bench-", dir=options.work))
    for name in ("data", "mnt", "cache", "scratch", "logs"):
        (work / name).mkdir()
    try:
        with ModelledS3(tls=True, buckets=(), directory=work / "server") as server:
            place = Place(server, work, {}, options.limit, options.fault_seconds)
            for name in dict.fromkeys(row.dataset for row in rows):
                _say(f"making the dataset {name}")
                place.local[name] = datasets.fill(server, name, work / "data")
            warm_machine()
            for row in rows:
                _say(f"{row.name}: {row.title}")
                taking_part = [p for p in programs if takes_part(p, row, row.name in named)]
                yield _measure(place, row, taking_part, runs_of(row, options.runs))
    finally:
        shutil.rmtree(options.out / "logs", ignore_errors=True)
        shutil.copytree(work / "logs", options.out / "logs")
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
