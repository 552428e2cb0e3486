"""Fetches small files before they are opened, when files are opened in an order.

`grep -r`, `cat *`, `tar`, `cp -r` open the files of a directory one after the other; every
one would pay a round trip. `Streaks` recognises the order, and this module turns what it
wants into requests: a small file is fetched whole, of a large one the first block, unless
large ones are not read from there: `tail`, or the footers of columns. The
budget is the memory's: what does not fit is asked for again with a later step.

Orders tried (which tool uses which), each among all files and among those of one extension
(`-name '*.gz'`):
- the shown order, across directories when a walk goes on there (`grep -r`, `rsync`, and
  fts, `cp -r`, `tar`, which sort by inode: that is the same order);
- the names of one directory as most locales sort them (`*` in a shell, `ls`);
- the shown order across directories without a walk, which may be over by then
  (`find | xargs`), once a file of the next directory was opened: among siblings first.

Must not know: handles, errno, requests.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from s3mount.metrics import Metrics
from s3mount.model import ARCHIVED_STORAGE_CLASSES
from s3mount.namespace.inodes import Node
from s3mount.namespace.listing import KEY_MAX
from s3mount.namespace.lookahead import REACH, STREAKS_KEPT, Streaks
from s3mount.namespace.order import Place, place_of
from s3mount.namespace.tree import Tree
from s3mount.reading.fetcher import Fetcher
from s3mount.reading.readahead import Readahead

# Entries looked through for the next file of the same extension.
SEARCHED_MOST = 256
# A directory without files of interest may be passed over, but not more.
NEAR_DIRECTORIES = 8
# A directory of more files is not sorted by locale: 10,000 take some 5 ms, each time it changes.
SORTED_MOST = 10_000
# Directories whose sorted names are kept: as many as there may be streaks.
SORTED_KEPT = STREAKS_KEPT

Order = Callable[[Place], Iterator[Place]]


class FilesAhead:
    """Fetches ahead of files that are opened in some order, at most `most` of them."""

    def __init__(
        self, tree: Tree, fetcher: Fetcher, readahead: Readahead, metrics: Metrics, most: int
    ) -> None:
        self._tree = tree
        self._fetcher = fetcher
        self._readahead = readahead
        self._metrics = metrics
        self._at = ""  # the directory of the file opened last
        # Of the places compared lately, the latest last: names of the directory, and `_rows`.
        self._rows_of: dict[Place, tuple[int, tuple[int, int]]] = {}
        # Of the directories asked for lately, the latest last: collated names, sorted.
        self._sorted: dict[str, list[tuple[str, str, str]]] = {}
        orders = (self._shown, self._by_locale, self._among_siblings, self._everywhere)
        self._streaks: Streaks[Place] = Streaks(
            [
                partial(self._following, order, alike=alike)
                for order in orders
                for alike in (False, True)
            ],
            most,
            self._is_near,
        )

    def opened(self, node: Node) -> None:
        """A file was opened: fetch what is likely to be opened next."""
        parent = node.parent
        if parent is None or parent.directory is None:
            return
        self._at = parent.directory.prefix
        wanted = self._streaks.opened(Place(self._at, node.name))
        for i, place in enumerate(wanted):
            if self._is_read_elsewhere(place):
                self._streaks.refused([place])
            elif not self._fetch(place):
                self._streaks.refused(wanted[i:])
                break
        while self._streaks.wasted:
            self._give_up(self._streaks.wasted.pop())

    def _is_read_elsewhere(self, place: Place) -> bool:
        """Whether the file's first block is not what will be read."""
        if self._readahead.begins_at_start:
            return False
        info = self._tree.info(place)
        return info is not None and info.size > self._fetcher.geometry.block_size

    def _fetch(self, place: Place) -> bool:
        """Have the start of a file fetched; False when memory is full."""
        info = self._tree.info(place)
        if info is None or info.size == 0 or info.storage_class in ARCHIVED_STORAGE_CLASSES:
            return True
        stop = min(info.size, self._fetcher.geometry.block_size)
        if self._fetcher.request(self._fetcher.content(info), 0, stop, urgent=False) < stop:
            return False
        self._metrics.count("ahead.files")
        return True

    def _give_up(self, place: Place) -> None:
        info = self._tree.info(place)
        if info is not None and info.size:
            self._metrics.count("ahead.wasted")
            self._fetcher.disclaim(self._fetcher.content(info), 0, info.size)

    # --- orders -------------------------------------------------------------------

    def _following(self, order: Order, place: Place, most: int, *, alike: bool) -> list[Place]:
        """The next `most` files behind `place`; `alike`: with its extension only."""
        files = order(place)
        if not alike:
            return list(islice(files, most))
        extension = _extension(place.name)
        near = islice(files, SEARCHED_MOST)
        return list(islice((p for p in near if _extension(p.name) == extension), most))

    def _shown(self, place: Place) -> Iterator[Place]:
        return self._tree.files_after(place, at=self._at)

    def _among_siblings(self, place: Place) -> Iterator[Place]:
        return self._tree.files_after(place, at=self._at, up=1)

    def _everywhere(self, place: Place) -> Iterator[Place]:
        return self._tree.files_after(place, at=self._at, up=KEY_MAX)

    def _by_locale(self, place: Place) -> Iterator[Place]:
        """The files of the same directory as a locale such as en_US sorts them."""
        keys = self._collation(place.prefix)
        for i in range(bisect_right(keys, _collated(place.name)), len(keys)):
            yield Place(place.prefix, keys[i][2])

    def _is_near(self, place: Place, other: Place) -> bool:
        """Whether `other` may be one of the next few files behind `place` in some order."""
        if place.prefix != other.prefix:
            return self._is_in_near_directory(place.prefix, other)
        (shown, collated), (shown_stop, collated_stop) = self._rows(place), self._rows(other)
        if 0 < shown_stop - shown < SEARCHED_MOST:
            names = self._tree.file_names(place.prefix, shown + 1, shown_stop)
            if _are_few(names, place, other):
                return True
        if 0 < collated_stop - collated < SEARCHED_MOST:
            keys = self._collation(place.prefix)[collated + 1 : collated_stop]
            return _are_few((name for _, _, name in keys), place, other)
        return False

    def _rows(self, place: Place) -> tuple[int, int]:
        """How many names of its directory come before a place: as shown, and by locale.

        When files are opened at random, each is compared with the end of each streak: what was
        found is kept, for as long as the directory has so many names.
        """
        count = len(self._tree.names(place.prefix))
        known, rows = self._rows_of.pop(place, (-1, (0, 0)))
        if known != count:
            keys = self._collation(place.prefix)
            rows = self._tree.rank(place), bisect_left(keys, _collated(place.name))
            if len(self._rows_of) > 2 * STREAKS_KEPT:
                del self._rows_of[next(iter(self._rows_of))]
        self._rows_of[place] = count, rows
        return rows

    def _is_in_near_directory(self, prefix: str, other: Place) -> bool:
        """Whether `other` may be one of the first files of a directory that is soon behind."""
        here, there = place_of(prefix), place_of(other.prefix)
        if here.prefix == there.prefix:
            return 0 < self._tree.rank(there) - self._tree.rank(here) <= NEAR_DIRECTORIES
        return self._tree.rank(other) < REACH

    def _collation(self, prefix: str) -> list[tuple[str, str, str]]:
        """The sort keys of the directory's names, in order; none of one that is too large."""
        names = self._tree.names(prefix)
        if len(names) > SORTED_MOST:
            return []
        keys = self._sorted.pop(prefix, None)
        if keys is None or len(keys) != len(names):
            keys = sorted(map(_collated, names))
            if len(self._sorted) >= SORTED_KEPT:
                del self._sorted[next(iter(self._sorted))]
        self._sorted[prefix] = keys
        return keys


def _are_few(between: Iterable[str], place: Place, other: Place) -> bool:
    """Whether a step from one place to the other leaves out less than what ends a streak."""
    extension = _extension(place.name)
    if extension == _extension(other.name):
        between = (name for name in between if _extension(name) == extension)
    return next(islice(between, REACH - 1, None), None) is None


def _extension(name: str) -> str:
    return name.rpartition(".")[2] if "." in name else ""


def _collated(name: str) -> tuple[str, str, str]:
    """Near to the key by which glibc's locales sort, and the name itself.

    Punctuation counts last, and case only between names that are else the same: "a", "A",
    "b", "B".
    """
    return "".join(filter(str.isalnum, name)).casefold(), name.swapcase(), name
