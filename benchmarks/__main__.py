"""`scripts/bench`: mount programs side by side, the same work on the same bucket.

    scripts/bench                                        all rows, all programs that are installed
    scripts/bench --rows seq,first-byte --programs s3mount,goofys --runs 3 --out DIR

Rows are chosen by name or by group. Programs take turns within each run; figures are medians.
The results go to stdout, and as results.json and results.png to --out.
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
from collections.abc import Sequence
from pathlib import Path

from benchmarks import datasets
from benchmarks.measure import Place, Run, run_limit, run_program, warm_machine
from benchmarks.modelled_s3 import ModelledS3
from benchmarks.plot import draw
from benchmarks.programs import PROGRAMS, Program
from benchmarks.report import Result, details, summary, write_json
from benchmarks.rows import ROWS, Row


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _chosen_rows(parser: argparse.ArgumentParser, names: str | None) -> list[Row]:
    if names is None:
        return list(ROWS)
    wanted = names.split(",")
    known = {row.name for row in ROWS} | {row.group for row in ROWS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; --list shows all")
    return [row for row in ROWS if row.name in wanted or row.group in wanted]


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
    parser.add_argument("--programs", help="names of programs, separated by commas")
    parser.add_argument("--runs", type=int, default=3, help="of each row (default 3)")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="a directory")
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
    for number in range(runs):
        for program in programs:
            if row.disk_cache and not program.has_disk_cache:
                continue
            before = result.programs.setdefault(program.name, [])
            # What hung or failed once is not waited for again.
            run = before[0] if before and before[0].value is None else None
            run = run or run_program(place, row, program)
            before.append(run)
            _say(f"  {row.name} {number + 1}/{runs} {program.name}: {_described(run, row)}")
        for limit in row.limits:
            run = run_limit(place, row, limit)
            result.limits.setdefault(limit.name, []).append(run)
            _say(f"  {row.name} {number + 1}/{runs} {limit.name}: {_described(run, row)}")
    return result


def _described(run: Run, row: Row) -> str:
    if run.value is None:
        return run.problem
    return f"{run.value:.4g} {row.unit}" + (f" WRONG: {run.wrong}" if run.wrong else "")


def _about(programs: Sequence[Program], runs: int) -> dict[str, object]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": "scripts/bench " + " ".join(sys.argv[1:]),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "programs": [program.name for program in programs],
        "runs": runs,
        "model": "25 ms to the first byte, 90 MB/s a connection, unless the row says otherwise",
    }


def main() -> int:
    """Run the rows; 1 if s3mount did not finish one, or read a wrong byte."""
    parser = _parser()
    options = parser.parse_args()
    if options.list:
        _print_list()
        return 0
    rows = _chosen_rows(parser, options.rows)
    programs = _chosen_programs(parser, options.programs)
    if os.geteuid() != 0:
        parser.error("dropping page caches needs root: run it as root")
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="s3mount-bench-", dir=options.work))
    for name in ("data", "mnt", "cache", "scratch", "logs"):
        (work / name).mkdir()
    results: list[Result] = []
    # Told to end, it unmounts and cleans up first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with ModelledS3(tls=True, buckets=(), directory=work / "server") as server:
            place = Place(server, work, {})
            for name in dict.fromkeys(row.dataset for row in rows):
                _say(f"making the dataset {name}")
                place.local[name] = datasets.fill(server, name, work / "data")
            warm_machine()
            for row in rows:
                _say(f"{row.name}: {row.title}")
                results.append(_measure(place, row, programs, options.runs))
                write_json(options.out / "results.json", _about(programs, options.runs), results)
    finally:
        shutil.rmtree(options.out / "logs", ignore_errors=True)
        shutil.copytree(work / "logs", options.out / "logs")
        shutil.rmtree(work, ignore_errors=True)
    print(summary(results, [program.name for program in programs]))
    print()
    print(details(results))
    draw(options.out / "results.png", results)
    ours = [run for result in results for run in result.programs.get("s3mount", [])]
    return 1 if any(run.value is None or run.wrong for run in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
