"""Lists the directories that a walk will visit, before it does.

A walk (recognised by `lookahead.Walks`) earns an appetite for pages. They are spent in one
of two ways, whichever brings more directories per request:

- flat: a listing without a delimiter, from the first directory ahead that is dark. One
  page of 1,000 keys makes many small directories known at once. Several are sent in
  parallel, as far apart as the last page showed that one reaches.
- one by one: where a page holds fewer than `WORTH_FLAT` directories, the next
  directories are listed each by itself, in parallel.

Must not know: inodes, files' contents, what listings are handed out to.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import islice
from weakref import WeakKeyDictionary

import trio

from s3mount.namespace.directory import Directory
from s3mount.namespace.known import START
from s3mount.namespace.lookahead import Walk, Walks
from s3mount.namespace.order import (
    common_prefix,
    directories_after,
    is_whole,
    level_after,
    place_of,
)

log = logging.getLogger(__name__)

IN_FLIGHT_MOST = 8  # requests ahead of all walks together
EDGES = 3  # the directory that a page begins in, the one it ends in, and their parent
WORTH_FLAT = 3  # directories that a flat page must bring to be better than their own pages
# A directory of which so many entries are known, and no subdirectory among them, is all
# files: its own listing brings them, and no flat page brings more.
ALL_FILES = 500

# Parents of directories looked into that are remembered.
LOOKED_INTO_KEPT = 256


class _Flight:
    """One flat page on its way: which directory it begins in, and who waits for it.

    `scope` is the prefix that is listed, `reach` how many directories it should tell of.
    """

    def __init__(self, prefix: str, scope: str, reach: int = 1) -> None:
        self.prefix = prefix
        self.scope = scope
        self.reach = max(reach, 1)
        self.landed = trio.Event()


class DirectoriesAhead:
    """Keeps the directories ahead of walks known.

    `list_flat(prefix, start)` lists one page of `prefix` without a delimiter from the key
    `start` on, and returns how many directories it told of. `list_one(prefix)` has a
    directory's first page listed, without waiting.
    """

    def __init__(
        self,
        directories: Mapping[str, Directory],
        *,
        top: str,
        nursery: trio.Nursery,
        oldest: Callable[[], float],
        list_flat: Callable[[str, str], Awaitable[int]],
        list_one: Callable[[str], None],
    ) -> None:
        self._directories = directories
        self._top = top
        self._nursery = nursery
        self._oldest = oldest  # what was learned before that time counts as unknown
        self._list_flat = list_flat
        self._list_one = list_one
        self._walks: Walks[str] = Walks(
            [self._depth_first, self._breadth_first],
            lambda prefix, below: place_of(below).prefix == prefix,
            common_prefix,
        )
        # The step of a walk before which there is nothing to plan.
        self._plan_at: WeakKeyDictionary[Walk[str], int] = WeakKeyDictionary()
        self._flights: list[_Flight] = []
        # Parents, the first of their subdirectories that somebody looked into in the dark
        # (None: a page was sent), and when. The latest last.
        self._looked_into: dict[str, tuple[str | None, float]] = {}

    def visit(self, prefix: str) -> None:
        """A directory begins to be listed by somebody."""
        walk = self._walks.visit(prefix)
        if walk is None or walk.steps < self._plan_at.get(walk, 0):
            return
        # Somebody who looks again at what he knows is not on his way to what he does not.
        if walk.steps > 1 or not is_whole(self._directories, prefix, self._oldest()):
            self._spend(walk)

    def look_into(self, prefix: str) -> None:
        """A name is looked up in a directory of which nothing is known.

        The second such directory below one parent takes the parent's first keys with it: of a
        small tree, that is everything. Of a large one little, so that is done once.
        """
        if prefix == self._top or self._flights:
            return
        parent = place_of(prefix).prefix
        first, since = self._looked_into.pop(parent, (prefix, trio.current_time()))
        if since < self._oldest():
            first, since = prefix, trio.current_time()
        if first not in {None, prefix}:
            first = None
            self._start(_Flight(parent, parent), None)
        self._looked_into[parent] = (first, since)
        if len(self._looked_into) > LOOKED_INTO_KEPT:
            del self._looked_into[next(iter(self._looked_into))]

    def top_at(self, prefix: str) -> str | None:
        """The top of the proven walk that is at this directory, or just left it for the next."""
        walk = self._walks.at(prefix)
        return None if walk is None else walk.top

    def covering(self, prefix: str) -> trio.Event | None:
        """The landing of a page on its way that may tell of the directory `prefix`."""
        before = [
            flight
            for flight in self._flights
            if flight.prefix <= prefix and prefix.startswith(flight.scope)
        ]
        nearest = max(before, key=lambda flight: flight.prefix, default=None)
        return None if nearest is None else nearest.landed

    def _depth_first(self, prefix: str, most: int) -> list[str]:
        return list(islice(self._after(directories_after, prefix), most))

    def _breadth_first(self, prefix: str, most: int) -> list[str]:
        return list(islice(self._after(level_after, prefix), most))

    def _after(self, order: Callable[..., Iterator[str]], prefix: str) -> Iterator[str]:
        return order(self._directories, prefix, top=self._top, not_before=self._oldest())

    def _spend(self, walk: Walk[str]) -> None:
        """Send what the walk's appetite allows."""
        if not walk.reach and self._flights:
            return  # the first page will show how far one reaches
        horizon = IN_FLIGHT_MOST * max(walk.reach, 1)
        ahead = walk.order(walk.place, horizon)
        ahead = [prefix for prefix in ahead if prefix.startswith(walk.top)]
        dark = self._dark([walk.place, *ahead])
        # Looking ahead costs as much as what it looks at: not again before half of it is walked.
        self._plan_at[walk] = walk.steps + (0 if dark else len(ahead) // 2)
        told = 0
        for position, prefix in dark:
            if walk.appetite == 0 or len(self._flights) >= IN_FLIGHT_MOST:
                return
            if position < told:
                continue
            walk.pages += 1
            if walk.reach and walk.reach < WORTH_FLAT:
                self._list_one(prefix)
                continue
            scope = prefix if prefix == self._top else place_of(prefix).prefix
            self._start(_Flight(prefix, scope, walk.reach), walk)
            if not walk.reach:
                return
            told = position + walk.reach

    def _dark(self, order: list[str]) -> list[tuple[int, str]]:
        """The dark directories among these that no page on its way will tell of, with positions.

        A page tells of what follows it, dark or not: so what it tells of is counted in positions.
        """
        oldest = self._oldest()
        told = set[int]()
        for flight in self._flights:
            position = bisect_left(order, flight.prefix)
            told.update(range(position, position + flight.reach))
        return [
            (position, prefix)
            for position, prefix in enumerate(order)
            if position not in told
            and not is_whole(self._directories, prefix, oldest)
            and not self._is_all_files(prefix)
        ]

    def _is_all_files(self, prefix: str) -> bool:
        directory = self._directories.get(prefix)
        if directory is None or len(directory) < ALL_FILES:
            return False
        return not directory.entries.directories

    def _first_dark_key(self, prefix: str) -> str:
        directory = self._directories.get(prefix)
        if directory is None:
            return prefix
        return prefix + directory.known.reach(START, self._oldest())

    def _start(self, flight: _Flight, walk: Walk[str] | None) -> None:
        self._flights.append(flight)
        self._nursery.start_soon(self._fly, flight, walk)

    async def _fly(self, flight: _Flight, walk: Walk[str] | None) -> None:
        start = self._first_dark_key(flight.prefix) if walk is not None else flight.prefix
        told = 0
        try:
            told = await self._list_flat(flight.scope, start)
        except Exception:
            # Nobody waits for this task: its failure must not end the mount.
            log.exception("listing ahead failed: this is a bug, please report it")
        finally:
            self._flights.remove(flight)
            flight.landed.set()
        if walk is None:
            return
        # Without the edges, which a page tells of in part: a gap costs a page of its own.
        walk.reach = max(1, told - EDGES)
        if len(self._flights) <= IN_FLIGHT_MOST // 2:
            self._spend(walk)
