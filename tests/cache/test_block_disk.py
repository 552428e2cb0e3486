"""The Disk: plain files, checked; nothing pickled; no way out of the directory."""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.cache.block_disk import (
    MODE_BINARY,
    BadRow,
    BlockDisk,
    Buffer,
    StoredBlock,
    is_value_name,
    key_digest,
)


@pytest.fixture
def disk(tmp_path: Path) -> BlockDisk:
    return BlockDisk(str(tmp_path))


def write(disk: BlockDisk, data: Buffer, *, hurry: bool = False) -> StoredBlock:
    """Write a file of one row, of the key "k"."""
    ((key, block),) = disk.write([("k", data)], hurry=hurry)
    assert key == "k"
    return block


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
    block = write(disk, b"x" * 100)
    assert read(disk, "other", block) is None


def test_any_object_that_is_a_buffer_can_be_written(disk: BlockDisk) -> None:
    for data in (bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"zabcdz")[1:5]):
        assert read(disk, "k", write(disk, data)) == b"abcd"


@pytest.mark.parametrize("key", [b"bytes", 1, 1.5, None, ("a",), object()])
def test_keys_that_are_no_str_are_refused(disk: BlockDisk, key: object) -> None:
    with pytest.raises(TypeError, match="cache key must be str"):
        disk.put(key)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeError, match="cache key must be str"):
        disk.write([(key, b"x")])  # type: ignore[list-item]  # what is refused
    assert [path for path in Path(disk._directory).rglob("*") if path.is_file()] == []


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


GOOD_NAME = "ab/" + "0" * 14


@pytest.mark.parametrize(
    ("mode", "filename", "value"),
    [
        (0, None, b"raw"),
        (1, None, b"raw"),
        (3, GOOD_NAME, bytes(24)),
        (4, None, pickle.dumps("v")),
        (4, GOOD_NAME, bytes(24)),
        (MODE_BINARY, "../../etc/passwd", bytes(24)),
        (MODE_BINARY, "/etc/passwd", bytes(24)),
        (MODE_BINARY, GOOD_NAME + "/..", bytes(24)),
        (MODE_BINARY, GOOD_NAME + "\n", bytes(24)),
        (MODE_BINARY, None, bytes(24)),
        (MODE_BINARY, GOOD_NAME, None),
        (MODE_BINARY, GOOD_NAME, bytes(16)),
        (MODE_BINARY, GOOD_NAME, "0123456789abcdef" + "01234567"),
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
        write(gone, b"x")
    assert not (tmp_path / "gone").exists()


def pages(data: bytes, offset: int = 0) -> memoryview:
    """A copy that begins so many bytes behind the begin of a page."""
    memory = memoryview(mmap.mmap(-1, offset + len(data) + 1))[offset:-1]
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
    block = write(disk, pages(LARGE))
    buffer = pages(bytes(len(LARGE)))
    assert disk.read_into(key_digest("k"), block, buffer)
    assert buffer == LARGE
    assert not is_in_page_cache(disk, block)
    assert disk.is_direct
    hurried = write(disk, pages(LARGE), hurry=True)
    assert is_in_page_cache(disk, hurried)
    assert disk.read_into(key_digest("k"), hurried, pages(bytes(len(LARGE))))


@pytest.mark.parametrize("data", [pages(LARGE, 512), pages(LARGE[:-1]), memoryview(LARGE)])
def test_what_does_not_lie_in_whole_pages_is_stored_all_the_same(
    disk: BlockDisk, data: memoryview
) -> None:
    block = write(disk, data)
    assert read(disk, "k", block) == bytes(data)
    assert disk.is_direct


def test_a_filesystem_that_knows_only_its_page_cache_is_used_through_it(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "ramfs", "none", str(tmp_path)], check=True)
    try:
        for offset in (0, 512):
            disk, other = BlockDisk(str(tmp_path)), BlockDisk(str(tmp_path))
            block = write(disk, pages(LARGE, offset))
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
            write(disk, pages(LARGE))
        assert disk.is_direct
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("length", [0, 4096, (1 << 20) - 4096, (1 << 20) - 1])
def test_a_large_file_that_was_cut_does_not_pass(disk: BlockDisk, length: int) -> None:
    block = write(disk, pages(LARGE))
    os.truncate(Path(disk._directory) / block.filename, length)
    assert not disk.read_into(key_digest("k"), block, pages(bytes(len(LARGE))))
    assert disk.is_direct


ROWS = st.lists(
    st.sampled_from([0, 1, 100, 4095, 4096, 128 << 10, 512 << 10, (512 << 10) + 100, 1 << 20]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=30)
@given(lengths=ROWS, offset=st.sampled_from([0, 512]), hurry=st.booleans())
def test_values_that_are_written_together_lie_in_one_file_without_a_hole(
    lengths: list[int], offset: int, hurry: bool
) -> None:
    """Those of whole disk blocks where they can be read past the page cache."""
    with tempfile.TemporaryDirectory() as directory:
        disk = BlockDisk(directory)
        values = [
            (str(number), pages(LARGE[number : number + length], offset))
            for number, length in enumerate(lengths)
        ]
        blocks = disk.write(values, hurry=hurry)
        assert disk.is_direct
        ((path, size),) = [
            (path, path.stat().st_size) for path in Path(directory).rglob("*") if path.is_file()
        ]
        assert {block.filename for _, block in blocks} == {str(path.relative_to(directory))}
        ends = [(block.offset, block.offset + block.length) for _, block in blocks]
        assert [0, *(end for _, end in ends)] == [*(start for start, _ in ends), size]
        for key, block in blocks:
            data = dict(values)[key]
            assert block.length == len(data)
            assert block.offset % 4096 == 0 or block.length % 4096
            buffer = pages(bytes(len(data)))
            assert disk.read_into(key_digest(key), block, buffer)
            assert buffer == data
        assert disk.is_direct


def test_more_values_than_one_call_takes_are_written(disk: BlockDisk) -> None:
    values = [(str(number), str(number).encode()) for number in range(2500)]
    for key, block in disk.write(values):
        assert read(disk, key, block) == key.encode()


def test_names_have_the_known_form_and_are_given_once() -> None:
    names = [BlockDisk("/d").filename() for _ in range(100)]
    assert all(is_value_name(filename) for filename, _ in names)
    assert all(path == f"/d/{filename}" for filename, path in names)
    assert len(set(names)) == 100
