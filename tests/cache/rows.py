"""Rows for tests: a key tells the bytes, so that whatever is read can be checked."""

from __future__ import annotations

import random
import sqlite3
import struct
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import trio

from s3mount.cache.block_cache import BlockCache
from s3mount.cache.block_disk import disk_usage
from s3mount.metrics import Metrics

KIB = 1024
MIB = 1024 * KIB


def row_key(name: object, length: int) -> str:
    return f"etag-{name}/0/{length}"


def row_bytes(key: str) -> bytes:
    return random.Random(key).randbytes(int(key.rpartition("/")[2]))


async def open_cache(
    directory: Path, *, size_limit: int = 256 * MIB, free_share: float = 0.0
) -> BlockCache:
    return await BlockCache.open(
        directory, size_limit=size_limit, free_share=free_share, metrics=Metrics()
    )


async def put_all(cache: BlockCache, keys: Iterable[str]) -> None:
    """Put rows, waiting whenever the queue is full; all are written when this returns."""
    keys = list(keys)
    released: list[str] = []
    for key in keys:
        data = memoryview(row_bytes(key))
        if not cache.put(key, data, partial(released.append, key)):
            await cache.flush()
            assert cache.put(key, data, partial(released.append, key))
    await cache.flush()
    assert sorted(released) == sorted(keys)


async def hits(cache: BlockCache, keys: Iterable[str]) -> list[bool]:
    """Ask for rows in one batch; each hit is checked byte for byte."""
    keys = list(keys)
    buffers = [bytearray(b"\xaa" * int(key.rpartition("/")[2])) for key in keys]
    found = await cache.get(
        [(key, memoryview(buffer)) for key, buffer in zip(keys, buffers, strict=True)]
    )
    for key, buffer, hit in zip(keys, buffers, found, strict=True):
        assert not hit or buffer == row_bytes(key)
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds that a thread or another process will bring about."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110  # another process can set no event of ours
            await trio.sleep(0.01)


def value_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("[0-9a-f][0-9a-f]/*") if path.is_file())


def rows_by_file(directory: Path) -> dict[str, list[tuple[bytes, int, int]]]:
    """The digest, offset and length of the rows of each file, as the database tells them."""
    files: dict[str, list[tuple[bytes, int, int]]] = {}
    for digest, name, label in query(directory, "SELECT key, filename, value FROM Cache"):
        offset, length, _ = struct.unpack("<QQQ", label)
        files.setdefault(name, []).append((digest, offset, length))
    return files


def all_rows(directory: Path) -> set[bytes]:
    """The digests of all rows."""
    return {digest for rows in rows_by_file(directory).values() for digest, _, _ in rows}


def volume(directory: Path) -> int:
    """What the cache occupies: value files in whole disk blocks, and the database."""
    sizes = [-(-path.stat().st_size // 4096) * 4096 for path in value_files(directory)]
    return sum(sizes) + (directory / "cache.db").stat().st_size


def query(directory: Path, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        return connection.execute(sql, arguments).fetchall()


def assert_sizes_agree(directory: Path, *, files_are_whole: bool = True) -> None:
    """What is counted must be what the tables hold, and what the files occupy."""
    counted: dict[str, int] = dict(query(directory, "SELECT key, value FROM Settings"))
    assert query(directory, "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM Cache") == [
        (counted["count"], counted["size"])
    ]
    files = query(directory, "SELECT name, last - first + 1, size FROM Files ORDER BY name")
    assert files == query(
        directory,
        "SELECT filename, COUNT(*), SUM(size) FROM Cache WHERE raw = 1 GROUP BY 1 ORDER BY 1",
    )
    if files_are_whole:
        sizes = [disk_usage((directory / name).stat().st_size) for name, _, _ in files]
        assert sizes == [size for _, _, size in files]
    assert query(directory, "PRAGMA integrity_check") == [("ok",)]
