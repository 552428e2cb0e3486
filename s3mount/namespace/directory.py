"""One directory's children, on top of what is known of its key order.

`Directory` keeps the entries that pages told of, the stretches that they cover
(`Known`), and the inode numbers handed out. It answers "is `name` here?" with yes,
no, or None for "ask S3".

Two orders meet here. In S3's order a file `blue` stands at "blue", a directory at
"blue/", and "blue-x" between them. Entries are *shown* in the order of name + "/",
where file and directory of one name fall together: once all keys below "blue/" are
known it is decided which of the two is shown, so a listing can be handed out while
its pages still arrive, each name once. A directory shadows a file of its name.

INVARIANT: an ino belongs to one version of one file, or to one directory; when a name's
object changes its ETag or its kind, its ino is dropped, so that the kernel's cached
pages of two versions never meet in one inode.

No I/O: time is given as an argument, pages come as chapters.
"""

from __future__ import annotations

from typing import NamedTuple

from s3mount.model import ObjectInfo
from s3mount.namespace.entries import Entries, shown_at
from s3mount.namespace.known import END, START, Known
from s3mount.namespace.listing import Chapter
from s3mount.namespace.ranges import Ranges


class Sighting(NamedTuple):
    """What is known of one name: the row that shows it, or that nothing is there."""

    row: int  # of `Directory.entries`; -1: no such name
    learned: float  # seconds on the clock of `Directory.apply`
    hi: str  # the first position behind the name of which nothing is known, or of another age


class Lost(NamedTuple):
    """An entry whose ino no longer stands for its name: gone, replaced, or of another kind."""

    name: str
    ino: int
    info: ObjectInfo | None  # the file that the ino still stands for


