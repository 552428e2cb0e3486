"""One directory's children, on top of what is known of its key order.

`Directory` keeps the entries that pages told of, the stretches that they cover
(`Known`), and the inode numbers handed out. It answers "is `name` here?" with yes,
no, or None for "ask S3".

Two orders meet here. In S3's order a file `blue` stands at "blue", a directory at
"blue/", and "blue-x" between them. Entries are *shown* in the order of name + "/",
where file and directory of one name fall together: once all keys below "blue/" are
known it is decided which of the two is shown, so a listing can be handed out while
its pages still arrive, each name once. A directory shadows a file of its name.

INVARIANTS
- `order` holds each name of `files` or `directories` once, sorted by name + "/".
- An ino in `inos` belongs to one version of one file, or to one directory; when a
  name's object changes its ETag or its kind, its ino is dropped, so that the kernel's
  cached pages of two versions never meet in one inode.

No I/O: time is given as an argument, pages come as chapters.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from s3mount.model import ObjectInfo
from s3mount.namespace.known import END, START, Known
from s3mount.namespace.listing import DELIMITER, Chapter


class Sighting(NamedTuple):
    """What is known of one name: a file (`info`), a directory, or nothing there."""

    info: ObjectInfo | None
    is_directory: bool
    learned: float  # seconds on the clock of `Directory.apply`

    @property
    def is_absent(self) -> bool:
        """Whether it is known that no such name exists."""
        return self.info is None and not self.is_directory


def shown_at(name: str) -> str:
    """The position of `name` in the order in which entries are shown."""
    return name + DELIMITER


class Directory:
    """The children of one key prefix, as far as they are known."""

    __slots__ = ("dark_lookups", "directories", "files", "ino", "inos", "known", "marker",
                 "order", "prefix", "tokens")  # fmt: skip

    def __init__(self, prefix: str, grain: float = 0.0) -> None:
        self.prefix = prefix
        self.ino = 0  # once the directory itself was handed out
        self.files: dict[str, ObjectInfo] = {}
        self.directories: dict[str, None] = {}
        self.inos: dict[str, int] = {}
        self.known = Known(grain)
        self.marker: ObjectInfo | None = None
        self.tokens: dict[str, str] = {}  # where a page ended -> the token that goes on from there
        self.dark_lookups = 0
        self.order: list[str] = []

    def find(self, name: str, *, positive: float, negative: float) -> Sighting | None:
        """What is known of `name`, or None when S3 must be asked.

        What exists counts as known when it was learned at the time `positive` or later,
        what does not exist when at `negative` or later.
        """
        behind = self.known.since(shown_at(name))
        if behind is None:
            return None
        if name in self.directories:
            return Sighting(None, True, behind) if behind >= positive else None
        at = self.known.since(name)
        if at is None:
            return None
        learned = min(at, behind)
        info = self.files.get(name)
        if learned < (negative if info is None else positive):
            return None
        return Sighting(info, False, learned)

    def shown(self, lo: str, hi: str, limit: int | None = None) -> list[str]:
        """The names whose positions (`shown_at`) lie in [lo, hi), in order, at most `limit`."""
        i = bisect_left(self.order, lo, key=shown_at)
        j = len(self.order) if hi == END else bisect_left(self.order, hi, i, key=shown_at)
        return self.order[i : j if limit is None else min(j, i + limit)]

    def sighting(self, name: str, learned: float) -> Sighting:
        """What is shown under `name` now, without a look at its age."""
        if name in self.directories:
            return Sighting(None, True, learned)
        return Sighting(self.files.get(name), False, learned)

    def apply(self, chapter: Chapter, time: float) -> list[str]:
        """Take over what a page tells, as of `time`, except where newer pages told already.

        Returns the names that had an ino and lost it: gone, replaced, or of another kind.
        """
        lost: list[str] = []
        for lo, hi in self.known.older(chapter.lo, chapter.hi, time):
            is_all = lo == chapter.lo and hi == chapter.hi
            lost += self._apply(chapter if is_all else chapter.between(lo, hi), time)
        return lost

    def _apply(self, chapter: Chapter, time: float) -> list[str]:
        lost = self._drop_absent(chapter)
        new: list[str] = []
        for name, info in chapter.files.items():
            old = self.files.get(name)
            self.files[name] = info
            if name in self.directories:
                continue
            if old is None:
                new.append(name)
            elif not old.is_same_version(info):
                self._lose(name, lost)
        for name in chapter.directories:
            if name not in self.directories:
                self.directories[name] = None
                if name in self.files:
                    self._lose(name, lost)
                else:
                    new.append(name)
        self._show(new)
        if chapter.lo == START:
            self.marker = chapter.marker
        self.known.learn(chapter.lo, chapter.hi, time)
        return lost

    def forget(self, name: str) -> None:
        """Nothing is known of `name` any more; the next look asks S3."""
        self.known.forget(name, name + "\0")
        self.known.forget(shown_at(name), shown_at(name) + "\0")

    def __len__(self) -> int:
        return len(self.order)

    def _drop_absent(self, chapter: Chapter) -> list[str]:
        """Remove what lies in the chapter's interval and is not in the chapter.

        Returns the names that lost their ino by it.
        """
        lo, hi = chapter.lo, chapter.hi
        lost: list[str] = []
        i = bisect_left(self.order, lo, key=shown_at)
        j = len(self.order) if hi == END else bisect_left(self.order, hi, i, key=shown_at)
        within = self.order[i:j]
        for name in within:
            if name in self.directories and name not in chapter.directories:
                del self.directories[name]
                self._lose(name, lost)
            if name >= lo and name in self.files and name not in chapter.files:
                self._drop_file(name, lost)
        kept = [name for name in within if name in self.files or name in self.directories]
        if len(kept) < len(within):
            self.order[i:j] = kept
        for name in self._astride(lo, hi):
            if name not in chapter.files:
                self._drop_file(name, lost)
                if name not in self.directories:
                    del self.order[bisect_left(self.order, shown_at(name), key=shown_at)]
        return lost

    def _astride(self, lo: str, hi: str) -> list[str]:
        """The files that lie in [lo, hi) but are shown behind it: hi goes on from their names."""
        if hi == END:
            return []
        starts = (hi[:n] for n in range(1, len(hi)))
        return [name for name in starts if name in self.files and lo <= name and hi <= name + "/"]

    def _drop_file(self, name: str, lost: list[str]) -> None:
        del self.files[name]
        if name not in self.directories:
            self._lose(name, lost)

    def _lose(self, name: str, lost: list[str]) -> None:
        if self.inos.pop(name, None) is not None:
            lost.append(name)

    def _show(self, names: list[str]) -> None:
        """Insert new names into the order; mostly they all belong at one place."""
        if not names:
            return
        names.sort(key=shown_at)
        i = bisect_left(self.order, shown_at(names[0]), key=shown_at)
        if i == len(self.order) or shown_at(names[-1]) < shown_at(self.order[i]):
            self.order[i:i] = names
            return
        for name in names:
            insort(self.order, name, key=shown_at)
