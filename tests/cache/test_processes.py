"""Killed at any instant, and shared by processes: what is read is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cache.hammer import round_keys
from tests.cache.rows import (
    MIB,
    assert_sizes_agree,
    hits,
    open_cache,
    put_all,
    query,
    row_key,
    value_files,
    volume,
)

ROOT = Path(__file__).parents[2]


def start(directory: Path, name: str, rounds: int, size_limit: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "tests.cache.hammer"]
    return subprocess.Popen(
        [*command, str(directory), name, str(rounds), str(size_limit)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after(directory: Path, name: str, lines: int) -> int:
    """Kill a writing process as it writes; how many rounds it had written."""
    with start(directory, name, 100_000, 8 * MIB) as process:
        assert process.stdout is not None
        done = -1
        for _ in range(lines):
            done = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split()
        return int(rest[-1]) if rest else done


@pytest.mark.parametrize("lines", [1, 2, 5, 30])  # with the last, it was evicting, too
async def test_a_killed_writer_leaves_no_wrong_answer(tmp_path: Path, lines: int) -> None:
    for name in ("a", "b", "c"):
        done = kill_after(tmp_path, name, lines)
        cache = await open_cache(tmp_path, size_limit=8 * MIB)
        # Each hit of any row, known to be written or not, is checked.
        for number in range(done + 3):
            found = await hits(cache, round_keys(name, number))
            # The rows of the last rounds that were reported are there.
            assert all(found) or not done - 1 <= number <= done
        assert_sizes_agree(tmp_path)
        await put_all(cache, [row_key(f"after-{name}-{lines}", 1000)])
        await cache.aclose()
    rows = {row[0] for row in query(tmp_path, "SELECT filename FROM Cache")}
    files = {str(path.relative_to(tmp_path)) for path in value_files(tmp_path)}
    assert rows <= files  # what is more is orphaned, and swept when it is an hour old


async def test_processes_on_one_directory_are_right(tmp_path: Path) -> None:
    """They write, evict and read each other's rows at the same time."""
    limit = 8 * MIB
    processes = [start(tmp_path, name, 60, limit) for name in ("a", "b", "c")]
    for process, name in zip(processes, ("a", "b", "c"), strict=True):
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, "")
        assert json.loads(out.splitlines()[-1])[name] > 0
    assert_sizes_agree(tmp_path)
    # Each leaves room for its own batches; those of two others may be on top of it.
    assert MIB < volume(tmp_path) < limit * 1.25
    rows = {row[0] for row in query(tmp_path, "SELECT filename FROM Cache")}
    assert {str(path.relative_to(tmp_path)) for path in value_files(tmp_path)} == rows
