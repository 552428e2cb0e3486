"""The Disk: plain files, checked; nothing pickled; no way out of the directory."""

from __future__ import annotations

import os
import pickle
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
        disk.put(key)  # type: ignore[arg-type]
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


@given(key=st.text(st.characters(codec=None)))
def test_every_str_has_a_name_of_the_known_form(key: str) -> None:
    filename, path = BlockDisk("/d").filename(key)
    assert is_value_name(filename)
    assert path == f"/d/{filename}"
    assert bytes.fromhex(filename[:2] + filename[3:33]) == key_digest(key)
