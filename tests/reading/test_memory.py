"""The arena: huge pages, and memory that is given back for good."""

from __future__ import annotations

import ctypes
import tracemalloc
from pathlib import Path

import pytest

from s3mount.model import ObjectInfo
from s3mount.reading.block import Block, Content
from s3mount.reading.memory import BESIDE, Memory

MIB = 1 << 20
SIZE = 4 * MIB


def block(index: int) -> Block:
    info = ObjectInfo(key="k", size=SIZE, etag='"e"', mtime_ns=0)
    return Block(Content(info, "scope"), index)


def of_mapping(buffer: memoryview, field: str) -> str:
    """What /proc tells of the mapping that a buffer lies in."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first:
            start, stop = (int(number, 16) for number in first.split("-"))
            inside = start <= address < stop
        elif inside and first == f"{field}:":
            return rest.strip()
    raise AssertionError(f"no {field} in /proc/self/smaps")


def kernel_gives_huge_pages() -> bool:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.exists() and "[never]" not in setting.read_text()


@pytest.mark.skipif(not kernel_gives_huge_pages(), reason="this kernel gives no huge pages")
async def test_blocks_lie_in_huge_pages() -> None:
    memory = Memory(MIB, 64 * MIB)
    one = block(0)
    assert memory.give(one, MIB, urgent=True)
    assert of_mapping(one.buffer, "THPeligible") == "1"


async def test_memory_that_is_given_back_is_no_longer_held() -> None:
    memory = Memory(MIB, MIB)
    one, small = block(0), block(1)
    assert memory.give(one, MIB, urgent=True)
    slot = one.buffer
    slot[:] = b"x" * MIB
    memory.drop(one)
    assert memory.give(small, 1000, urgent=True)  # there is room only without the slot
    assert memory.used == 1000 + BESIDE
    assert bytes(slot) == bytes(MIB)  # the kernel took the pages back


async def test_what_small_blocks_take_beside_their_bytes_is_counted() -> None:
    memory = Memory(MIB, 64 * MIB)
    count, length = 2000, 100
    kept = []
    tracemalloc.start()
    try:
        for number in range(count):
            key, etag = f"directory/file-{number:08}", f'"{number:032x}"'
            info = ObjectInfo(key=key, size=length, etag=etag, mtime_ns=0)
            content = Content(info, "scope")
            small = content.blocks[0] = Block(content, 0)
            assert memory.give(small, length, urgent=True)
            kept.append(small)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory.used / 2 < taken <= memory.used


async def test_tiny_files_are_let_go_when_all_they_take_reaches_the_limit() -> None:
    memory = Memory(MIB, MIB)
    blocks = [block(0) for _ in range(2000)]
    for one in blocks:
        one.content.blocks[0] = one
        assert memory.give(one, 100, urgent=True)
        memory.spend(one)
    assert sum(one.is_current for one in blocks) <= MIB // (100 + BESIDE)
    assert memory.used <= MIB
