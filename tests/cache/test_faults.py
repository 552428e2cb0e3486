"""What disks and people do to a cache directory: misses and one warning, never an error."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio.testing

from s3mount.cache.block_cache import BlockCache
from s3mount.cache.directory import prepare
from s3mount.cache.jobs import Connections
from s3mount.cache.row_index import RowIndex
from s3mount.errors import UsageError
from s3mount.metrics import Metrics
from tests.cache.rows import (
    KIB,
    MIB,
    assert_sizes_agree,
    hits,
    open_cache,
    put_all,
    query,
    row_bytes,
    row_key,
    value_files,
)

KEYS = [row_key(n, 16 * KIB) for n in range(10)]
LATER = 61.0  # seconds; the cache tries again every minute


@contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", directory)
    try:
        yield directory
    finally:
        run("umount", "-l", directory)


def fill_disk(path: Path) -> None:
    """Write a file until nothing more goes into the filesystem."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        file.writelines(itertools.repeat(bytes(4096)))


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(record.levelname in {"INFO", "WARNING"} for record in caplog.records)
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def reopened(cache: BlockCache) -> None:
    """Ask, as a reader would, so that the cache tries again; wait until it has."""
    await hits(cache, KEYS[:1])
    await cache.flush()
    await trio.testing.wait_all_tasks_blocked()


async def test_a_full_disk_is_evicted_from_and_written_to_later(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    mock_clock: trio.testing.MockClock,
) -> None:
    with tmpfs(tmp_path / "small", "4m") as directory:
        cache = await open_cache(directory, size_limit=64 * MIB)
        await put_all(cache, KEYS)
        keys = [row_key(n, 100_000) for n in range(100, 160)]
        taken = [cache.put(key, memoryview(row_bytes(key)), lambda: None) for key in keys]
        assert all(taken)
        await cache.flush()
        found = await hits(cache, keys)
        assert False in found
        assert not cache.put(KEYS[0], memoryview(row_bytes(KEYS[0])), lambda: None)  # pausing
        mock_clock.jump(LATER)
        await put_all(cache, KEYS)
        assert all(await hits(cache, KEYS))
        await cache.aclose()
        assert_sizes_agree(directory)
        rows = {row[0] for row in query(directory, "SELECT filename FROM Cache")}
        assert {str(path.relative_to(directory)) for path in value_files(directory)} == rows
    (warning,) = warnings(caplog)
    assert "cannot write the cache" in warning
    assert "No space left" in warning


async def test_a_disk_that_is_full_at_the_start_is_served_from(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "8m") as directory:
        keys = [row_key(n, 100_000) for n in range(40)]
        cache = await open_cache(directory)
        for key in keys:  # a file of its own each
            await put_all(cache, [key])
        await cache.aclose()
        fill_disk(directory / "lost+found")
        cache = await open_cache(directory)
        # Some blocks were given up, so that the database could be opened.
        assert 20 < (await hits(cache, keys)).count(True) < len(keys)
        await cache.aclose()


async def test_a_read_only_filesystem_is_a_miss_until_it_is_mended(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    mock_clock: trio.testing.MockClock,
) -> None:
    with tmpfs(tmp_path / "disk", "8m") as directory:
        cache = await open_cache(directory)
        await put_all(cache, KEYS)
        await cache.aclose()
        run("mount", "-o", "remount,ro", directory)
        cache = await open_cache(directory)
        assert not any(await hits(cache, KEYS))
        assert not cache.put("k", memoryview(b"x"), lambda: None)
        assert any("read-only" in message for message in warnings(caplog))
        assert len(warnings(caplog)) == 1
        run("mount", "-o", "remount,rw", directory)
        mock_clock.jump(LATER)
        await reopened(cache)
        assert all(await hits(cache, KEYS))
        await cache.aclose()
        assert len(warnings(caplog)) == 1


async def test_a_directory_that_refuses_new_files_still_serves_what_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "disk", "8m") as directory:
        cache = await open_cache(directory)
        await put_all(cache, KEYS)
        places = [path for path in directory.iterdir() if path.is_dir()]
        run("chattr", "+i", directory, *places)
        try:
            key = row_key("new", 100)
            assert cache.put(key, memoryview(row_bytes(key)), lambda: None)
            await cache.flush()
            assert await hits(cache, [key]) == [False]
            assert len(warnings(caplog)) == 1
            await cache.aclose()
        finally:
            run("chattr", "-i", directory, *places)


