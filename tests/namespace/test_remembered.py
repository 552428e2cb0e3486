"""What is kept on disk comes back, and never in place of what is newer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from s3mount.cache.name_store import NameStore
from s3mount.namespace import remembered as module
from s3mount.namespace.directories import Directories
from s3mount.namespace.known import END, START
from s3mount.namespace.listing import Chapter
from s3mount.namespace.remembered import Remembered
from tests.namespace.worlds import info

HOUR = 3600.0


@asynccontextmanager
async def mounted(
    directory: Path, *, later: float = 0.0, ttl: float = HOUR
) -> AsyncIterator[tuple[Directories, Remembered, NameStore]]:
    store = await NameStore.open(directory, "source", size_limit=1 << 24)
    remembered = Remembered(store, ttl=ttl, wall=lambda: trio.current_time() + later)
    try:
        yield Directories(1.0, remembered), remembered, store
    finally:
        await store.aclose()


def learn(directories: Directories, prefix: str, *names: str) -> None:
    """The directory holds exactly these files."""
    files = {name: info(prefix + name) for name in names}
    chapter = Chapter(prefix, START, END, files)
    directories.apply(directories.have(prefix), chapter, trio.current_time())


def shown(directories: Directories, prefix: str) -> list[str] | None:
    """What is known to be in the directory; None: not everything is."""
    directory = directories.get(prefix)
    if directory is None or directory.known.reach(START, 0.0) != END:
        return None
    return directory.shown(START, END)


async def test_what_memory_had_no_room_for_is_read_back(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (directories, remembered, _):
        learn(directories, "a/", "1", "2")
        learn(directories, "b/", "3")
        # Nothing of this source was there when the mount began: nothing is looked for.
        assert shown(directories, "c/") is None
        await remembered.save()
        directories.drop(directories["a/"])
        assert shown(directories, "a/") == ["1", "2"]
    async with mounted(tmp_path) as (directories, remembered, _):
        assert shown(directories, "a/") == ["1", "2"]
        directories.drop(directories["a/"])
        assert shown(directories, "a/") == ["1", "2"]
        directory = directories["a/"]
        directories.empty(directory)
        assert (shown(directories, "a/"), directories.rows) == (None, 0)
        directories.use(directory)
        assert (shown(directories, "a/"), directories.rows) == (["1", "2"], 2)


async def test_what_changed_is_not_read_back_before_it_is_written(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (directories, remembered, _):
        learn(directories, "a/", "1", "2")
        learn(directories, "b/", "3")
        await remembered.save()
    async with mounted(tmp_path) as (directories, remembered, _):
        for prefix in ("a/", "b/"):
            learn(directories, prefix, "new")
        directories.drop(directories["a/"])
        directories.empty(directories["b/"])
        assert (shown(directories, "a/"), shown(directories, "b/")) == (None, None)
        await remembered.save()
        directories.use(directories["b/"])
        assert (shown(directories, "a/"), shown(directories, "b/")) == (["new"], ["new"])
        directories.doubt(directories["b/"], "new")
        directories.drop(directories["b/"])
        assert shown(directories, "b/") is None
        await remembered.save()
        assert shown(directories, "b/") is None  # not all of it
    async with mounted(tmp_path) as (directories, _, _):
        assert shown(directories, "a/") == ["new"]
        directory = directories.get("b/")
        assert directory is not None
        assert directory.known.since("new") is None
        assert directory.known.since("other") is not None


async def test_what_is_known_no_more_is_kept_no_more(tmp_path: Path) -> None:
    async with mounted(tmp_path) as (directories, remembered, _):
        learn(directories, "a/", "1", "2")
        await remembered.save()
        directories["a/"].known.forget(START, END)
        remembered.changed(directories["a/"])
        await remembered.save()
    async with mounted(tmp_path) as (directories, _, _):
        assert directories.get("a/") is None


async def test_what_could_not_be_written_is_written_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mounted(tmp_path) as (directories, remembered, store):
        for number in range(250):
            learn(directories, f"{number}/", "x")
        write, left = store.write, iter([True, False])

        async def fails(rows: object, saved: float) -> bool:
            return next(left) and await write(rows, saved)  # type: ignore[arg-type]  # passed on

        monkeypatch.setattr(store, "write", fails)
        await remembered.save()
        # What memory has no room for meanwhile is not held for the disk's sake.
        directories.drop(directories["8/"])
        assert shown(directories, "8/") is None
        monkeypatch.undo()
        learn(directories, "7/", "y")
        await remembered.save()
    async with mounted(tmp_path) as (directories, _, _):
        assert [shown(directories, f"{n}/") for n in range(250)] == [
            {7: ["y"], 8: None}.get(n, ["x"]) for n in range(250)
        ]


async def test_it_is_written_now_and_then(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.01)
    async with mounted(tmp_path) as (directories, remembered, store):
        nursery.start_soon(remembered.keep)
        for name in ("first", "second"):
            learn(directories, "a/", name)
            with trio.fail_after(10):
                while not any(name.encode() in d for d in store.read("a/")):  # noqa: ASYNC110  # a file
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("later", "is_kept"), [(1.0, True), (5000.0, False), (-10.0, False)])
async def test_ages_are_those_of_the_wall_clock(
    tmp_path: Path, later: float, is_kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that was set back, as if nothing had been kept."""
    async with mounted(tmp_path) as (directories, remembered, _):
        learn(directories, "a/", "1")
        await remembered.save()
    async with mounted(tmp_path, later=later) as (directories, remembered, _):
        assert shown(directories, "a/") == (["1"] if is_kept else None)
        await remembered.save()
    assert ("the clock was set back" in caplog.text) == (later < 0)
    # What was kept is gone for good then: the clock will come to that time again.
    async with mounted(tmp_path, later=2.0) as (directories, _, _):
        assert shown(directories, "a/") == (None if later < 0 else ["1"])


async def test_what_goes_while_it_is_written_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mounted(tmp_path) as (directories, remembered, store):
        for number in range(250):
            learn(directories, f"{number}/", "x")
        write = store.write

        async def others_turn(rows: object, saved: float) -> bool:
            if "249/" in directories and len(directories["249/"]):
                directories.empty(directories["249/"])
                directories.drop(directories["248/"])
            return await write(rows, saved)  # type: ignore[arg-type]  # passed on as it is

        monkeypatch.setattr(store, "write", others_turn)
        await remembered.save()
    async with mounted(tmp_path) as (directories, _, _):
        assert [shown(directories, f"{n}/") for n in range(250)] == [["x"]] * 250
