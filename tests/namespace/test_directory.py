"""A directory that hears chapters in any order, against a table of every position.

The bucket changes between the listings, and their pages arrive late and mixed: the one
that was asked for last decides what is known of its stretch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from s3mount.model import ObjectInfo
from s3mount.namespace.directory import Directory, Lost
from s3mount.namespace.entries import shown_at
from s3mount.namespace.known import END, START, after
from s3mount.namespace.listing import Chapter
from tests.namespace.worlds import children, info

PREFIX = "d/"
NAMES = ("a", "a-", "a-b", "a0", "ab", "b", "c")
POSITIONS = sorted([*NAMES, *map(shown_at, NAMES)])
EDGES = sorted([START, END, *POSITIONS, *map(after, POSITIONS)])
ALWAYS = float("-inf")

worlds = st.dictionaries(
    st.sampled_from([PREFIX, *(PREFIX + position for position in POSITIONS)]),
    st.integers(0, 2),
    max_size=8,
)


@st.composite
def histories(draw: DrawFn) -> list[tuple[float, Chapter]]:
    """Chapters of listings of a changing bucket, in the order in which they arrive."""
    told = []
    for time in range(1, draw(st.integers(1, 4)) + 1):
        world = {key: info(key, version) for key, version in draw(worlds).items()}
        truth = children(world, PREFIX)
        edges = sorted(draw(st.sets(st.sampled_from(EDGES), min_size=2, max_size=5)))
        for lo, hi in pairwise(edges):
            files, directories = truth.within(lo, hi)
            marker = truth.marker if lo == START else None
            in_order = dict.fromkeys(sorted(directories))
            told.append((float(time), Chapter(PREFIX, lo, hi, files, in_order, marker)))
    return draw(st.permutations(told))


class Sighting(NamedTuple):
    """What is known of one name: a file (`info`), a directory, or nothing there."""

    info: ObjectInfo | None
    is_directory: bool
    learned: float

    @property
    def is_absent(self) -> bool:
        """Whether it is known that no such name exists."""
        return self.info is None and not self.is_directory


def find(
    directory: Directory, name: str, *, positive: float = ALWAYS, negative: float = ALWAYS
) -> Sighting | None:
    """What the directory knows of a name; None: nothing."""
    found = directory.find(name, positive=positive, negative=negative)
    return None if found is None else sighting(directory, found.row, found.learned)


def sighting(directory: Directory, row: int, learned: float) -> Sighting:
    """What the row shows; -1: nothing."""
    if row < 0 or directory.entries.is_directory(row):
        return Sighting(None, row >= 0, learned)
    return Sighting(directory.entries.file(row, directory.prefix), False, learned)


@dataclass
class Table:
    """What was last told of each position, and when."""

    told: dict[str, tuple[ObjectInfo | None, float]] = field(default_factory=dict)
    marker: tuple[ObjectInfo | None, float] = (None, ALWAYS)

    def apply(self, chapter: Chapter, time: float) -> None:
        """The chapter decides for every position in its interval, unless a newer one did."""
        for position in POSITIONS:
            _, learned = self.told.get(position, (None, ALWAYS))
            if chapter.lo <= position < chapter.hi and learned <= time:
                name = position.removesuffix("/")
                here = chapter.files.get(name)
                if position.endswith("/"):
                    here = info(position) if name in chapter.directories else None
                self.told[position] = here, time
        if chapter.lo == START and self.marker[1] <= time:
            self.marker = chapter.marker, time

    def shown(self, name: str) -> Sighting:
        """What stands under the name, as far as it was told."""
        below, _ = self.told.get(shown_at(name), (None, 0.0))
        here, _ = self.told.get(name, (None, 0.0))
        return Sighting(None, True, 0.0) if below else Sighting(here, False, 0.0)

    def find(self, name: str, positive: float, negative: float) -> Sighting | None:
        """What a lookup may answer: a directory needs one position, all else needs two."""
        below, since_below = self.told.get(shown_at(name), (None, ALWAYS))
        here, since = self.told.get(name, (None, ALWAYS))
        learned = since_below if below else min(since, since_below)
        limit = positive if below or here else negative
        if learned == ALWAYS or learned < limit:
            return None
        return Sighting(None if below else here, below is not None, learned)


def hear(history: list[tuple[float, Chapter]]) -> tuple[Directory, Table]:
    """The same chapters told to both; inode numbers are given to whatever is shown."""
    directory, table = Directory(PREFIX), Table()
    inos = count(1)
    for time, chapter in history:
        before = {name: table.shown(name) for name in NAMES}
        lost = directory.apply(chapter, time)
        table.apply(chapter, time)
        changed = {name for name in NAMES if not is_same(before[name], table.shown(name))}
        assert {entry.name for entry in lost} == {n for n in changed if not before[n].is_absent}
        assert len(lost) == len(changed - {n for n in changed if before[n].is_absent})
        for entry in lost:
            assert entry.info == before[entry.name].info  # what the ino goes on standing for
        for name in directory.shown(START, END):
            directory.set_ino(name, directory.ino_of(name) or next(inos))
    return directory, table


def is_same(one: Sighting, other: Sighting) -> bool:
    """Whether both may have the same inode number."""
    if one.info is None or other.info is None:
        return one[:2] == other[:2]
    return one.info.is_same_version(other.info)


@given(history=histories(), positive=st.integers(0, 5), negative=st.integers(0, 5))
def test_a_name_is_known_as_it_was_told_last(
    history: list[tuple[float, Chapter]], positive: int, negative: int
) -> None:
    directory, table = hear(history)
    for name in NAMES:
        found = find(directory, name, positive=positive, negative=negative)
        assert found == table.find(name, positive, negative), name
    assert directory.marker == table.marker[0]


@given(history=histories(), lo=st.sampled_from(EDGES), hi=st.sampled_from(EDGES))
def test_each_name_is_shown_once_in_the_order_of_its_directory(
    history: list[tuple[float, Chapter]], lo: str, hi: str
) -> None:
    directory, table = hear(history)
    names = sorted((n for n in NAMES if not table.shown(n).is_absent), key=shown_at)
    assert directory.shown(START, END) == names
    assert len(directory) == len(names)
    if lo <= hi:
        within = [name for name in names if lo <= shown_at(name) < hi]
        assert directory.shown(lo, hi) == within
        assert directory.shown(lo, hi, 2) == within[:2]
    for name in names:
        row = directory.entries.find(name)
        assert sighting(directory, row, 9.0) == table.shown(name)._replace(learned=9.0)


@given(history=histories(), name=st.sampled_from(NAMES))
@example(history=[(1.0, Chapter(PREFIX, START))], name="a")
def test_what_is_forgotten_is_dark_and_its_neighbours_are_not(
    history: list[tuple[float, Chapter]], name: str
) -> None:
    directory, table = hear(history)
    directory.forget(name)
    assert find(directory, name) is None
    for other in NAMES:
        if other != name:
            found = find(directory, other)
            assert found == table.find(other, ALWAYS, ALWAYS)


def test_an_ino_outlives_a_new_mtime_but_not_a_new_etag() -> None:
    directory = Directory(PREFIX)
    first = ObjectInfo("d/a", 3, '"x"', 1)
    directory.apply(Chapter(PREFIX, START, files={"a": first}), 1.0)
    directory.set_ino("a", 7)
    touched = first._replace(mtime_ns=2)
    assert directory.apply(Chapter(PREFIX, START, files={"a": touched}), 2.0) == []
    assert (directory.ino_of("a"), directory.file("a")) == (7, touched)
    replaced = first._replace(etag='"y"')
    assert directory.apply(Chapter(PREFIX, START, files={"a": replaced}), 3.0) == [
        Lost("a", 7, touched)
    ]
    assert not directory.ino_of("a")
    directory.set_ino("b", 8)  # not there: nothing to number
    assert not directory.ino_of("b")