@pytest.mark.parametrize("use", ["put", "put again", "look"])
@pytest.mark.parametrize("what", ["directory", "content", "database", "replaced"])
async def test_a_cache_that_is_removed_while_in_use_begins_anew(
    tmp_path: Path, what: str, use: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "cache"
    cache = await open_cache(directory)
    again = row_key("again", 100)
    await put_all(cache, [*KEYS, again])
    # The cache makes and removes files in there at any moment: rm(1) does not mind.
    if what == "directory":
        run("rm", "-rf", directory)
    elif what == "content":
        run("rm", "-rf", directory)
        directory.mkdir()
    else:
        for name in ("cache.db", "cache.db-wal", "cache.db-shm"):
            (directory / name).unlink()
    if what == "replaced":
        other = await open_cache(directory)
        await other.aclose()
    released: list[str] = []
    if use == "look":
        assert await hits(cache, [row_key("nobody", 100)]) == [False]
        await reopened(cache)
    # Whether a row is there already, a thread asks that did not use the database before.
    key = again if use == "put again" else row_key("new", 100)
    cache.put(key, memoryview(row_bytes(key)), lambda: released.append(key))
    await cache.flush()
    assert released == [key]
    await reopened(cache)
    assert not any(await hits(cache, KEYS))
    await put_all(cache, KEYS)
    assert all(await hits(cache, KEYS))
    assert directory.stat().st_mode & 0o777 == 0o700 or what == "content"
    await cache.aclose()
    assert len(warnings(caplog)) == 1
    assert_sizes_agree(directory)


def scribble(path: Path, start: int) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(start)
        file.write(b"\xa5" * (size - start))


@pytest.mark.parametrize("start", [0, 100, 4096])
async def test_a_damaged_database_is_made_anew(
    tmp_path: Path, start: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its header, its schema, or the pages behind them overwritten while nobody used it."""
    cache = await open_cache(tmp_path)
    await put_all(cache, KEYS)
    await cache.aclose()
    scribble(tmp_path / "cache.db", start)
    cache = await open_cache(tmp_path)
    assert not any(await hits(cache, KEYS))
    await reopened(cache)
    await put_all(cache, KEYS)
    assert all(await hits(cache, KEYS))
    await cache.aclose()
    assert_sizes_agree(tmp_path)
    assert len(warnings(caplog)) <= 2


@pytest.mark.parametrize("others_hold_it", [False, True])
async def test_a_machine_that_stands_still_is_not_taken_for_others(
    tmp_path: Path,
    mock_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    others_hold_it: bool,
) -> None:
    """A mount goes on without its cache when it is held for two seconds, and only then."""
    opening, may_open = threading.Event(), threading.Event()
    original = Connections.open

    def slowly(self: Connections, damaged: RowIndex | None = None) -> RowIndex:
        opening.set()
        may_open.wait()
        return original(self, damaged)

    monkeypatch.setattr(Connections, "open", slowly)
    async with trio.open_nursery() as nursery:
        caches: list[BlockCache] = []

        async def mount() -> None:
            cache = await BlockCache.open(tmp_path, size_limit=64 * MIB, metrics=Metrics())
            caches.append(cache)

        nursery.start_soon(mount)
        await trio.to_thread.run_sync(opening.wait)
        mock_clock.jump(100.0)
        await trio.testing.wait_all_tasks_blocked()
        assert caches == []
        if others_hold_it:
            for _ in range(20):
                mock_clock.jump(0.1)
                await trio.testing.wait_all_tasks_blocked()
            assert len(caches) == 1
        may_open.set()
    [cache] = caches
    if not others_hold_it:
        assert cache.put(KEYS[0], memoryview(row_bytes(KEYS[0])), lambda: None, lambda: True)
    await cache.aclose()


async def test_a_database_that_others_lock_for_long_is_a_miss(tmp_path: Path) -> None:
    """A batch is dropped, nobody waits, nothing is warned of; then all is as before."""
    cache = await open_cache(tmp_path)
    await put_all(cache, KEYS[:5])
    before = value_files(tmp_path)
    connection = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    await put_all(cache, KEYS[5:])
    assert await hits(cache, KEYS) == [True] * 5 + [False] * 5
    connection.execute("COMMIT")
    connection.close()
    assert value_files(tmp_path) == before
    await put_all(cache, KEYS[5:])
    assert all(await hits(cache, KEYS))
    await cache.aclose()


async def test_a_directory_is_made_private(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path / "new" / "cache")
    await cache.aclose()
    assert (tmp_path / "new" / "cache").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(0o777)
    cache = await open_cache(tmp_path / "open")
    await cache.aclose()
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o700


async def test_a_directory_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").touch()
    for directory, message in [
        (file, "cannot be made: File exists"),
        (file / "below", "cannot be made: Not a directory"),
        (foreign, "belongs to uid 12345"),
        (home, r"holds other files, such as 'letter.txt'; .* new or empty"),
        (tmp_path / "$HOME", r"has a \$NAME"),
    ]:
        with pytest.raises(UsageError, match=message):
            await open_cache(directory)
    assert home.stat().st_mode & 0o777 != 0o700


@contextmanager
def unprivileged() -> Iterator[None]:
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


def test_permissions_that_lack_are_told_at_once(tmp_path: Path) -> None:
    place = tmp_path.parent / f"{tmp_path.name}-open"  # pytest's own directories are private
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root.chmod(0o755)
        for name, mode in (("unwritable", 0o500), ("unreadable", 0o000)):
            (root / name).mkdir(mode)
            os.chown(root / name, 12345, 12345)
        stack.enter_context(unprivileged())
        for directory, message in [
            (place, "cannot be made: Permission denied"),
            (root / "unmakable", "cannot be made: Permission denied"),
            (root / "unwritable", "may not be written; give --cache-dir a directory that this"),
            (root / "unreadable", "cannot be used: Permission denied"),
        ]:
            with pytest.raises(UsageError, match=message):
                prepare(directory)


async def test_a_database_that_is_damaged_while_in_use_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await open_cache(tmp_path)
    await put_all(cache, KEYS)
    query(tmp_path, "PRAGMA wal_checkpoint(TRUNCATE)")
    scribble(tmp_path / "cache.db", 4096)
    new = [row_key(n, 100) for n in range(100, 110)]
    for key in new:
        cache.put(key, memoryview(row_bytes(key)), lambda: None)
    await cache.flush()
    await hits(cache, KEYS)
    await reopened(cache)
    await put_all(cache, KEYS)
    assert all(await hits(cache, KEYS))
    await cache.aclose()
    assert_sizes_agree(tmp_path)
    assert any("damaged" in message for message in warnings(caplog))
