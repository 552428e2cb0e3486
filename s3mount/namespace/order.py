"""The orders in which tools walk a tree, each directory in its shown order.

Depth first for files and for directories, breadth first for directories. The ways go
through what is known, from any place on, and stop where knowledge stops.

Pure but for the `Directory` values it reads: no clock, no requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from s3mount.namespace.directory import Directory
from s3mount.namespace.entries import shown_at
from s3mount.namespace.known import END, START
from s3mount.namespace.listing import DELIMITER

# Entries looked through for the next subdirectory of a directory that has files as well.
SEARCHED_MOST = 2000


class Place(NamedTuple):
    """An entry: the prefix of its directory, and its name."""

    prefix: str
    name: str

    @property
    def below(self) -> str:
        """The prefix that the entry has when it is a directory."""
        return self.prefix + self.name + DELIMITER


def place_of(prefix: str) -> Place:
    """The entry that the directory `prefix` ("a/b/") is in its parent."""
    parent, slash, name = prefix[:-1].rpartition(DELIMITER)
    return Place(parent + slash, name)


def common_prefix(one: str, other: str) -> str:
    """The deepest directory that holds both directories, or is one of them."""
    while not other.startswith(one):
        one = place_of(one).prefix
    return one


class Step(NamedTuple):
    """One entry on the way."""

    place: Place
    is_directory: bool
    is_dark: bool  # a directory whose entries are not all known: the way may not go on below it


def entries_after(
    directories: Mapping[str, Directory], place: Place, *, top: str, not_before: float
) -> Iterator[Step]:
    """The entries that follow `place` in tree order, below the prefix `top`.

    What was learned before `not_before` is not known.
    """
    here = place
    while True:
        yield from _entries(directories, here.prefix, not_before, here.name)
        if here.prefix == top or not _is_known_from(directories, here, not_before):
            return
        here = place_of(here.prefix)


def directories_after(
    directories: Mapping[str, Directory], prefix: str, *, top: str, not_before: float
) -> Iterator[str]:
    """The directories that a walk depth first visits after `prefix`: below it, then behind."""
    yield from _subdirectories(directories, prefix, not_before, "")
    here = prefix
    while here != top:
        place = place_of(here)
        if not _is_known_from(directories, place, not_before):
            return
        yield from _subdirectories(directories, place.prefix, not_before, place.name)
        here = place.prefix


def level_after(
    directories: Mapping[str, Directory], prefix: str, *, top: str, not_before: float
) -> Iterator[str]:
    """The directories that a walk breadth first visits after `prefix`.

    Those behind it at its depth, then level by level those deeper. Where a directory is not
    known, its subdirectories are left out.
    """
    yield from _cousins_after(directories, prefix, top, not_before)
    depth = prefix.count(DELIMITER) - top.count(DELIMITER)
    while True:
        depth += 1
        level = _level(directories, top, depth, not_before)
        first = next(level, None)
        if first is None:
            return
        yield first
        yield from level


def _cousins_after(
    directories: Mapping[str, Directory], prefix: str, top: str, not_before: float
) -> Iterator[str]:
    """The directories behind `prefix` at its own depth, in order."""
    if prefix == top:
        return
    place = place_of(prefix)
    yield from _below(directories, place.prefix, not_before, place.name)
    for parent in _cousins_after(directories, place.prefix, top, not_before):
        yield from _below(directories, parent, not_before, "")


def _level(
    directories: Mapping[str, Directory], top: str, depth: int, not_before: float
) -> Iterator[str]:
    """All known directories so many levels below `top`, in order."""
    if depth == 0:
        yield top
        return
    for parent in islice(_level(directories, top, depth - 1, not_before), SEARCHED_MOST):
        yield from _below(directories, parent, not_before, "")


def _below(
    directories: Mapping[str, Directory], prefix: str, not_before: float, behind: str
) -> Iterator[str]:
    """The subdirectories of `prefix` behind the name ("": from the start)."""
    directory = directories.get(prefix)
    if directory is None or not directory.entries.directories:
        return  # a directory of a million files is not searched for what it has not
    entries = directory.entries
    for row in _rows(directory, not_before, behind)[:SEARCHED_MOST]:
        if entries.is_directory(row):
            yield prefix + shown_at(entries.names[row])


def _entries(
    directories: Mapping[str, Directory], prefix: str, not_before: float, behind: str
) -> Iterator[Step]:
    """The known entries of the directory `prefix` behind the name, each with its own below."""
    for name in _names(directories, prefix, not_before, behind):
        place = Place(prefix, name)
        if not directories[prefix].is_directory(name):
            yield Step(place, is_directory=False, is_dark=False)
            continue
        is_dark = not is_whole(directories, place.below, not_before)
        yield Step(place, is_directory=True, is_dark=is_dark)
        yield from _entries(directories, place.below, not_before, "")


def _subdirectories(
    directories: Mapping[str, Directory], prefix: str, not_before: float, behind: str
) -> Iterator[str]:
    """The same for directories alone: their prefixes."""
    for below in _below(directories, prefix, not_before, behind):
        yield below
        directory = directories.get(below)
        if directory is not None and directory.entries.directories:  # most have none: no generator
            yield from _subdirectories(directories, below, not_before, "")


def _names(
    directories: Mapping[str, Directory], prefix: str, not_before: float, behind: str
) -> Iterator[str]:
    """The directory's names behind `behind` ("": from the start) up to the first gap."""
    directory = directories.get(prefix)
    if directory is not None:
        for row in _rows(directory, not_before, behind):
            yield directory.entries.names[row]


def _rows(directory: Directory, not_before: float, behind: str) -> range:
    """The rows of those names."""
    entries = directory.entries
    position = shown_at(behind) if behind else START
    reached = directory.known.reach(position, not_before)
    if not behind:
        first = 0
    else:
        first = entries.find(behind) + 1 or entries.at(position)
    return range(first, len(entries) if reached == END else max(first, entries.at(reached, first)))


def is_whole(directories: Mapping[str, Directory], prefix: str, not_before: float) -> bool:
    """Whether all entries of the directory are known."""
    directory = directories.get(prefix)
    return directory is not None and directory.known.reach(START, not_before) == END


def _is_known_from(directories: Mapping[str, Directory], here: Place, not_before: float) -> bool:
    directory = directories.get(here.prefix)
    return directory is not None and directory.known.reach(shown_at(here.name), not_before) == END
