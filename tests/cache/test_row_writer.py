"""How what is put becomes rows: many at once, whoever else writes, and read before that."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from s3mount.cache import jobs, row_writer, two_ways
from s3mount.cache.block_cache import BlockCache
from s3mount.cache.block_disk import BlockDisk, Buffer, StoredBlock
from s3mount.cache.row_index import RowIndex
from s3mount.metrics import Metrics
from tests.cache.rows import (
    MIB,
    assert_sizes_agree,
    hits,
    open_cache,
    put_all,
    query,
    row_bytes,
    row_key,
    until,
    value_files,
)


async def test_many_blocks_become_rows_in_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted: list[int] = []
    insert = RowIndex.insert

    def counted(self: RowIndex, blocks: Sequence[tuple[str, StoredBlock]]) -> None:
        inserted.append(len(blocks))
        insert(self, blocks)

    monkeypatch.setattr(RowIndex, "insert", counted)
    keys = [row_key(n, 100_000) for n in range(200)]
    cache = await open_cache(tmp_path, size_limit=1024 * MIB)
    await put_all(cache, keys)
    assert inserted == [200]
    assert len(query(tmp_path, "SELECT key FROM Cache")) == 200
    await cache.aclose()


async def test_a_row_that_another_mount_wrote_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    one, two = await open_cache(tmp_path), await open_cache(tmp_path)
    key = row_key("k", 1000)
    await until(lambda: two.surely_absent(key))
    await put_all(one, [key])
    before = value_files(tmp_path)
    await put_all(two, [key])
    assert value_files(tmp_path) == before
    assert await hits(two, [key]) == [True]
    assert_sizes_agree(tmp_path)
    await one.aclose()
    await two.aclose()


async def test_a_block_is_read_before_it_is_a_row(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    key = row_key("k", MIB)
    released = trio.Event()
    connection = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    assert cache.put(key, memoryview(row_bytes(key)), released.set)
    await released.wait()
    assert await hits(cache, [key]) == [True]
    connection.close()
    await cache.aclose()


class Disk:
    """Stands before `BlockDisk.write`: by its clock, bytes cost what is said; and it may stall."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, page_cache: float) -> None:
        """`page_cache`: how many times as long a write through it takes."""
        self.hurried: list[bool] = []
        self.goes_on = threading.Event()  # past the page cache
        self.goes_on.set()
        clock = threading.local()  # each thread's own: one writes beside the other
        write = BlockDisk.write

        def watched(
            disk: BlockDisk, values: Sequence[tuple[str, Buffer]], *, hurry: bool = False
        ) -> list[tuple[str, StoredBlock]]:
            assert hurry or self.goes_on.wait(20)
            blocks = write(disk, values, hurry=hurry)
            clock.now += sum(block.length for _, block in blocks) * (page_cache if hurry else 1)
            self.hurried += [hurry] * len(blocks)
            return blocks

        def monotonic() -> float:
            clock.now = getattr(clock, "now", 0.0)
            return float(clock.now)

        monkeypatch.setattr(BlockDisk, "write", watched)
        monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=monotonic))
        monkeypatch.setattr(two_ways, "STALL", math.inf)  # of a clock that is real


async def open_behind(directory: Path) -> BlockCache:
    """A cache whose writers are behind as soon as eight rows of a MiB wait."""
    return await BlockCache.open(
        directory, size_limit=1024 * MIB, free_share=0.0, queue_limit=8 * MIB, metrics=Metrics()
    )


def put_at_once(cache: BlockCache, keys: list[str]) -> None:
    """What finds no room stays in memory, to be written later."""
    for key in keys:
        cache.put(key, memoryview(row_bytes(key)), lambda: None, lambda: True)


@pytest.mark.parametrize("page_cache", [0.5, 2.0])
async def test_who_is_behind_goes_through_the_page_cache_if_that_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page_cache: float
) -> None:
    disk = Disk(monkeypatch, page_cache=page_cache)
    cache = await open_behind(tmp_path)
    keys = [row_key(n, MIB) for n in range(64)]
    put_at_once(cache, keys)
    await cache.flush()
    # One job finds out: of four rows.
    assert disk.hurried.count(True) > 4 if page_cache < 1 else 0 < disk.hurried.count(True) <= 4
    assert await hits(cache, keys) == [True] * 64
    await cache.aclose()


async def test_while_the_disk_stalls_the_page_cache_takes_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, page_cache=2.0)
    cache = await open_behind(tmp_path)
    keys = [row_key(n, MIB) for n in range(96)]
    put_at_once(cache, keys[:64])
    await cache.flush()  # the page cache is known to be slower
    assert disk.hurried.count(True) <= 4
    disk.hurried.clear()
    disk.goes_on.clear()
    monkeypatch.setattr(two_ways, "STALL", 0.0)
    put_at_once(cache, keys[64:])
    # Seven eighths of the queue may wait for the disk.
    await until(lambda: len(disk.hurried) >= 32 - 7)
    assert all(disk.hurried)
    disk.goes_on.set()
    await cache.flush()
    assert await hits(cache, keys) == [True] * 96
    await cache.aclose()


async def test_small_rows_that_keep_large_buffers_wait_for_no_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_writer, "_PAUSE_BETWEEN_ROWS", math.inf)
    cache = await open_behind(tmp_path)
    keys = [row_key(n, 1000) for n in range(2)]
    released: list[str] = []
    for key in keys:
        assert released == []
        data = memoryview(row_bytes(key))
        assert cache.put(key, data, partial(released.append, key), keeps=MIB)
    await until(lambda: sorted(released) == keys)  # 2 of the 8 MiB that may wait are kept
    assert await hits(cache, keys) == [True, True]
    await cache.aclose()


async def test_no_more_memory_is_kept_than_may_be(tmp_path: Path) -> None:
    cache = await open_behind(tmp_path)
    keys = [row_key(n, 1000) for n in range(9)]
    taken = [
        cache.put(key, memoryview(row_bytes(key)), lambda: None, lambda: True, keeps=MIB)
        for key in keys
    ]
    assert taken == [True] * 8 + [False]
    await cache.flush()
    assert await hits(cache, keys) == [True] * 9  # it was written later
    await cache.aclose()


async def test_what_found_no_room_is_written_when_there_is_some(tmp_path: Path) -> None:
    """A stream faster than the disk: nothing is lost that is still in memory."""
    metrics = Metrics()
    cache = await BlockCache.open(
        tmp_path, size_limit=256 * MIB, free_share=0.0, queue_limit=MIB, metrics=metrics
    )
    keys = [row_key(n, MIB // 2) for n in range(12)]
    pins = dict.fromkeys(keys, 0)

    def claim(key: str) -> bool:
        pins[key] += key != keys[7]  # evicted meanwhile
        return key != keys[7]

    def release(key: str) -> None:
        pins[key] -= 1

    taken = []
    for key in keys:
        data = memoryview(row_bytes(key))
        if cache.put(key, data, partial(release, key), partial(claim, key)):
            pins[key] += 1
            taken.append(key)
    assert taken == keys[:2]
    await cache.flush()
    assert set(pins.values()) == {0}
    assert await hits(cache, keys) == [key != keys[7] for key in keys]
    assert cache.surely_absent(keys[7])  # so the next look for it asks no database
    assert metrics["cache.dropped"] == 1
    await cache.aclose()
