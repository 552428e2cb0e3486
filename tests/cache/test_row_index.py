"""Rows that share files: they come, count and go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from s3mount.cache import row_index
from s3mount.cache.block_disk import key_digest
from s3mount.cache.row_index import RowIndex
from tests.cache.rows import (
    MIB,
    all_rows,
    assert_sizes_agree,
    hits,
    open_cache,
    put_all,
    query,
    row_bytes,
    row_key,
    rows_by_file,
    value_files,
)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[RowIndex]:
    with closing(RowIndex(tmp_path, size_limit=MIB)) as opened:
        yield opened
        assert_sizes_agree(tmp_path)
        assert {str(path.relative_to(tmp_path)) for path in value_files(tmp_path)} == set(
            rows_by_file(tmp_path)
        )


def digests(keys: Sequence[str]) -> set[bytes]:
    return {key_digest(key) for key in keys}


def keys_of(name: str, rows: int, length: int = 3000) -> list[str]:
    return [row_key(f"{name}{number}", length) for number in range(rows)]


def add(index: RowIndex, keys: Sequence[str]) -> str:
    """Make rows of one file; its name."""
    blocks = index.disk.write([(key, row_bytes(key)) for key in keys])
    index.insert(blocks)
    return str(blocks[0][1].filename)


def test_a_file_is_as_recent_as_the_row_of_it_that_was_used_last(
    index: RowIndex, tmp_path: Path
) -> None:
    files = [keys_of(name, 4) for name in "abc"]
    names = [add(index, keys) for keys in files]
    index.touch_all({names[0]: 4e9})
    assert index.evict(1) == (4, 12288)
    assert all_rows(tmp_path) == digests(files[0] + files[2])
    assert index.evict(12289) == (8, 24576)
    assert index.evict(1) == (0, 0)


def test_no_more_than_so_many_rows_and_files_go_in_one_transaction(
    index: RowIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_index, "_EVICT_ROWS", 6)
    for name in "abcd":
        add(index, keys_of(name, 4, 4096))
    begun: list[int] = []
    transact = RowIndex._transact

    def counted(self: RowIndex) -> object:
        begun.append(self.rows())
        return transact(self)

    monkeypatch.setattr(RowIndex, "_transact", counted)
    assert index.evict(3 * 16384) == (12, 3 * 16384)
    assert begun == [16, 8]


def test_rows_that_are_there_already_stay_where_they_are(index: RowIndex, tmp_path: Path) -> None:
    """As when two mounts read the same object at the same time."""
    one, two = keys_of("a", 4), keys_of("b", 4)
    first = add(index, one)
    second = add(index, one[2:] + two)
    rows = rows_by_file(tmp_path)
    assert {digest for digest, _, _ in rows[first]} == digests(one)
    assert {digest for digest, _, _ in rows[second]} == digests(two)
    assert not (tmp_path / add(index, one[1:] + two[:3])).exists()
    assert len(rows_by_file(tmp_path)) == 2


def test_files_of_one_transaction_have_each_their_own_rows(index: RowIndex, tmp_path: Path) -> None:
    files = [keys_of(name, 3) for name in "abc"]
    written = [index.disk.write([(key, row_bytes(key)) for key in keys]) for keys in files]
    index.insert([block for blocks in written for block in blocks])
    index.discard([files[1][2]])
    assert all_rows(tmp_path) == digests(files[0] + files[2])


def test_a_damaged_row_takes_with_it_what_is_in_its_file_and_nothing_else(
    index: RowIndex, tmp_path: Path
) -> None:
    """Also when its rowids were those of others before."""
    gone, kept, bad = keys_of("a", 5), keys_of("b", 5), keys_of("c", 3)
    add(index, kept)
    add(index, gone)
    index.discard(gone[:1])
    add(index, bad)
    index.discard([bad[1], row_key("unknown", 1)])
    assert all_rows(tmp_path) == digests(kept)


def test_a_row_that_leads_to_a_file_of_others_does_not_take_it_out_of_the_count(
    index: RowIndex, tmp_path: Path
) -> None:
    """As after damage: what is counted is what is there."""
    one, two = keys_of("a", 2), keys_of("b", 2)
    add(index, one)
    name = add(index, two)
    query(tmp_path, "UPDATE Cache SET filename = ? WHERE key = ?", name, key_digest(one[0]))
    index.discard(one[:1])
    assert all_rows(tmp_path) == digests(one[1:])
    index.discard(one[1:])


@pytest.mark.parametrize("layout", [0, 99])
async def test_a_database_of_another_layout_is_made_anew(
    tmp_path: Path, layout: int, caplog: pytest.LogCaptureFixture
) -> None:
    keys = keys_of("a", 3)
    cache = await open_cache(tmp_path)
    await put_all(cache, keys)
    await cache.aclose()
    query(tmp_path, f"PRAGMA user_version = {layout}")
    cache = await open_cache(tmp_path)
    assert not any(await hits(cache, keys))
    await put_all(cache, keys)
    assert all(await hits(cache, keys))
    await cache.aclose()
    assert caplog.records == []
    assert_sizes_agree(tmp_path)
