"""What the disk cache costs and gives, without a mount: `python benchmarks/micro_cache.py`.

Prints one line per figure. Times are wall clock on an otherwise idle machine; each figure
is the best of several runs, since what disturbs a run only ever makes it slower.

    --directory DIR   where the caches are made (default: the directory for temporary files)
    --rows N          rows of the database that is opened (default 1,000,000)
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import trio

from s3mount.cache.block_cache import BlockCache
from s3mount.cache.block_disk import key_digest
from s3mount.cache.row_index import RowIndex
from s3mount.metrics import Metrics

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
REPEATS = 3


def pages(content: bytes) -> memoryview:
    """A buffer that begins with a page, as a mount's blocks do: it may go past the page cache."""
    buffer = memoryview(mmap.mmap(-1, len(content)))
    buffer[:] = content
    return buffer


def report(what: str, figure: float, unit: str) -> None:
    """Print one line of the result."""
    print(f"{what:62} {figure:10,.2f} {unit}", flush=True)


async def open_cache(directory: Path) -> BlockCache:
    """A cache that evicts nothing by itself."""
    return await BlockCache.open(directory, size_limit=64 * GIB, free_share=0.0, metrics=Metrics())


async def put_all(cache: BlockCache, keys: list[str], buffers: list[memoryview]) -> int:
    """Put rows from a few buffers that are used again when released; the bytes put."""
    free = list(buffers)
    wake = trio.Event()

    def release(buffer: memoryview) -> None:
        free.append(buffer)
        wake.set()

    for key in keys:
        while not free:
            wake = trio.Event()
            await wake.wait()
        buffer = free.pop()
        if not cache.put(key, buffer, partial(release, buffer)):
            raise RuntimeError("the writer is behind, although its queue has room")
    await cache.flush()
    return len(keys) * len(buffers[0])


async def get_all(
    cache: BlockCache, keys: list[str], length: int, *, outstanding: int, batch: int = 1
) -> None:
    """Get rows, all of which must be hits, some calls at a time."""
    groups = iter([keys[start : start + batch] for start in range(0, len(keys), batch)])

    async def reader() -> None:
        buffers = [pages(bytes(length)) for _ in range(batch)]
        for group in groups:
            if not all(await cache.get(list(zip(group, buffers, strict=False)))):
                raise RuntimeError("a miss")

    async with trio.open_nursery() as nursery:
        for _ in range(outstanding):
            nursery.start_soon(reader)


async def best(work: Callable[[], Awaitable[object]]) -> float:
    """The shortest of several runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        await work()
        times.append(time.perf_counter() - start)
    return min(times)


def fresh_keys(name: str, count: int) -> Callable[[], list[str]]:
    """Keys that no call gave before."""
    run = iter(range(1000))
    return lambda: [f"{name}-{n}-{next_run}" for next_run in [next(run)] for n in range(count)]


async def writing(cache: BlockCache) -> None:
    """Rows into the cache."""
    for length, count in ((MIB, 1024), (128 * KIB, 4000), (16 * KIB, 8000)):
        buffers = [pages(os.urandom(length)) for _ in range(min(256, 24 * MIB // length))]
        keys = fresh_keys(f"w{length}", count)
        cpu = time.process_time()
        taken = await best(lambda: put_all(cache, keys(), buffers))  # noqa: B023 - called at once
        cpu = (time.process_time() - cpu) / REPEATS
        report(f"put, rows of {length // KIB} KiB", count * length / taken / 1e9, "GB/s")
        report("", count / taken, "rows/s")
        report("  CPU per GB", cpu / (count * length / 1e9), "s")


async def reading(cache: BlockCache) -> None:
    """Rows out of the cache: large ones from the disk, others from the kernel's page cache."""
    for length, count in ((MIB, 512), (128 * KIB, 1000), (16 * KIB, 2000)):
        keys = [f"r{length}-{n}" for n in range(count)]
        await put_all(cache, keys, [pages(os.urandom(length)) for _ in range(16)])
        for outstanding, batch in ((1, 1), (4, 1), (1, 16)):
            taken = await best(
                partial(get_all, cache, keys, length, outstanding=outstanding, batch=batch)
            )
            what = f"get, rows of {length // KIB} KiB, {outstanding} outstanding, {batch} a batch"
            report(what, taken / count * 1e6, "us/row")
            report("", count * length / taken / 1e9, "GB/s")


async def missing(cache: BlockCache) -> None:
    """Keys that are not there."""
    buffer = memoryview(bytearray(16 * KIB))

    async def ask() -> None:
        for n in range(2000):
            await cache.get([(f"absent-{n}", buffer)])

    async def ask_filter() -> None:
        for n in range(2000):
            cache.surely_absent(f"absent-{n}")

    report("get, a miss", await best(ask) / 2000 * 1e6, "us")
    report("surely_absent", await best(ask_filter) / 2000 * 1e6, "us")


def fill(directory: Path, rows: int) -> None:
    """Make a database with that many rows of 16 KiB, without their files."""
    RowIndex(directory, size_limit=64 * GIB).close()
    columns = "key, raw, store_time, access_time, size, mode, filename, value"
    with closing(sqlite3.connect(directory / "cache.db")) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            f"INSERT INTO Cache ({columns}) VALUES (?, 1, ?, ?, 16384, 2, ?, ?)",
            (
                (digest, n, n, f"{digest.hex()[:2]}/{digest.hex()[2:16]}", bytes(24))
                for n in range(rows)
                for digest in [key_digest(f"row-{n}")]
            ),
        )
        connection.execute(
            "INSERT INTO Files SELECT filename, rowid, rowid, size, access_time FROM Cache"
        )


async def opening(directory: Path, rows: int) -> None:
    """A database of many rows."""
    fill(directory, rows)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        cache = await open_cache(directory)
        times.append(time.perf_counter() - start)
        await cache.aclose()
    report(f"open, {rows:,} rows", min(times) * 1e3, "ms")
    report("  the slowest of 5", max(times) * 1e3, "ms")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cache = await open_cache(directory)
    start, cpu = time.perf_counter(), time.process_time()
    late = 0.0
    while not cache.surely_absent("nobody"):
        due = time.perf_counter() + 0.001
        await trio.sleep(0.001)
        late = max(late, time.perf_counter() - due)
    report("  until absent keys are known", time.perf_counter() - start, "s")
    report("  CPU for that", time.process_time() - cpu, "s")
    report("  the trio thread was late meanwhile by at most", late * 1e3, "ms")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report("  peak memory, more than before", (after - before) / 1024, "MiB")
    start = time.perf_counter()
    index = RowIndex(directory, size_limit=64 * GIB)
    start = time.perf_counter()
    index.evict(50 * 500 * 16 * KIB)
    report("evict, without files", (time.perf_counter() - start) / 25_000 * 1e6, "us/row")
    index.close()
    await cache.aclose()


async def main(directory: Path, rows: int) -> None:
    """All of it."""
    cache = await open_cache(directory / "warm")
    while not cache.surely_absent("nobody"):  # noqa: ASYNC110 - a thread of the cache's tells it
        await trio.sleep(0.01)
    await missing(cache)
    await reading(cache)
    await writing(cache)
    await cache.aclose()
    shutil.rmtree(directory / "warm")
    (directory / "many").mkdir(mode=0o700)
    await opening(directory / "many", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the disk cache costs and gives.")
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        trio.run(main, Path(scratch), options.rows)
