"""The Disk: plain files, checked; nothing pickled; no way out of the directory."""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.cache.block_disk import (
    MODE_BINARY,
    BadRow,
    BlockDisk,
    StoredBlock,
    is_value_name,
    key_digest,
)


@pytest.fixture
def disk(tmp_path: Path) -> BlockDisk:
    return BlockDisk(str(tmp_path))


def read(disk: BlockDisk, key: str, block: StoredBlock) -> bytes | None:
    buffer = bytearray(block.length)
    return bytes(buffer) if disk.read_into(key_digest(key), block, memoryview(buffer)) else None


@pytest.mark.parametrize("data", [b"", b"\n" * 5000, os.urandom(1 << 20)])
def test_a_value_is_a_file_of_just_these_bytes(disk: BlockDisk, data: bytes) -> None:
    size, mode, filename, value = disk.store(data, read=False, key="k")
    block = disk.fetch(mode, filename, value, read=True)
    assert (Path(disk._directory) / filename).read_bytes() == data
    assert read(disk, "k", block) == data
    assert size == -(-len(data) // 4096) * 4096
    disk.remove(filename)
    with pytest.raises(FileNotFoundError):
        read(disk, "k", block)


def test_the_bytes_of_another_key_do_not_pass(disk: BlockDisk) -> None:
    block = disk.write("k", b"x" * 100)
    assert read(disk, "other", block) is None


def test_any_object_that_is_a_buffer_can_be_written(disk: BlockDisk) -> None:
    for data in (bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"zabcdz")[1:5]):
        assert read(disk, "k", disk.write("k", data)) == b"abcd"


@pytest.mark.parametrize("key", [b"bytes", 1, 1.5, None, ("a",), object()])
def test_keys_that_are_no_str_are_refused(disk: BlockDisk, key: object) -> None:
    with pytest.raises(TypeError, match="cache key must be str"):
        disk.put(key)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeError, match="cache key must be str"):
        disk.filename(key)


@pytest.mark.parametrize("value", ["text", 1, 1.5, None, {"a": 1}])
def test_values_that_would_be_pickled_are_refused(disk: BlockDisk, value: object) -> None:
    with pytest.raises(TypeError, match="cache value must be bytes"):
        disk.store(value, read=False, key="k")


def test_a_stream_as_value_is_refused(disk: BlockDisk) -> None:
    with pytest.raises(TypeError, match="cache value must be bytes"):
        disk.store(b"x", read=True, key="k")


@pytest.mark.parametrize(
    ("key", "raw"),
    [(pickle.dumps("k"), False), (key_digest("k"), False), ("k", True), (b"short", True)],
)
def test_columns_of_keys_that_are_no_digest_are_refused(
    disk: BlockDisk, key: object, raw: bool
) -> None:
    with pytest.raises(BadRow, match="no digest"):
        disk.get(key, raw)
    assert disk.get(*disk.put("k")) == key_digest("k")


GOOD_NAME = "ab/" + "0" * 30 + "-" + "1" * 8


@pytest.mark.parametrize(
    ("mode", "filename", "value"),
    [
        (0, None, b"raw"),
        (1, None, b"raw"),
        (3, GOOD_NAME, bytes(16)),
        (4, None, pickle.dumps("v")),
        (4, GOOD_NAME, bytes(16)),
        (MODE_BINARY, "../../etc/passwd", bytes(16)),
        (MODE_BINARY, "/etc/passwd", bytes(16)),
        (MODE_BINARY, GOOD_NAME + "/..", bytes(16)),
        (MODE_BINARY, GOOD_NAME + "\n", bytes(16)),
        (MODE_BINARY, None, bytes(16)),
        (MODE_BINARY, GOOD_NAME, None),
        (MODE_BINARY, GOOD_NAME, bytes(15)),
        (MODE_BINARY, GOOD_NAME, "0123456789abcdef"),
    ],
)
def test_rows_that_store_cannot_have_made_are_refused(
    disk: BlockDisk, mode: object, filename: object, value: object
) -> None:
    with pytest.raises(BadRow):
        disk.fetch(mode, filename, value, read=True)


