"""Bytes: whoever reads however, gets those of the original."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.mount.generated_s3 import expected, generated_s3, sha256
from tests.mounting import Mounted, Mounts

MIB = 1024 * 1024
SIZE = 200 * MIB + 12_345
STREAM, LONG_STREAM = 768 * MIB, 2048 * MIB


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    sizes = {"big": SIZE, "stream": STREAM, "long": LONG_STREAM, "another": 20 * MIB, "one": 1}
    with generated_s3(sizes) as url:
        yield url


@pytest.fixture(scope="module")
def mounted(endpoint: str, module_mount: Mounts) -> Mounted:
    return module_mount("generated", endpoint_url=endpoint, cache="reading")


@pytest.fixture
def fresh(endpoint: str, mount: Mounts) -> Mounted:
    """A mount that has nothing in any cache."""
    return mount("generated", endpoint_url=endpoint)


def digest(path: Path) -> str:
    return subprocess.run(
        ["sha256sum", path], capture_output=True, text=True, check=True
    ).stdout.split()[0]


# --- from one end to the other ----------------------------------------------------------------


def test_200_mb_whole_and_again(fresh: Mounted) -> None:
    assert digest(fresh.path / "big") == sha256(SIZE)
    Path("/proc/sys/vm/drop_caches").write_text("1")
    assert digest(fresh.path / "big") == sha256(SIZE)


@pytest.mark.parametrize("step", [1_000, 4_096, 65_537, 131_072, 3 * MIB + 1])
def test_in_steps_of_any_size(step: int, fresh: Mounted) -> None:
    with (fresh.path / "another").open("rb", buffering=0) as file:
        whole = hashlib.sha256()
        position = 0
        while data := file.read(step):
            whole.update(data)
            position += len(data)
    assert position == 20 * MIB
    assert whole.hexdigest() == sha256(20 * MIB)


def test_backward(fresh: Mounted) -> None:
    with (fresh.path / "another").open("rb", buffering=0) as file:
        for start in range(20 * MIB - 100_000, -1, -100_000):
            assert os.pread(file.fileno(), 100_000, start) == expected(start, start + 100_000)


def test_two_streams_of_one_file(fresh: Mounted) -> None:
    with (fresh.path / "big").open("rb") as first, (fresh.path / "big").open("rb") as second:
        second.seek(100 * MIB)
        for at in range(0, 30 * MIB, 500_000):
            assert first.read(500_000) == expected(at, at + 500_000)
            there = 100 * MIB + at
            assert second.read(500_000) == expected(there, there + 500_000)


# --- anywhere -----------------------------------------------------------------------------------


def test_sparse_seeks(mounted: Mounted) -> None:
    with (mounted.path / "big").open("rb", buffering=0) as file:
        for power in range(28):
            for at in (2**power - 1, 2**power, SIZE - 2**power):
                if 0 <= at < SIZE:
                    file.seek(at)
                    got = file.read(3)
                    assert got == expected(at, min(at + 3, SIZE))


def test_behind_the_end(mounted: Mounted) -> None:
    with (mounted.path / "big").open("rb", buffering=0) as file:
        fd = file.fileno()
        assert os.pread(fd, 10, SIZE - 4) == expected(SIZE - 4, SIZE)
        assert os.pread(fd, 10, SIZE) == b""
        assert os.pread(fd, 10, SIZE + 10**12) == b""
        assert file.seek(0, os.SEEK_END) == SIZE
        assert file.read() == b""
        assert file.seek(5, os.SEEK_END) == SIZE + 5
        assert file.read(1) == b""
    assert (mounted.path / "one").read_bytes() == expected(0, 1)


def test_holes_are_none(mounted: Mounted) -> None:
    with (mounted.path / "big").open("rb", buffering=0) as file:
        assert os.lseek(file.fileno(), 1000, os.SEEK_DATA) == 1000
        assert os.lseek(file.fileno(), 1000, os.SEEK_HOLE) == SIZE
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(file.fileno(), SIZE + 1, os.SEEK_DATA)


def test_mmap(fresh: Mounted) -> None:
    with (fresh.path / "big").open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with mapping:
        assert len(mapping) == SIZE
        rng = random.Random(1)
        for _ in range(300):
            at = rng.randrange(SIZE)
            assert mapping[at : at + 100] == expected(at, min(at + 100, SIZE))
        start = 150 * MIB
        assert mapping[start : start + 3 * MIB] == expected(start, start + 3 * MIB)
        assert mapping[-1:] == expected(SIZE - 1, SIZE)


def test_o_direct(fresh: Mounted) -> None:
    fd = os.open(fresh.path / "big", os.O_RDONLY | os.O_DIRECT)
    try:
        buffer = mmap.mmap(-1, 4 * MIB)
        for at in (0, 4096, 50 * MIB, SIZE // 4096 * 4096):
            count = os.preadv(fd, [buffer], at)
            assert count == min(4 * MIB, SIZE - at)
            assert buffer[:count] == expected(at, at + count)
    finally:
        os.close(fd)


def test_sendfile_and_copy_file_range(fresh: Mounted, tmp_path: Path) -> None:
    with (fresh.path / "another").open("rb") as source, (tmp_path / "copy").open("wb") as target:
        sent = 0
        while sent < 20 * MIB:
            sent += os.sendfile(target.fileno(), source.fileno(), sent, 20 * MIB)
    assert digest(tmp_path / "copy") == sha256(20 * MIB)
    subprocess.run(["cp", "--reflink=auto", fresh.path / "another", tmp_path / "cp"], check=True)
    assert digest(tmp_path / "cp") == sha256(20 * MIB)


def test_splice_into_a_pipe(fresh: Mounted) -> None:
    reader, writer = os.pipe()
    with (fresh.path / "another").open("rb") as file:
        count = os.splice(file.fileno(), writer, 60_000, offset_src=5 * MIB - 1000)
    got = os.read(reader, count)
    os.close(reader)
    os.close(writer)
    assert got == expected(5 * MIB - 1000, 5 * MIB - 1000 + count)


# --- many at once -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [[], ["--block-size", "128K"], ["--memory-limit", "32M"]], ids=str
)
def test_threads_read_anywhere(options: list[str], endpoint: str, mount: Mounts) -> None:
    mounted = mount("generated", *options, endpoint_url=endpoint)
    fd = os.open(mounted.path / "big", os.O_RDONLY)

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            at, length = rng.randrange(SIZE), rng.choice([1, 4096, 100_000, 2 * MIB])
            assert os.pread(fd, length, at) == expected(at, min(at + length, SIZE))

    try:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(read, range(12)))
    finally:
        os.close(fd)


PROCESS = """
import os, random, sys
from tests.mount.generated_s3 import expected
path, seed, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
with open(path, "rb", buffering=0) as file:
    for _ in range(30):
        at, length = rng.randrange(size), rng.choice([10, 4096, 300_000])
        assert os.pread(file.fileno(), length, at) == expected(at, min(at + length, size)), at
    if seed % 2:
        start = seed * 10 * 1024 * 1024
        file.seek(start)
        for at in range(start, start + 5_000_000, 100_000):
            assert file.read(100_000) == expected(at, at + 100_000), at
