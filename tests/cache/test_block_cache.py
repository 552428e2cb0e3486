"""The cache as its users see it: right or a miss, bounded, and never in the way."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from s3mount.cache.block_cache import BlockCache
from s3mount.cache.block_disk import BlockDisk, key_digest
from s3mount.cache.recent_rows import RecentRows
from s3mount.cache.row_index import Place, RowIndex
from s3mount.metrics import Metrics
from tests.cache.rows import (
    KIB,
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
    until,
    value_files,
    volume,
)

KEYS = [row_key(n, length) for n in range(4) for length in (1, 4095, 16 * KIB, 100_000)]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.sampled_from(KEYS), max_size=6)),
        st.tuples(st.just("get"), st.lists(st.sampled_from(KEYS), max_size=6)),
        st.tuples(st.sampled_from(["flip", "cut", "grow", "remove"]), st.integers(0, 99)),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=20,
)


def damage(directory: Path, how: str, which: int) -> None:
    """Do something to one value file that may, or may not, change the row's bytes."""
    files = value_files(directory)
    if not files:
        return
    path = files[which % len(files)]
    data = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "flip" and data:
        data[which % len(data)] ^= 1 << which % 8
        path.write_bytes(data)
    elif how == "cut" and data:
        path.write_bytes(data[: which % len(data)])
    elif how == "grow":
        path.write_bytes(data + b"x")


def good_keys(directory: Path, keys: set[str]) -> set[str]:
    """Those whose bytes are in their place; what is behind belongs to nobody."""
    by_digest = {key_digest(key): key for key in keys}
    good = set()
    for name, rows in rows_by_file(directory).items():
        path = directory / name
        data = path.read_bytes() if path.exists() else b""
        for digest, offset, length in rows:
            key = by_digest.get(digest)
            if key and data[offset : offset + length] == row_bytes(key):
                good.add(key)
    return good


def beside(directory: Path, keys: set[str]) -> set[bytes]:
    """The digests of the rows that share a file with one of `keys`."""
    digests = {key_digest(key) for key in keys}
    shared = set()
    for rows in rows_by_file(directory).values():
        of_file = {digest for digest, _, _ in rows}
        if of_file & digests:
            shared |= of_file
    return shared


