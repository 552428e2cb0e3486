"""Fetches small files before they are opened, when files are opened in an order.

`grep -r`, `cat *`, `tar`, `cp -r` open the files of a directory one after the other; every
one would pay a round trip. `Streaks` recognises the order, and this module turns what it
wants into requests: a small file is fetched whole, of a large one the first block. The
budget is the memory's: what does not fit is asked for again with a later step.

Orders tried (which tool uses which): the shown order, also across directories when a walk
goes on there (`find`, `grep -r`, `rsync`; fts and `cp -r` sort by inode, which is the same
order); the same among files of one extension (`-name '*.gz'`); and both by the names as
most locales sort them (`*` in a shell, `ls`).

Must not know: handles, errno, requests.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from s3mount.metrics import Metrics
from s3mount.model import ARCHIVED_STORAGE_CLASSES
from s3mount.namespace.inodes import Node
from s3mount.namespace.lookahead import Streaks
from s3mount.namespace.order import Place
from s3mount.namespace.tree import Tree
from s3mount.reading.fetcher import Fetcher

# Entries looked through for the next file of the same extension.
SEARCHED_MOST = 256
# A directory of more files is not sorted by locale: 10,000 take some 5 ms, each time it changes.
SORTED_MOST = 10_000

Order = Callable[[Place], Iterator[Place]]


class FilesAhead:
    """Fetches ahead of files that are opened in some order, at most `most` of them."""

    def __init__(self, tree: Tree, fetcher: Fetcher, metrics: Metrics, most: int) -> None:
        self._tree = tree
        self._fetcher = fetcher
        self._metrics = metrics
        self._sorted: tuple[str, int, list[tuple[str, str]]] = ("", 0, [])
        by_locale = partial(self._following, self._by_locale)
        shown = partial(self._following, self._shown)
        self._streaks: Streaks[Place] = Streaks(
            [
                partial(shown, alike=False),
                partial(shown, alike=True),
                partial(by_locale, alike=False),
                partial(by_locale, alike=True),
            ],
            most,
        )

    def opened(self, node: Node) -> None:
        """A file was opened: fetch what is likely to be opened next."""
        parent = node.parent
        if parent is None or parent.directory is None:
            return
        wanted = self._streaks.opened(Place(parent.directory.prefix, node.name))
        for i, place in enumerate(wanted):
            if not self._fetch(place):
                self._streaks.refused(wanted[i:])
                break
        while self._streaks.wasted:
            self._give_up(self._streaks.wasted.pop())

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
        return self._tree.files_after(place)

    def _by_locale(self, place: Place) -> Iterator[Place]:
        """The files of the same directory as a locale such as en_US sorts them."""
        prefix = place.prefix
        names = self._tree.names(prefix)
        if len(names) > SORTED_MOST:
            return
        if self._sorted[:2] != (prefix, len(names)):
            self._sorted = (prefix, len(names), sorted((_collated(n), n) for n in names))
        keys = self._sorted[2]
        for i in range(bisect_right(keys, (_collated(place.name), place.name)), len(keys)):
            yield Place(prefix, keys[i][1])


def _extension(name: str) -> str:
    return name.rpartition(".")[2] if "." in name else ""


def _collated(name: str) -> str:
    """Near to the key by which glibc's locales sort: punctuation and case count last."""
    return "".join(filter(str.isalnum, name)).casefold()