"""


def test_processes_read_anywhere(fresh: Mounted) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, fresh.path / "big", str(seed), str(SIZE)],
            cwd=Path(__file__).parents[2],
        )
        for seed in range(6)
    ]
    assert [process.wait() for process in processes] == [0] * 6


def test_many_open_files(bucket: Bucket, mount: Mounts) -> None:
    files = {f"{number:03}": os.urandom(1000 + number * 97) for number in range(300)}
    bucket.put(files)
    mounted = mount(bucket.name)
    opened = {name: (mounted.path / name).open("rb") for name in files}
    try:
        barrier = threading.Barrier(10)

        def read(part: int) -> None:
            barrier.wait()
            for name in list(files)[part::10]:
                assert opened[name].read() == files[name]

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(read, range(10)))
    finally:
        for file in opened.values():
            file.close()


# --- memory -------------------------------------------------------------------------------------


def test_memory_while_a_long_file_streams(endpoint: str, mount: Mounts) -> None:
    mounted = mount("generated", endpoint_url=endpoint, covered=False)
    assert digest(mounted.path / "stream") == sha256(STREAM)
    assert mounted.memory() < 256 * MIB


@pytest.mark.parametrize("limit", [64, 96])
def test_memory_limit_holds(limit: int, endpoint: str, mount: Mounts) -> None:
    """What the process holds beside its blocks (Python, boto3...) is counted in."""
    mounted = mount(
        "generated", "--memory-limit", f"{limit}M", endpoint_url=endpoint, covered=False
    )
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(digest, [mounted.path / name for name in ("big", "another", "big")]))
    assert mounted.memory() < 1.15 * limit * MIB


@pytest.mark.long
def test_memory_limit_holds_while_2_gib_stream(endpoint: str, mount: Mounts) -> None:
    mounted = mount("generated", "--memory-limit", "64M", endpoint_url=endpoint, covered=False)
    assert digest(mounted.path / "long") == sha256(LONG_STREAM)
    assert mounted.memory() < 1.15 * 64 * MIB
