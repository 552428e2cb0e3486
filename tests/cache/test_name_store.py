"""Names on disk: what is written is read, what cannot be is one warning, the oldest goes first."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from s3mount.cache.name_rows import NameRows, Row
from s3mount.cache.name_store import NameStore

MIB = 1 << 20


@asynccontextmanager
async def opened(
    directory: Path, source: str = "us", *, size_limit: int = 64 * MIB
) -> AsyncIterator[NameStore]:
    store = await NameStore.open(directory, source, size_limit=size_limit)
    try:
        yield store
    finally:
        await store.aclose()


def row(prefix: str, number: int = 0, data: bytes | None = b"data", *, generation: int = 1) -> Row:
    return Row(prefix, number, generation, 1.0, data)


async def test_what_is_written_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert store.saved is None
        assert await store.write([row("a/"), row("b/"), row("b/", 1, b"more"), row("\udcff/")], 7.0)
        assert [store.read(prefix) for prefix in ("a/", "b/", "c/", "\udcff/")] == [
            [b"data"],
            [b"data", b"more"],
            [],
            [b"data"],
        ]
    async with opened(tmp_path) as store:
        assert store.saved == 7.0
        assert store.read("b/") == [b"data", b"more"]
        assert await store.write([row("b/", 0, b"new"), row("a/", 0, None)], 5.0)
        assert [store.read("a/"), store.read("b/")] == [[], [b"new"]]
    async with opened(tmp_path) as store:
        assert store.saved == 7.0  # the clock was set back, and that is not forgotten
        assert await store.forget()
        assert store.read("b/") == []
    async with opened(tmp_path) as store:
        assert store.saved is None


async def test_what_is_of_another_source_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path, "us") as us, opened(tmp_path, "them") as them:
        assert await us.write([row("a/")], 1.0)
        assert (them.read("a/"), them.saved) == ([], None)
        assert await them.write([row("a/", 0, b"theirs")], 1.0)
        assert await them.forget()
        assert us.read("a/") == [b"data"]


async def test_stretches_that_two_wrote_are_not_mixed(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        assert await one.write([row("a/", 0, b"one 0"), row("a/", 1, b"one 1")], 1.0)
        assert await other.write([row("a/", 0, b"other 0", generation=2)], 1.0)
        assert await one.write([row("a/", 2, b"one 2")], 1.0)
        assert one.read("a/") == other.read("a/") == [b"other 0"]


async def test_the_oldest_goes_first(tmp_path: Path) -> None:
    prefixes = [f"{n:04}/" for n in range(1500)]
    async with opened(tmp_path, size_limit=2 * MIB) as store:
        rows = [Row(prefix, 0, 1, n, bytes(4000)) for n, prefix in enumerate(prefixes)]
        assert await store.write(rows, 1.0)
        assert await store.shrink()
        kept = [bool(store.read(prefix)) for prefix in prefixes]
        assert kept == sorted(kept)
        assert 200 < sum(kept) < 500


@pytest.mark.parametrize("column", ["data", "number", "prefix"])
async def test_a_changed_row_is_no_answer(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as store:
        assert await store.write([row("a/"), row("b/", 0, b"other")], 1.0)
    with closing(sqlite3.connect(tmp_path / "names.db")) as database:
        if column == "prefix":  # a damaged index gives another's row
            database.execute("UPDATE stretch SET prefix = x'632f' WHERE prefix = x'612f'")
        elif column == "number":
            database.execute("UPDATE stretch SET number = 1 WHERE prefix = x'612f'")
        else:
            database.execute("UPDATE stretch SET data = 'text' WHERE prefix = x'612f'")
        database.commit()
    async with opened(tmp_path) as store:
        assert store.read("c/" if column == "prefix" else "a/") == []
        assert store.read("b/") == []
        assert await store.write([row("a/")], 2.0)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    async with opened(tmp_path) as store:
        assert store.read("a/") == [b"data"]


async def test_a_database_that_is_held_is_no_answer_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    NameRows(tmp_path, "us").close()
    with closing(sqlite3.connect(tmp_path / "names.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        async with opened(tmp_path) as store:
            assert store.read("a/") == []
            assert store.saved is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert (tmp_path / "names.db").exists()


async def test_a_directory_that_may_not_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "names.db").mkdir()
    async with opened(tmp_path) as store:
        assert store.read("a/") == []
        assert not await store.write([row("a/")], 1.0)
        assert not await store.shrink()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
