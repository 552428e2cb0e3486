"""Rows about names: find, ls, stat."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.datasets import NAME_CONTENT, NAMES
from benchmarks.rows.bare import flat_listing
from benchmarks.rows.row import Outcome, Row, Stage
from benchmarks.rows.shell import run


def _expected(stage: Stage) -> set[str]:
    if stage.bucket in NAMES:
        return set(NAMES[stage.bucket]())
    return {str(p.relative_to(stage.local)) for p in stage.local.rglob("*") if p.is_file()}


def _find(stage: Stage) -> Outcome:
    seconds, out = run(["find", ".", "-type", "f"], cwd=stage.root)
    found = {line[2:] for line in out.decode().splitlines()}
    odd = found ^ _expected(stage)
    return Outcome(seconds, wrong=f"{len(odd)} names differ, such as {min(odd)}" if odd else "")


def _ls(stage: Stage) -> Outcome:
    seconds, out = run(["ls", "-l", str(stage.root / "dir")])
    lines = out.decode().splitlines()[1:]
    found = {("dir/" + line.rsplit(" ", 1)[1], line.split()[4]) for line in lines}
    odd = found ^ {(name, str(len(NAME_CONTENT))) for name in _expected(stage)}
    return Outcome(seconds, wrong=f"{len(odd)} lines differ, such as {min(odd)}" if odd else "")


STATS = 1000


def _stat_each(directory: Path, names: list[str]) -> tuple[float, list[int]]:
    sizes: list[int] = []
    start = time.perf_counter()
    for name in names:
        try:
            sizes.append(os.stat(directory / name).st_size)
        except FileNotFoundError:
            sizes.append(-1)
    return time.perf_counter() - start, sizes


def _stats(stage: Stage) -> Outcome:
    names = [f"file{number:07d}.dat" for number in range(STATS)]
    seconds, sizes = _stat_each(stage.root / "dir", names)
    wrong = [n for n, size in zip(names, sizes, strict=True) if size != len(NAME_CONTENT)]
    return Outcome(seconds, wrong=f"{len(wrong)}, such as {wrong[0]}" if wrong else "")


def _misses(stage: Stage) -> Outcome:
    names = [f"nofile{number:07d}.dat" for number in range(STATS)]
    seconds, sizes = _stat_each(stage.root / "dir", names)
    wrong = [n for n, size in zip(names, sizes, strict=True) if size != -1]
    return Outcome(seconds, wrong=f"{len(wrong)}, such as {wrong[0]}" if wrong else "")


def _known(stage: Stage) -> Outcome:
    """Bytes of memory for each name of a directory that is listed whole."""
    before = stage.resident()
    _, out = run(f"ls -U {stage.root / 'dir'} | wc -l")
    grown = stage.resident() - before
    names = len(_expected(stage))
    wrong = "" if int(out) == names else f"{int(out):,} names"
    return Outcome(grown / names, {"MiB more": grown / 2**20}, wrong)


def _splits(template: Callable[[int], str], total: int, parts: int) -> list[str]:
    """Keys after which `parts` stretches of a listing begin; the first is the empty one."""
    return ["", *(template(total * part // parts) for part in range(1, parts))]


NAMES_ROWS = (
    Row("find-2000", "walk", "find -type f, 200 directories of 10", "s", "tree2000", _find,
        limits=(flat_listing([""]),), reach="0.2 s, 5 requests"),
    Row("find-100k", "walk", "find, 100,000 keys in 10,000 directories", "s", "keys100k", _find,
        timeout=90,
        limits=(flat_listing(_splits(lambda n: f"d{n // 10:05d}/f{n % 10}.dat", 100_000, 16)),),
        patience=2, reach="1.5 of a parallel flat listing"),
    Row("ls-5000", "walk", "ls -l, 5,000 files", "s", "flat5000", _ls,
        limits=(flat_listing([""]),), reach="0.25 s, 6 LISTs"),
    Row("ls-100k", "walk", "ls -l, 100,000 files", "s", "flat100k", _ls, timeout=90,
        limits=(flat_listing(_splits(lambda n: f"dir/file{n:07d}.dat", 100_000, 16)),),
        reach="3 s, 105 LISTs"),
    Row("ls-1m", "huge", "ls -l, 1,000,000 files", "s", "flat1m", _ls, timeout=150,
        limits=(flat_listing(_splits(lambda n: f"dir/file{n:07d}.dat", 1_000_000, 16)),),
        with_peers=False, runs=1, reach="40 s, 600 MiB"),
    Row("known-1m", "huge", "memory for each of 1,000,000 known names", "B", "flat1m", _known,
        timeout=150, with_peers=False, runs=1, mount_options=("--memory-limit", "1G"),
        reach="350 B"),
    Row("stat", "walk", "1,000 stats in an unlisted directory", "s", "flat5000", _stats,
        timeout=45, reach="0.13 s, 2 requests"),
    Row("miss", "walk", "1,000 names that do not exist", "s", "flat5000", _misses,
        timeout=45, reach="0.13 s, 2 requests"),
)  # fmt: skip
