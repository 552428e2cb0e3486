"""The pages of a directory that are listed before its reader comes for them.

At first one page after the other, as many ahead as the reader has read. When a directory goes
on and on, its rest is listed in several ranges of the key order at once: a range begins at an
invented name (`ladder`) some pages further on, and goes on page by page until it meets what
is known. There is no list of ranges: they are the gaps in what is known.

What it may cost: each range ends with a page that reaches into the next one, and the one that
begins behind the last name finds nothing. So ranges are a little less than whole pages long,
one page at a time feels its way beyond all that is known to exist, and no range is begun
when what was listed twice (`wasted`) exceeds one page and 3 % of all.

INVARIANTS
- The reader is never further from what is listed than its own pace: at most as many pages
  ahead as it has read, and `AHEAD_MOST`.
- A guess that is wrong changes how many pages are listed, never what they tell.

Pure: knows no clock, no requests. The intervals and the names are the directory's.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence

from s3mount.namespace.entries import shown_at
from s3mount.namespace.known import END, START, Known
from s3mount.namespace.ladder import name_ahead
from s3mount.namespace.listing import Chapter

PAGE = 1000  # names of one page, unless another length was seen
# Pages listed beyond the reader, and requests at once. One page costs some 15 ms of Python, of
# which there is one: more than this many at once only wait for it.
AHEAD_MOST = 64
IN_FLIGHT_MOST = 8
# Pages that must have come before the rest is listed in ranges: less is there soon anyway.
PROOF = 8
# Pages in a range, and by how much of one it is shorter, since a page that ends just before
# the next range has to be followed by another.
LENGTH = 8
SHORTER = 0.15
# Of the pages listed, what may have been in vain, beside one; what a range is expected to add.
WASTE = 0.03
EXPECTED = 0.4
SAMPLE = 64  # names that a guess is made from


class Ranges:
    """What is on its way of one directory, for whoever reads it."""

    __slots__ = ("_asked", "_not_before", "_position", "_read", "_rows", "_size", "_starts",
                 "landed", "wasted")  # fmt: skip

    def __init__(self, size: int = PAGE) -> None:
        """`size`: names of a page, as far as that was seen."""
        self._position = START  # of the reader
        self._not_before = -math.inf
        self._read = 0  # names that it has read
        self._asked: dict[str, str] = {}  # where a page on its way begins -> where its range ends
        self._starts: list[str] = []  # of ranges, in order
        self._size = max(1, size)  # names of the longest page
        self._rows = 0  # names that pages brought, each once
        self.landed = 0  # pages
        self.wasted = 0.0  # pages, of names that were brought twice, or of none

    def read(self, position: str, names: int, not_before: float) -> None:
        """The reader has come to the position, over so many names, all learned since then."""
        self._position, self._read, self._not_before = position, names, not_before
        self._rows = max(self._rows, names)

    def failed(self, lo: str) -> None:
        """The page from `lo` on did not come."""
        self._asked.pop(lo, None)

    def came(self, chapter: Chapter) -> None:
        """A page came."""
        stop = self._asked.pop(chapter.lo, END)
        rows = len(chapter.files) + len(chapter.directories)
        twice = 0
        if chapter.hi > stop:
            twice = sum(name >= stop for name in chapter.files)
            twice += sum(shown_at(name) >= stop for name in chapter.directories)
        self.landed += 1
        self._size = max(self._size, rows)
        self._rows += rows - twice
        self.wasted += twice / self._size if rows else 1.0

    def wanted(self, names: Sequence[str], known: Known, tokens: Mapping[str, str]) -> list[str]:
        """The positions from which to list a page now.

        `names` and `known` are the directory's, `tokens` has where pages ended that others
        follow.
        """
        wanted: list[str] = []
        room = self._room()
        gaps = known.older(self._position, END, math.nextafter(self._not_before, -math.inf))
        since = START
        for lo, hi in gaps:
            if len(wanted) >= room:
                break
            inside = [start for start in self._asked if lo < start < hi]
            # A page that ran past the next range's start, whose own is still on its way, does
            # not go on: both would tell the same, page after page.
            is_met = any(since < start < lo for start in self._asked)
            if lo not in self._asked and lo in tokens and not is_met:
                self._asked[lo] = min(inside, default=hi)
                wanted.append(lo)
            if lo in self._asked and not inside and len(wanted) < room and self._may_split(gaps):
                start = self._split(names, since, lo, hi)
                if start is not None:
                    self._asked[lo] = start
                    self._asked[start] = hi
                    insort(self._starts, start)
                    wanted.append(start)
            since = hi
        return wanted

    def _room(self) -> int:
        """Pages that may be asked for now."""
        allowance = min(max(1, self._read // self._size), AHEAD_MOST)
        ahead = (self._rows - self._read) // self._size
        return min(allowance - ahead, IN_FLIGHT_MOST) - len(self._asked)

    def _may_split(self, gaps: Sequence[tuple[str, str]]) -> bool:
        expected = self.wasted + EXPECTED * len(gaps)
        return self.landed >= PROOF and expected <= 1 + WASTE * self.landed

    def _split(self, names: Sequence[str], since: str, lo: str, hi: str) -> str | None:
        """Where in the gap [lo, hi) a range should begin; None: nowhere.

        All is known from `since` to `lo`.
        """
        at = bisect_left(names, lo, key=shown_at)
        length = LENGTH * self._size
        i = bisect_right(self._starts, lo)
        start = self._starts[i - 1] if i else START
        done = at - bisect_left(names, start, key=shown_at)
        if hi != END and done < length * 5 // 4:
            return None  # it will meet the next one soon
        first = max(bisect_left(names, since, key=shown_at), at - length)
        if at - first < self._size:
            return None
        sample = [*names[first : at - 1 : max(1, (at - first) // SAMPLE)], names[at - 1]]
        places = max(length - done, length // 2) - int(SHORTER * self._size)
        guess = name_ahead(sample, at - 1 - first, places)
        if guess is None or not lo < guess < hi:
            return None
        if hi != END:
            beyond = name_ahead(sample, at - 1 - first, 2 * places)
            if beyond is None or beyond >= hi:
                return None
        return guess
