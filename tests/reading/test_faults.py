"""Files read through the mount while the server fails and lies: right bytes, soon.

Every 16 bytes of every object say whose they are and where, so that no byte of another
place, another object or an error page can pass for file data.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.modelled_s3 import Fault, FaultKind, ModelledS3
from tests.mounting import Mounted, Mounts
from tests.servers import Server
from tests.stopwatch import Stopwatch

SIZES = [16 * n for n in (1, 70, 5_000, 9_000, 20_000, 70_000, 131_072, 200_000)]
OBJECTS = 24
READERS = 6
READS = 30  # of each


def size_of(number: int) -> int:
    return SIZES[number % len(SIZES)]


def content(number: int, start: int, stop: int, version: int = 0) -> bytes:
    """The bytes [start, stop) of an object; both are multiples of 16."""
    return b"".join(
        struct.pack(">HHIQ", 0xBEEF, version, number, offset) for offset in range(start, stop, 16)
    )


@pytest.fixture(scope="module")
def modelled() -> Iterator[ModelledS3]:
    with ModelledS3(ttfb=0.005, rate=0) as server:
        server.put_many("bucket", {f"f{n:02}": content(n, 0, size_of(n)) for n in range(OBJECTS)})
        yield server


@pytest.fixture
def faulty(modelled: ModelledS3, tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """Mounts the bucket; the faults end before the mount does."""
    with Mounts(tmp_path, Server(modelled.endpoint_url)) as mounts:
        try:
            yield lambda *options, **named: mounts("bucket", *options, **named)
        finally:
            modelled.clear_faults()


def read(path: Path, number: int, start: int, stop: int) -> bytes:
    """From the server, or the daemon's cache: not from the kernel's."""
    fd = os.open(path / f"f{number:02}", os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, stop - start, start)
    finally:
        os.close(fd)


def read_at_random(path: Path, seed: int, slowest: list[float], watch: Stopwatch) -> None:
    numbers = random.Random(seed)
    for _ in range(READS):
        number = numbers.randrange(OBJECTS)
        size = size_of(number)
        start = numbers.randrange(size // 16) * 16
        stop = min(size, start + numbers.choice([16, 4096, 65536, 1_048_576]))
        began = watch.seconds
        assert read(path, number, start, stop) == content(number, start, stop)
        slowest.append(watch.seconds - began)


def read_by_many(path: Path) -> float:
    """Random reads of several threads, all right; the slowest's seconds."""
    slowest: list[float] = []
    with Stopwatch() as watch, ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read_at_random, path, n, slowest, watch) for n in range(READERS)]
        for reader in readers:
            reader.result()
    assert len(slowest) == READERS * READS
    return max(slowest)


KINDS = [
    Fault(FaultKind.STALL, 0.1),
    Fault(FaultKind.NEVER_ANSWER, 0.05),
    Fault(FaultKind.SLOW_DRIP, 0.1),
    Fault(FaultKind.RESET, 0.15),
    Fault(FaultKind.RESET_BODY, 0.15, after=1000),
    Fault(FaultKind.EARLY_END, 0.15),
    Fault(FaultKind.INTERNAL_ERROR, 0.15),
    Fault(FaultKind.SLOW_DOWN, 0.2),
    Fault(FaultKind.WHOLE_OBJECT, 0.3),
    Fault(FaultKind.WRONG_RANGE, 0.3),
    Fault(FaultKind.HTML, 0.3),
    Fault(FaultKind.WRONG_ETAG, 0.1),
]


@pytest.mark.parametrize("fault", KINDS, ids=lambda fault: fault.kind.value)
def test_reads_are_right_under(
    faulty: Callable[..., Mounted], modelled: ModelledS3, fault: Fault
) -> None:
    mounted = faulty(cache=None)
    modelled.set_faults(fault, seed=1)
    modelled.reset_counts()
    slowest = read_by_many(mounted.path)
    assert modelled.counts(0).faults[fault.kind.value] > 0
    # Far below --read-timeout: nothing waited for that, and backing off took the rest.
    assert slowest < 8.0


@pytest.mark.parametrize("cache", [None, "cache"])
def test_reads_are_right_under_all_faults_at_once(
    faulty: Callable[..., Mounted], modelled: ModelledS3, cache: str | None
) -> None:
    mounted = faulty(cache=cache)
    faults = [Fault(fault.kind, 0.03, after=fault.after) for fault in KINDS]
    modelled.set_faults(*faults, seed=2)
    modelled.reset_counts()
    read_by_many(mounted.path)
    read_by_many(mounted.path)
    assert sum(modelled.counts(0).faults.values()) > 0


def test_what_was_read_under_faults_is_right_in_the_cache(
    faulty: Callable[..., Mounted], modelled: ModelledS3
) -> None:
    mounted = faulty()
    modelled.set_faults(
        Fault(FaultKind.STALL, 0.1), Fault(FaultKind.EARLY_END, 0.1, after=200_000), seed=3
    )
    for n in range(OBJECTS):
        assert read(mounted.path, n, 0, size_of(n)) == content(n, 0, size_of(n))
    mounted.unmount()
    modelled.set_faults(Fault(FaultKind.NEVER_ANSWER))  # GETs only
    modelled.reset_counts()
    mounted = faulty()
    for n in range(OBJECTS):
        assert read(mounted.path, n, 0, size_of(n)) == content(n, 0, size_of(n))
    assert modelled.counts(0)["GET"] == 0


def test_an_endpoint_that_never_answered_is_read_soon_after_it_is_back(
    faulty: Callable[..., Mounted], modelled: ModelledS3
) -> None:
    mounted = faulty(cache=None)
    read_by_many(mounted.path)
    dead = 4.0
    modelled.hang(dead)
    with Stopwatch() as watch, ThreadPoolExecutor(OBJECTS) as pool:
        every = [pool.submit(read, mounted.path, n, 0, size_of(n)) for n in range(OBJECTS)]
        for n, reader in enumerate(every):
            assert reader.result() == content(n, 0, size_of(n))
        assert watch.seconds < dead + 3.0


def test_objects_that_are_replaced_are_never_mixed(
    faulty: Callable[..., Mounted], modelled: ModelledS3
) -> None:
    """Each read is of one version, or an error."""
    mounted = faulty("--metadata-ttl", "0", cache=None)
    mounted.expect("replaced", "again and again")
    number = OBJECTS - 1  # of 3.2 MB
    size = size_of(number)
    versions = [content(number, 0, size, version) for version in range(8)]
    whole = 0
    for version in versions * 2:
        replacing = threading.Thread(target=modelled.put, args=("bucket", f"f{number:02}", version))
        replacing.start()
        for _ in range(4):
            try:
                data = read(mounted.path, number, 0, size)
            except OSError:
                continue
            # Fewer bytes are what the kernel makes of an error in the midst of a read.
            assert any(one.startswith(data) for one in versions)
            whole += len(data) == size
        replacing.join()
        assert read(mounted.path, number, 0, size) == version
    assert whole
