"""A directory written down in stretches and read back is the same directory."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.model import ObjectInfo
from s3mount.namespace import entries, stretch
from s3mount.namespace.directory import Directory
from s3mount.namespace.entries import shown_at
from s3mount.namespace.known import END, START
from s3mount.namespace.listing import Chapter
from s3mount.namespace.stretch import recall, stretches
from tests.namespace.test_directory import NAMES, PREFIX, find, hear, histories
from tests.namespace.test_entries import INFOS

CLOCK = 1000.0  # what the wall clock is ahead


def read_back(directory: Directory, *, now: float = 9.0, ttl: float = 9.0) -> Directory:
    """The directory as another mount gets it, `now` seconds on its own clock."""
    again = Directory(directory.prefix)
    data = [data for _, data in stretches(directory, CLOCK)]
    recall(again, data, clock=CLOCK, now=CLOCK + now, ttl=ttl)
    return again


@given(histories(), st.integers(1, 4))
def test_what_is_known_comes_back(history: list[tuple[float, Chapter]], rows: int) -> None:
    directory, _ = hear(history)
    with patch.object(stretch, "ROWS", rows):
        again = read_back(directory)
    for name in NAMES:
        assert find(again, name) == find(directory, name)
    assert again.shown(START, END) == directory.shown(START, END)
    assert again.entries.directories == directory.entries.directories
    if directory.known.since(START) is not None:
        assert again.marker == directory.marker
    # Inode numbers are another mount's.
    assert not any(again.ino_of(name) for name in NAMES)


@given(histories(), st.integers(1, 4), st.integers(0, 5))
def test_what_is_too_old_or_of_another_clock_does_not(
    history: list[tuple[float, Chapter]], rows: int, now: int
) -> None:
    """Times of learning are 1 to 4."""
    directory, _ = hear(history)
    with patch.object(stretch, "ROWS", rows):
        again = read_back(directory, now=now, ttl=2)
    for name in NAMES:
        for position in (name, shown_at(name)):
            since = directory.known.since(position)
            is_good = since is not None and now - 2 <= since <= now
            assert again.known.since(position) == (since if is_good else None)


@given(st.data())
def test_a_directory_that_changes_meanwhile_is_never_told_wrongly(data: st.DataObject) -> None:
    """Between two stretches the bucket's next state is heard: each name is as one of both told."""
    before, _ = hear(data.draw(histories()))
    later = data.draw(histories())
    told = {name: [find(before, name)] for name in NAMES}
    with patch.object(stretch, "ROWS", 1):
        parts = []
        for part in stretches(before, CLOCK):
            parts.append(part.data)
            if len(parts) == 1:
                for time, chapter in later:
                    before.apply(chapter, time + 4)
    for name in NAMES:
        told[name].append(find(before, name))
    again = Directory(PREFIX)
    recall(again, parts, clock=CLOCK, now=CLOCK + 9, ttl=9)
    for name in NAMES:
        found = find(again, name)
        if found is not None:
            assert found[:2] in [each[:2] for each in told[name] if each is not None]


# The first text of any letters has Hypothesis read its tables.
@given(st.dictionaries(st.text("ab-./0é\udcff", min_size=1), INFOS, max_size=30))
def test_rows_of_any_kind(files: dict[str, ObjectInfo]) -> None:
    directory = Directory("p/")
    files = {
        name: info._replace(key=f"p/{name}") for name, info in files.items() if "/" not in name
    }
    directory.apply(Chapter("p/", START, END, files), 1.0)
    with patch.object(stretch, "ROWS", 7):
        data = [data for _, data in stretches(directory, CLOCK)]
    # Another process has met storage classes in another order.
    with patch.object(entries, "_storage_classes", ["STANDARD", "OTHER", "DEEP_ARCHIVE"]):
        again = Directory("p/")
        recall(again, data, clock=CLOCK, now=CLOCK + 9, ttl=9)
        assert {name: again.file(name) for name in again.shown(START, END)} == files


def test_stretches_that_overlap_are_not_mixed() -> None:
    directory = Directory(PREFIX)
    files = {name: ObjectInfo(PREFIX + name, 1, '"e"', 1) for name in "abc"}
    directory.apply(Chapter(PREFIX, START, END, files), 1.0)
    [(_, data)] = stretches(directory, CLOCK)
    again = Directory(PREFIX)
    recall(again, [data, data], clock=CLOCK, now=CLOCK + 2, ttl=9)
    assert again.shown(START, END) == ["a", "b", "c"]


@pytest.mark.parametrize("count", [0, 1, 8191, 8192, 8193, 20000])
def test_many_rows(count: int) -> None:
    directory = Directory("")
    files = {f"{n:05}": ObjectInfo(f"{n:05}", n, '"e"', n) for n in range(count)}
    directory.apply(Chapter("", START, END, files), 1.0)
    again = read_back(directory)
    assert again.shown(START, END) == list(files)
    assert again.known.reach(START, 0.0) == END
    assert len(list(stretches(directory, CLOCK))) == max(1, -(-count // stretch.ROWS))