class Directory:
    """The children of one key prefix, as far as they are known."""

    __slots__ = ("dark_lookups", "entries", "grain", "ino", "known", "listed", "marker", "needed",
                 "prefix", "ranges", "tokens")  # fmt: skip

    def __init__(self, prefix: str, grain: float = 0.0) -> None:
        self.prefix = prefix
        self.grain = grain
        self.needed = 0  # by inodes, its own and its entries', and by lookups under way in it
        self.listed = 0  # how many open handles list it
        self.ino = 0  # once the directory itself was handed out
        self.entries = Entries()
        self.known = Known(grain)
        self.marker: ObjectInfo | None = None
        self.tokens: dict[str, str] = {}  # where a page ended -> the token that goes on from there
        self.dark_lookups = 0
        self.ranges: Ranges | None = None  # while somebody reads more than a page of it

    # --- asking -------------------------------------------------------------------

    def file(self, name: str) -> ObjectInfo | None:
        """The file `name`, also where a directory shadows it; None when none is known."""
        i = self.entries.find(name)
        return None if i < 0 else self.entries.file(i, self.prefix)

    def is_directory(self, name: str) -> bool:
        """Whether a directory `name` is known."""
        i = self.entries.find(name)
        return i >= 0 and self.entries.is_directory(i)

    def find(self, name: str, *, positive: float, negative: float) -> Sighting | None:
        """What is known of `name`, or None when S3 must be asked.

        What exists counts as known when it was learned at the time `positive` or later,
        what does not exist when at `negative` or later.
        """
        lo, hi, learned = self.known.around(shown_at(name))
        if lo == hi:
            return None
        row = self.entries.find(name)
        if not lo <= name and (row < 0 or not self.entries.is_directory(row)):
            # Two requests told of "name" and of "name/": it is as old as the older.
            at = self.known.since(name)
            if at is None:
                return None
            learned = min(learned, at)
        if learned < (negative if row < 0 else positive):
            return None
        return Sighting(row, learned, hi)

    def shown(self, lo: str, hi: str, limit: int | None = None) -> list[str]:
        """The names whose positions (`shown_at`) lie in [lo, hi), in order, at most `limit`."""
        i, j = self._rows(lo, hi)
        return self.entries.names[i : j if limit is None else min(j, i + limit)]

    def __len__(self) -> int:
        return len(self.entries)

    # --- inode numbers ------------------------------------------------------------

    def ino_of(self, name: str) -> int:
        """The inode number that the entry was given; 0 for none, or for no such entry."""
        i = self.entries.find(name)
        return 0 if i < 0 else self.entries.ino(i)

    def set_ino(self, name: str, ino: int) -> None:
        """The entry, if it is known, has this inode number; 0: none any more."""
        i = self.entries.find(name)
        if i >= 0:
            self.entries.set_ino(i, ino)

    # --- learning -----------------------------------------------------------------

    def apply(self, chapter: Chapter, time: float) -> list[Lost]:
        """Take over what a page tells, as of `time`, except where newer pages told already.

        Returns the entries that thereby lost their ino.
        """
        if not self.entries.names and not self.known:
            self._insert({**dict.fromkeys(chapter.directories), **chapter.files}, chapter)
            self._learn(chapter, time)
            return []
        lost: list[Lost] = []
        for lo, hi in self.known.older(chapter.lo, chapter.hi, time):
            is_all = lo == chapter.lo and hi == chapter.hi
            lost += self._apply(chapter if is_all else chapter.between(lo, hi), time)
        return lost

    def _apply(self, chapter: Chapter, time: float) -> list[Lost]:
        lost: list[Lost] = []
        self._drop_absent(chapter, lost)
        # Only these may be there already: none, of most pages.
        i, j = self._rows(chapter.lo, chapter.hi)
        there = {*self.entries.names[i:j], *self._names_astride(chapter.lo, chapter.hi)}
        new: dict[str, ObjectInfo | None] = {}
        for name, info in chapter.files.items():
            if name in there:
                self._update_file(self.entries.find(name), info, lost)
            else:
                new[name] = info
        for name in chapter.directories:
            if name not in there:
                new.setdefault(name)
            elif not self.entries.is_directory(i := self.entries.find(name)):
                self._lose(i, lost)
                self.entries.set_directory(i, is_directory=True)
        self._insert(new, chapter)
        self._learn(chapter, time)
        return lost

    def _learn(self, chapter: Chapter, time: float) -> None:
        if chapter.lo == START:
            self.marker = chapter.marker
        self.known.learn(chapter.lo, chapter.hi, time)

    def forget(self, name: str) -> None:
        """Nothing is known of `name` any more; the next look asks S3."""
        self.known.forget(name, name + "\0")
        self.known.forget(shown_at(name), shown_at(name) + "\0")

    def empty(self) -> Directory:
        """Nothing is known of any name any more; what was, the directory returned knows."""
        gone = Directory(self.prefix, self.grain)
        gone.entries, gone.known, gone.marker = self.entries, self.known, self.marker
        self.entries, self.known = Entries(), Known(self.grain)
        self.tokens.clear()
        self.ranges = None
        self.dark_lookups = 0
        return gone

    def _rows(self, lo: str, hi: str) -> tuple[int, int]:
        """The rows [i, j) whose positions lie in [lo, hi)."""
        i = self.entries.at(lo)
        return i, len(self.entries) if hi == END else self.entries.at(hi, i)

    def _update_file(self, i: int, info: ObjectInfo, lost: list[Lost]) -> None:
        """The row's file is now this one."""
        old = self.entries.file(i, self.prefix)
        is_shown = not self.entries.is_directory(i)
        if is_shown and (old is None or not old.is_same_version(info)):
            self._lose(i, lost)
        self.entries.set_file(i, info)

    def _drop_absent(self, chapter: Chapter, lost: list[Lost]) -> None:
        """Remove what lies in the chapter's interval and is not in the chapter.

        What thereby lost its ino is added to `lost`.
        """
        entries = self.entries
        lo, hi = chapter.lo, chapter.hi
        i, j = self._rows(lo, hi)
        for k in range(i, j):
            name = entries.names[k]
            if entries.is_directory(k) and name not in chapter.directories:
                self._lose(k, lost)
                entries.set_directory(k, is_directory=False)
            if name >= lo and entries.is_file(k) and name not in chapter.files:
                self._drop_file(k, lost)
        # Before the rows are renumbered: those that lie in the interval and are shown behind it.
        for k in self._astride(lo, hi):
            if entries.names[k] not in chapter.files:
                self._drop_file(k, lost)
                entries.drop_empty(k, k + 1)
        entries.drop_empty(i, j)

    def _names_astride(self, lo: str, hi: str) -> list[str]:
        """The names in [lo, hi) that are shown behind it: those that `hi` goes on from."""
        if hi == END or not len(self.entries):
            return []
        starts = (hi[:n] for n in range(1, len(hi)))
        find = self.entries.find
        return [name for name in starts if lo <= name and hi <= shown_at(name) and find(name) >= 0]

    def _astride(self, lo: str, hi: str) -> list[int]:
        """The rows of those that are files, the last one first."""
        rows = map(self.entries.find, self._names_astride(lo, hi))
        return sorted((k for k in rows if self.entries.is_file(k)), reverse=True)

    def _drop_file(self, i: int, lost: list[Lost]) -> None:
        if not self.entries.is_directory(i):
            self._lose(i, lost)
        self.entries.unset_file(i)

    def _lose(self, i: int, lost: list[Lost]) -> None:
        """The row is about to show something else: its ino goes with what it showed."""
        entries = self.entries
        ino = entries.ino(i)
        if ino:
            info = None if entries.is_directory(i) else entries.file(i, self.prefix)
            lost.append(Lost(entries.names[i], ino, info))
            entries.set_ino(i, 0)

    def _insert(self, new: dict[str, ObjectInfo | None], chapter: Chapter) -> None:
        """Insert rows that were not there; mostly they all belong at one place."""
        if not new:
            return
        entries = self.entries
        names = sorted(new, key=shown_at)
        i = entries.at(shown_at(names[0])) if entries.names else 0
        if i == len(entries) or shown_at(names[-1]) < shown_at(entries.names[i]):
            entries.insert(i, [(n, new[n], n in chapter.directories) for n in names])
            return
        for name in names:
            i = entries.at(shown_at(name), i)
            entries.insert(i, [(name, new[name], name in chapter.directories)])
