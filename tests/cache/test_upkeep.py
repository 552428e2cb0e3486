"""The background: keys are learned, others' rows are seen, orphans are swept."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from diskcache import core

from s3mount.cache import upkeep
from s3mount.cache.block_disk import key_digest
from s3mount.cache.row_index import RowIndex
from tests.cache.rows import (
    MIB,
    assert_sizes_agree,
    hits,
    open_cache,
    put_all,
    query,
    row_key,
    until,
    value_files,
)


async def test_absent_keys_need_no_thread_once_the_rows_are_known(tmp_path: Path) -> None:
    keys = [row_key(n, 100) for n in range(50)]
    cache = await open_cache(tmp_path)
    await put_all(cache, keys)
    await cache.aclose()
    cache = await open_cache(tmp_path)
    await until(lambda: cache.surely_absent("nobody"))
    assert not any(cache.surely_absent(key) for key in keys)
    late = row_key("late", 100)
    assert cache.surely_absent(late)
    await put_all(cache, [late])
    assert not cache.surely_absent(late)
    await cache.aclose()


async def test_rows_of_another_mount_are_learned(tmp_path: Path) -> None:
    one, two = await open_cache(tmp_path), await open_cache(tmp_path)
    key = row_key("k", 100)
    await until(lambda: two.surely_absent(key))
    await put_all(one, [key])
    await until(lambda: not two.surely_absent(key))
    assert await hits(two, [key]) == [True]
    await one.aclose()
    await two.aclose()


async def test_a_filter_that_is_full_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_MIN_CAPACITY", 10)
    monkeypatch.setattr(upkeep, "_POLL", 0.01)
    cache = await open_cache(tmp_path)
    await until(lambda: cache.surely_absent("nobody"))
    assert cache._opened is not None
    known = cache._opened.keys
    assert known.capacity == 10
    keys = [row_key(n, 10) for n in range(30)]
    await put_all(cache, keys)
    await until(lambda: known.capacity == 60)
    assert not any(cache.surely_absent(key) for key in keys)
    await cache.aclose()


def write(index: RowIndex, key: str) -> Path:
    """A file without a row."""
    ((_, block),) = index.disk.write([(key, b"x")])
    return Path(str(index.directory), block.filename)


def test_old_orphans_are_swept_and_nothing_else(tmp_path: Path) -> None:
    index = RowIndex(tmp_path, size_limit=MIB)
    index.insert(index.disk.write([("kept", b"x"), ("too", b"y")]))
    kept = value_files(tmp_path)
    foreign = kept[0].parent / "somebody's"
    foreign.touch()
    os.utime(foreign, (0, 0))
    second = write(index, "kept")  # as left by a crash between file and row
    orphan, young = write(index, "orphan"), write(index, "young")
    before = orphan.with_name("0" * 30 + "-" + "1" * 8)  # of a layout of before
    before.touch()
    for path in (*kept, second, orphan, before):
        os.utime(path, (time.time() - 3700,) * 2)
    assert upkeep.sweep(index, threading.Event(), 3600.0) == 3
    assert value_files(tmp_path) == sorted([*kept, foreign, young])
    index.close()


async def test_orphans_are_swept_when_the_cache_opens(tmp_path: Path) -> None:
    index = RowIndex(tmp_path, size_limit=MIB)
    index.insert(index.disk.write([("kept", b"x")]))
    orphan = write(index, "orphan")
    os.utime(orphan, (0, 0))
    index.close()
    cache = await open_cache(tmp_path)
    await until(lambda: not orphan.exists())
    await cache.aclose()
    assert len(value_files(tmp_path)) == 1
    assert_sizes_agree(tmp_path)


def fill(directory: Path, rows: int) -> None:
    """Make a database of that many rows, without their files."""
    RowIndex(directory, size_limit=MIB).close()
    with sqlite3.connect(directory / "cache.db") as connection:
        connection.executemany(
            "INSERT INTO Cache (key, raw, store_time, access_time, size, mode, filename, value)"
            " VALUES (?, 1, ?, ?, 16384, 2, ?, ?)",
            (
                (digest, n, n, f"{digest.hex()[:2]}/{digest.hex()[2:16]}", bytes(24))
                for n, digest in ((n, key_digest(str(n))) for n in range(rows))
            ),
        )
        connection.execute(
            "INSERT INTO Files SELECT filename, rowid, rowid, size, access_time FROM Cache"
        )
    connection.close()


def steps_to_open(directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many hundreds of instructions SQLite's machine executes while the index opens."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    class Counted(sqlite3.Connection):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)  # type: ignore[arg-type]  # passed on as they are
            self.set_progress_handler(step, 100)

    with monkeypatch.context() as patch:
        connect = sqlite3.connect
        patch.setattr(
            core.sqlite3,
            "connect",
            lambda *arguments, **named: connect(*arguments, factory=Counted, **named),
        )
        index = RowIndex(directory, size_limit=MIB)
    index.volume()
    index.rows()
    index.last_rowid()
    index.close()
    return steps


def test_opening_takes_as_many_steps_with_many_rows_as_with_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir()
    many.mkdir()
    fill(few, 10)
    fill(many, 100_000)
    assert 0 < steps_to_open(many, monkeypatch) <= steps_to_open(few, monkeypatch) + 1


async def test_learning_a_cache_that_is_closed_meanwhile_ends(tmp_path: Path) -> None:
    fill(tmp_path, 100_000)  # learned in some 100 pauses of 5 ms
    cache = await open_cache(tmp_path)
    assert not cache.surely_absent("nobody")
    await cache.aclose()
    assert cache.surely_absent("nobody")
    assert [thread.name for thread in threading.enumerate() if "cache-" in thread.name] == []
    assert query(tmp_path, "SELECT COUNT(*) FROM Cache") == [(100_000,)]