@settings(max_examples=60)
@given(steps=steps)
def test_against_a_dict(steps: list[tuple[str, object]]) -> None:
    """Every step on the cache and on a set of keys: a hit if and only if it must be one."""

    async def run(directory: Path) -> None:
        kept: set[str] = set()
        cache = await open_cache(directory)
        try:
            for verb, argument in steps:
                if verb == "put" and isinstance(argument, list):
                    await put_all(cache, argument)
                    kept.update(argument)  # a damaged row that nobody read yet stays as it is
                elif verb == "get" and isinstance(argument, list):
                    good = good_keys(directory, kept)
                    lost = beside(directory, set(argument) - good)
                    assert await hits(cache, argument) == [key in good for key in argument]
                    await cache.flush()
                    kept = {key for key in kept if key_digest(key) not in lost}
                    assert {key_digest(key) for key in kept} == all_rows(directory)
                    assert not any(cache.surely_absent(key) for key in kept)
                elif verb == "reopen":
                    await cache.aclose()
                    cache = await open_cache(directory)
                elif isinstance(argument, int):
                    damage(directory, verb, argument)
        finally:
            await cache.aclose()
        assert_sizes_agree(directory, files_are_whole=False)

    directory = Path(tempfile.mkdtemp())
    try:
        trio.run(run, directory)
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
async def test_a_damaged_block_is_deleted_missed_and_can_be_put_again(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await open_cache(tmp_path)
    key = row_key("k", 16 * KIB)
    await put_all(cache, [key])
    damage(tmp_path, how, 5)
    assert await hits(cache, [key]) == [False]
    await cache.flush()
    assert query(tmp_path, "SELECT key FROM Cache") == []
    assert value_files(tmp_path) == []
    await put_all(cache, [key])
    assert await hits(cache, [key]) == [True]
    await cache.aclose()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_buffer_of_another_length_is_a_miss(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    key = row_key("k", 1000)
    await put_all(cache, [key])
    wants = [(key, memoryview(bytearray(length))) for length in (999, 1000, 1001, 0)]
    assert await cache.get(wants) == [False, True, False, False]
    await cache.aclose()


async def test_the_columns_of_another_row_do_not_pass(tmp_path: Path) -> None:
    """As after damage to the database's index: the row of one key leads to another's bytes."""
    cache = await open_cache(tmp_path)
    one, two = row_key("one", 1000), row_key("two", 1000)
    await put_all(cache, [one, two])
    query(
        tmp_path,
        "UPDATE Cache SET (filename, value) ="
        " (SELECT filename, value FROM Cache WHERE key = ?) WHERE key = ?",
        key_digest(two),
        key_digest(one),
    )
    assert await hits(cache, [one]) == [True]  # its right place is still known
    await cache.aclose()
    cache = await open_cache(tmp_path)
    assert await hits(cache, [one]) == [False]
    await cache.aclose()


@pytest.mark.parametrize("length", [1000, MIB])
async def test_a_row_that_another_mount_wrote_anew_is_found(tmp_path: Path, length: int) -> None:
    """Where it was last is only a guess; the database knows."""
    cache = await open_cache(tmp_path)
    key = row_key("k", length)
    await put_all(cache, [key])
    (old,) = value_files(tmp_path)
    new = old.with_name("0123456789abcd")
    old.rename(new)
    filename = str(new.relative_to(tmp_path))
    query(tmp_path, "UPDATE Cache SET filename = ?", filename)
    query(tmp_path, "UPDATE Files SET name = ?", filename)
    assert await hits(cache, [key, key]) == [True, True]
    new.unlink()
    assert await hits(cache, [key]) == [False]
    await cache.flush()
    assert query(tmp_path, "SELECT key FROM Cache") == []
    await cache.aclose()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys each query for places was about."""
    counts: list[int] = []
    places = RowIndex.places

    def counted(self: RowIndex, keys: Sequence[str]) -> dict[bytes, Place]:
        counts.append(len(keys))
        return places(self, keys)

    monkeypatch.setattr(RowIndex, "places", counted)
    return counts


async def test_a_row_that_is_read_again_costs_no_query(tmp_path: Path, asked: list[int]) -> None:
    keys = [row_key(n, MIB) for n in range(3)]
    cache = await open_cache(tmp_path)
    await put_all(cache, keys)
    await cache.aclose()
    asked.clear()
    cache = await open_cache(tmp_path)
    assert all(await hits(cache, keys))
    assert all(await hits(cache, keys))
    assert asked == [3]
    await cache.aclose()


@pytest.mark.parametrize(("length", "queries"), [(MIB // 2, 1), (MIB // 2 - 1, 8)])
async def test_blocks_that_were_written_together_cost_one_query(
    tmp_path: Path, length: int, queries: int, asked: list[int]
) -> None:
    """Sectors are read at random: their neighbours are not looked for."""
    keys = [row_key(n, length) for n in range(10)]
    cache = await open_cache(tmp_path)
    await put_all(cache, keys)
    query(tmp_path, "UPDATE Cache SET mode = 4 WHERE key = ?", key_digest(keys[1]))
    query(tmp_path, "UPDATE Cache SET filename = 'a,b' WHERE key = ?", key_digest(keys[2]))
    await cache.aclose()
    cache = await open_cache(tmp_path)
    asked.clear()
    good = keys[:1] + keys[3:]
    for key in good[4:] + good[:4]:
        assert await hits(cache, [key]) == [True]
    assert len(asked) == queries
    assert await hits(cache, keys[1:3]) == [False, False]
    await cache.aclose()


async def test_a_row_that_is_given_up_as_it_is_read_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another mount evicts it between the query and the read."""
    cache = await open_cache(tmp_path)
    key = row_key("k", MIB)
    await put_all(cache, [key])
    await cache.aclose()
    places = RowIndex.places

    def evicted(self: RowIndex, keys: Sequence[str]) -> dict[bytes, Place]:
        found = places(self, keys)
        query(tmp_path, "DELETE FROM Cache")
        for path in value_files(tmp_path):
            path.unlink()
        return found

    monkeypatch.setattr(RowIndex, "places", evicted)
    cache = await open_cache(tmp_path)
    assert await hits(cache, [key]) == [False]
    await cache.aclose()
    assert caplog.records == []


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


async def test_a_poisoned_row_is_never_unpickled(tmp_path: Path) -> None:
    directory, marker = tmp_path / "cache", tmp_path / "exploded"
    cache = await open_cache(directory)
    keys = [row_key(n, 1000) for n in range(3)]
    for key in keys:  # a file of its own each
        await put_all(cache, [key])
    poison = pickle.dumps(Bomb(marker))
    query(
        directory,
        "UPDATE Cache SET mode = 4, filename = NULL, value = ? WHERE key = ?",
        poison,
        key_digest(keys[0]),
    )
    query(directory, "UPDATE Cache SET mode = 4 WHERE key = ?", key_digest(keys[1]))
    query(directory, "UPDATE Cache SET raw = 0, key = ? WHERE key = ?", poison, key_digest(keys[2]))
    for path in value_files(directory):
        path.write_bytes(poison)
    await cache.aclose()
    cache = await open_cache(directory)
    assert await hits(cache, keys) == [False, False, False]
    await cache.flush()
    assert query(directory, "SELECT raw FROM Cache") == [(0,)]  # no key leads to it
    await cache.aclose()
    cache = await open_cache(directory)
    await until(lambda: cache.surely_absent("nobody"))  # every key was met by the background scan
    await cache.aclose()
    assert not marker.exists()


async def test_what_was_put_survives_a_restart(tmp_path: Path) -> None:
    keys = [row_key(n, 16 * KIB) for n in range(300)]
    cache = await open_cache(tmp_path)
    await put_all(cache, keys)
    await cache.aclose()
    cache = await open_cache(tmp_path)
    assert all(await hits(cache, keys))
    await cache.aclose()


async def test_putting_again_writes_nothing(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    key = row_key("k", 1000)
    await put_all(cache, [key])
    before = [(path.name, path.stat().st_mtime_ns) for path in value_files(tmp_path)]
    await put_all(cache, [key, key])
    assert [(path.name, path.stat().st_mtime_ns) for path in value_files(tmp_path)] == before
    await cache.aclose()


async def test_put_drops_what_does_not_fit_the_queue(tmp_path: Path) -> None:
    """The bound holds until buffers are released, and a dropped one stays the caller's."""
    metrics = Metrics()
    cache = await BlockCache.open(
        tmp_path, size_limit=256 * MIB, free_share=0.0, queue_limit=10 * KIB, metrics=metrics
    )
    released: list[int] = []
    data = memoryview(bytes(4 * KIB))
    taken = [cache.put(f"k{n}", data, partial(released.append, n)) for n in range(4)]
    assert taken == [True, True, False, False]
    assert released == []  # `put` itself never calls back
    await cache.flush()
    assert released == [0, 1]
    assert cache.put("k2", data, partial(released.append, 2))
    await cache.aclose()
    assert released == [0, 1, 2]
    assert metrics["cache.dropped"] == 2
    assert metrics["cache.bytes_written"] == 12 * KIB


async def test_a_row_that_would_fill_the_cache_is_dropped(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path, size_limit=MIB)
    assert not cache.put("k", memoryview(bytes(MIB // 16 + 1)), lambda: None)
    await cache.aclose()


async def test_the_limit_holds_at_every_moment(tmp_path: Path) -> None:
    limit = 4 * MIB
    cache = await open_cache(tmp_path, size_limit=limit)
    for group in range(20):
        await put_all(cache, [row_key(group * 10 + n, 60_000) for n in range(10)])
        assert volume(tmp_path) <= limit
    assert volume(tmp_path) > limit // 2
    await cache.aclose()
    assert_sizes_agree(tmp_path)


async def test_the_limit_holds_for_many_tiny_rows(tmp_path: Path) -> None:
    """The database is most of what a row of 100 bytes occupies."""
    limit = 2 * MIB
    cache = await open_cache(tmp_path, size_limit=limit)
    await put_all(cache, [row_key(n, 100) for n in range(8000)])
    query(tmp_path, "PRAGMA wal_checkpoint")  # all that the database occupies, not just the start
    assert limit // 2 < volume(tmp_path) <= limit
    await cache.aclose()


async def test_a_smaller_limit_is_reached_after_a_restart(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path, size_limit=8 * MIB)
    await put_all(cache, [row_key(n, 60_000) for n in range(100)])
    await cache.aclose()
    cache = await open_cache(tmp_path, size_limit=2 * MIB)
    await put_all(cache, [row_key("new", 60_000)])
    assert volume(tmp_path) <= 2 * MIB
    assert await hits(cache, [row_key("new", 60_000)]) == [True]
    await cache.aclose()


@pytest.mark.parametrize("reopened", [False, True])
async def test_the_least_recently_used_go_first(tmp_path: Path, reopened: bool) -> None:
    """Recency of hits decides, also that of an earlier run."""
    cache = await open_cache(tmp_path, size_limit=4 * MIB)
    first = [row_key(n, 60_000) for n in range(40)]
    used, older, newer = first[:10], first[10:25], first[25:]
    for rows in (used, older, newer):
        await put_all(cache, rows)
    assert all(await hits(cache, used))
    if reopened:
        await cache.aclose()
        cache = await open_cache(tmp_path, size_limit=4 * MIB)
    await put_all(cache, [row_key(n, 60_000) for n in range(100, 130)])
    assert all(await hits(cache, used))
    assert False in await hits(cache, older)
    # The older ones went first.
    assert not any(await hits(cache, older)) or all(await hits(cache, newer))
    await cache.aclose()


async def test_a_hit_writes_nothing_until_recency_is_flushed(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    key = row_key("k", 1000)
    await put_all(cache, [key])
    before = query(tmp_path, "SELECT used FROM Files")
    for _ in range(10):
        await hits(cache, [key])
    assert query(tmp_path, "SELECT used FROM Files") == before
    await cache.flush()
    assert query(tmp_path, "SELECT used FROM Files") > before
    await cache.aclose()


async def test_the_share_of_the_disk_is_left_free(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    old, new = [row_key(n, 60_000) for n in range(4)], row_key("new", 60_000)
    await put_all(cache, old)
    await cache.aclose()
    cache = await open_cache(tmp_path, free_share=1.0)  # no disk has that much: as if it were full
    await put_all(cache, [new])
    assert await hits(cache, [*old, new]) == [False] * 5
    assert value_files(tmp_path) == []
    await cache.aclose()


async def test_a_cancelled_get_ends_before_its_buffers_are_free(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    keys = [row_key(n, 100_000) for n in range(50)]
    await put_all(cache, keys)
    buffers = [bytearray(100_000) for _ in keys]
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            wants = [(key, memoryview(b)) for key, b in zip(keys, buffers, strict=True)]
            nursery.start_soon(cache.get, wants)
            await trio.testing.wait_all_tasks_blocked()  # the thread is at work
            scope.cancel()
    state = [bytes(buffer) for buffer in buffers]
    await cache.flush()
    assert [bytes(buffer) for buffer in buffers] == state
    assert state == [row_bytes(key) for key in keys]
    await cache.aclose()


async def test_a_closed_cache_misses_and_takes_nothing(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    key = row_key("k", 1000)
    await put_all(cache, [key])
    await cache.aclose()
    await cache.aclose()
    assert await hits(cache, [key]) == [False]
    assert cache.surely_absent(key)
    assert not cache.put(key, memoryview(row_bytes(key)), lambda: None)


async def test_hits_and_bytes_are_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    cache = await BlockCache.open(tmp_path, size_limit=64 * MIB, free_share=0.0, metrics=metrics)
    keys = [row_key(n, 1000) for n in range(3)]
    await put_all(cache, keys)
    await hits(cache, [*keys, row_key("absent", 1000)])
    await cache.aclose()
    assert {name: count for name, count in metrics.snapshot().items() if count} == {
        "cache.bytes_read": 3000,
        "cache.bytes_written": 3000,
        "cache.hits": 3,
        "cache.misses": 1,
    }


async def test_a_row_that_is_known_is_read_without_a_thread(tmp_path: Path) -> None:
    cache = await open_cache(tmp_path)
    small, large, absent = row_key("small", 128 * KIB), row_key("large", MIB), row_key("none", 10)

    def now(key: str) -> bool:
        buffer = bytearray(int(key.rpartition("/")[2]))
        hit = cache.get_now(key, memoryview(buffer))
        assert not hit or buffer == row_bytes(key)
        return hit

    await put_all(cache, [small])
    await put_all(cache, [large])
    assert [now(key) for key in (small, large, absent)] == [True, False, False]
    await cache.aclose()
    assert not now(small)
    cache = await open_cache(tmp_path)
    assert not now(small)  # read by the thread first
    assert await hits(cache, [small]) == [True]
    assert now(small)
    value = next(path for path in value_files(tmp_path) if path.stat().st_size == 128 * KIB)
    value.unlink()
    assert not now(small)
    await cache.aclose()


def test_only_so_many_rows_are_known(tmp_path: Path) -> None:
    recent, disk = RecentRows(), BlockDisk(str(tmp_path))
    ((_, block),) = disk.write([("k", b"x")])
    recent.note(key_digest("k"), block)
    assert recent.read_into(disk, key_digest("k"), memoryview(bytearray(1)))
    for n in range(8192):
        recent.note(n.to_bytes(16, "big"), block)
    assert not recent.read_into(disk, key_digest("k"), memoryview(bytearray(1)))