def test_remove_never_leaves_the_directory(disk: BlockDisk, tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside"
    outside.write_text("stays")
    disk.remove("../outside")
    assert outside.read_text() == "stays"


def test_a_failed_write_leaves_no_file(disk: BlockDisk, tmp_path: Path) -> None:
    tmp_path.joinpath("f").touch()
    gone = BlockDisk(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        gone.write("k", b"x")
    assert not (tmp_path / "gone").exists()


def pages(data: bytes, offset: int = 0) -> memoryview:
    """A copy that begins so many bytes behind the begin of a page."""
    memory = memoryview(mmap.mmap(-1, offset + len(data)))[offset:]
    memory[:] = data
    return memory


def is_in_page_cache(disk: BlockDisk, block: StoredBlock) -> bool:
    fd = os.open(Path(disk._directory) / block.filename, os.O_RDONLY)
    try:
        return os.preadv(fd, (bytearray(block.length),), 0, os.RWF_NOWAIT) == block.length
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def has_page_cache_only(directory: Path) -> bool:
    found = subprocess.run(
        ["stat", "-f", "-c", "%T", str(directory)], check=True, capture_output=True, text=True
    )
    return found.stdout.strip() in {"tmpfs", "ramfs"}


LARGE = os.urandom(1 << 20)


def test_large_values_go_past_the_page_cache(disk: BlockDisk, tmp_path: Path) -> None:
    if has_page_cache_only(tmp_path):
        pytest.skip("this filesystem is nothing but page cache")
    block = disk.write("k", pages(LARGE))
    buffer = pages(bytes(len(LARGE)))
    assert disk.read_into(key_digest("k"), block, buffer)
    assert buffer == LARGE
    assert not is_in_page_cache(disk, block)
    assert disk.is_direct
    hurried = disk.write("k", pages(LARGE), hurry=True)
    assert is_in_page_cache(disk, hurried)
    assert disk.read_into(key_digest("k"), hurried, pages(bytes(len(LARGE))))


@pytest.mark.parametrize("data", [pages(LARGE, 512), pages(LARGE[:-1]), memoryview(LARGE)])
def test_what_does_not_lie_in_whole_pages_is_stored_all_the_same(
    disk: BlockDisk, data: memoryview
) -> None:
    block = disk.write("k", data)
    assert read(disk, "k", block) == bytes(data)
    assert disk.is_direct


def test_a_filesystem_that_knows_only_its_page_cache_is_used_through_it(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "ramfs", "none", str(tmp_path)], check=True)
    try:
        for offset in (0, 512):
            disk, other = BlockDisk(str(tmp_path)), BlockDisk(str(tmp_path))
            block = disk.write("k", pages(LARGE, offset))
            assert disk.is_direct == (offset != 0)  # noticed at the first try
            buffer = pages(bytes(len(LARGE)))
            assert other.read_into(key_digest("k"), block, buffer)
            assert buffer == LARGE
            assert not other.is_direct
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_is_no_reason_to_go_through_the_page_cache(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        disk = BlockDisk(str(tmp_path))
        with pytest.raises(OSError, match="No space left"):
            disk.write("k", pages(LARGE))
        assert disk.is_direct
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("length", [0, 4096, (1 << 20) - 4096, (1 << 20) - 1])
def test_a_large_file_that_was_cut_does_not_pass(disk: BlockDisk, length: int) -> None:
    block = disk.write("k", pages(LARGE))
    os.truncate(Path(disk._directory) / block.filename, length)
    assert not disk.read_into(key_digest("k"), block, pages(bytes(len(LARGE))))
    assert disk.is_direct


@given(key=st.text(st.characters(codec=None)))
def test_every_str_has_a_name_of_the_known_form(key: str) -> None:
    filename, path = BlockDisk("/d").filename(key)
    assert is_value_name(filename)
    assert path == f"/d/{filename}"
    assert bytes.fromhex(filename[:2] + filename[3:33]) == key_digest(key)
