"""Which directories and files a walk wants next.

Tools visit a tree in an order: `find`, `du`, `ls -R` directory by directory, `grep -r`,
`cat *`, `tar`, `cp -r` file by file. Two predictors notice such an order from the places
visited, and say what to fetch before it is asked for. Both start small, double with
every step that proves them right, and ask for nothing more at the first that does not.

- `Walks`: the directories that a process lists. Its appetite is in pages of listing.
- `Streaks`: the files that are opened. Its appetite is in files.

- `InOrder`: the names that are looked up without a listing. It asks for one page.

A place is anything hashable; what follows a place, in which order, is asked of functions
given at construction.

Pure: knows no names, no clock, no requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

# The places that follow `place`, at most so many, nearest first.
Following = Callable[[P, int], list[P]]


def _nearest(
    orders: Sequence[Following[P]], place: P, following: P, reach: int
) -> Following[P] | None:
    """The order in which `following` comes soonest behind `place`, within `reach`."""
    if orders[0](place, 1) == [following]:
        return orders[0]  # as most are: no need to look further
    best: Following[P] | None = None
    distance = reach
    for order in orders:
        ahead = order(place, distance)
        if following in ahead:
            best, distance = order, ahead.index(following)
            if distance == 0:
                break
    return best


# --- directories --------------------------------------------------------------------

# A proven walk may skip this many directories (-prune, -name on directories, several
# threads); one that is only suspected goes to one of the next two.
WALK_REACH = 8
FIRST_REACH = 2
WALKS_KEPT = 4
# Visits for which a place may be where a walk begins, and a walk may stand still: several
# programs take turns. More would let a random order prove itself by the length of its life.
PATIENCE = 8
PAGES_MOST = 64


@dataclass(slots=True, eq=False, weakref_slot=True)
class Walk(Generic[P]):
    """One recognised walk through directories."""

    place: P  # the directory visited last
    came_from: P  # the one before
    top: P  # the least place that holds all that it visited
    order: Following[P]
    steps: int
    visit: int  # the number of its last visit
    pages: int = 0  # listed ahead for it so far
    reach: int = 0  # directories that its last page told of; 0: none has landed yet

    @property
    def appetite(self) -> int:
        """Pages that may be listed ahead now, beyond those that were."""
        return max(0, self.allowance - self.pages)

    @property
    def allowance(self) -> int:
        """Pages in all that its steps so far have earned: one at first, then twice per step."""
        if self.steps < PAGES_MOST.bit_length():
            return (1 << self.steps) >> 1
        return PAGES_MOST + self.steps


class Walks(Generic[P]):
    """Recognises walks in the directories that are listed.

    A step goes to one of the next few directories in one of the `orders` (depth first,
    breadth first). A walk begins with a directory and then its first subdirectory
    (`descends(directory, subdirectory)`), which is a step; or with two neighbours, which
    chance brings too: that is none yet. `join(a, b)` is the least place that holds both.
    """

    def __init__(
        self,
        orders: Sequence[Following[P]],
        descends: Callable[[P, P], bool],
        join: Callable[[P, P], P],
    ) -> None:
        self._orders = orders
        self._descends = descends
        self._join = join
        self._walks: list[Walk[P]] = []  # the one used last comes first
        self._visits: list[P] = []
        self._count = 0

    def visit(self, place: P) -> Walk[P] | None:
        """A directory is being listed. Returns the walk that this is a step of, if any."""
        self._count += 1
        alive = self._count - PATIENCE
        self._walks = [walk for walk in self._walks if walk.visit >= alive]
        for walk in self._walks:
            if place == walk.place:
                walk.visit = self._count
                return walk
        step_of = self._next_step(place) or self._begin(place)
        self._visits = [*self._visits[1 - PATIENCE :], place]
        return step_of

    def at(self, place: P) -> Walk[P] | None:
        """The walk of more than one step that visited `place` last, or just before."""
        for walk in self._walks:
            if walk.steps > 1 and place in {walk.place, walk.came_from}:
                return walk
        return None

    def _next_step(self, place: P) -> Walk[P] | None:
        for walk in self._walks:
            reach = WALK_REACH if walk.steps > 1 else FIRST_REACH
            others = [order for order in self._orders if order is not walk.order]
            order = _nearest([walk.order, *others], walk.place, place, reach)
            if order is None:
                continue
            walk.came_from, walk.place, walk.order = walk.place, place, order
            walk.top = self._join(walk.top, place)
            walk.steps += 1
            walk.visit = self._count
            self._walks.remove(walk)
            self._walks.insert(0, walk)
            return walk
        return None

    def _begin(self, place: P) -> Walk[P] | None:
        for past in reversed(self._visits):
            order = _nearest(self._orders, past, place, FIRST_REACH)
            if order is not None:
                steps = 1 if self._descends(past, place) else 0
                walk = Walk(place, past, self._join(past, place), order, steps, self._count)
                self._walks = [walk, *self._walks[: WALKS_KEPT - 1]]
                return walk
        return None


# --- names --------------------------------------------------------------------------

# Names looked up in order before a page is listed ahead, and how far one may be behind another.
LOOKUPS_PROOF = 8
LOOKUP_REACH = 3


class InOrder(Generic[P]):
    """Recognises names that are looked up one after the other, in the order of their directory."""

    def __init__(self) -> None:
        self._place: P | None = None
        self._row = 0
        self._steps = 0

    def looked_up(self, place: P, row: int) -> bool:
        """The row of a directory was looked up. Whether that goes on what is proven an order."""
        is_step = place == self._place and 0 < row - self._row <= LOOKUP_REACH
        self._steps = self._steps + 1 if is_step else 0
        self._place, self._row = place, row
        return self._steps >= LOOKUPS_PROOF


# --- files --------------------------------------------------------------------------

# Steps in order before anything is fetched: with less, a coincidence would do.
PROOF = 2
# How far a step may go while nothing is proven; afterwards, as far as was fetched, and this.
REACH = 3
# Places looked up at once: going on from one costs more than the next.
CHUNK = 16
STREAKS_KEPT = 8
# Opened files that are remembered, so as not to fetch ahead of one reader what another has
# read: `xargs -P 8` gives each a batch, and at its end each runs into the next one's.
OPENED_KEPT = 8192


@dataclass(slots=True)
class Streak(Generic[P]):
    """One recognised, or suspected, sequence of opened files."""

    place: P  # the furthest file opened
    order: Following[P] | None = None  # None: suspected only, any order may prove right
    steps: int = 0
    upcoming: dict[P, bool] = field(default_factory=dict)  # in order; True: was asked for
    beyond: deque[P] = field(default_factory=deque)  # what follows `upcoming`, in part
    passed: dict[P, bool] = field(default_factory=dict)  # left behind lately, not opened
    opened: int = 0  # lately; halved with `skipped` from time to time
    skipped: int = 0

    @property
    def is_sparse(self) -> bool:
        """Whether it leaves out more than it opens: what is fetched ahead is then in vain."""
        return self.skipped > self.opened + REACH


class Streaks(Generic[P]):
    """Recognises sequences in the files that are opened, and says which to fetch next.

    Of the `orders`, the one in which two opens follow each other most closely is the
    streak's. `is_near(a, b)` says cheaply that b may be among those that soon follow a: when
    files are opened at random, it is asked in vain for every one. `most` bounds the files
    asked for and not yet opened, per streak; 0 turns everything off.
    """

    def __init__(
        self, orders: Sequence[Following[P]], most: int, is_near: Callable[[P, P], bool]
    ) -> None:
        self._orders = orders
        self._most = most
        self._is_near = is_near
        self._streaks: list[Streak[P]] = []  # the one used last comes first
        self._opened: dict[P, None] = {}  # lately, by any streak; the latest last
        self.wasted: list[P] = []  # asked for, and given up; for the caller to take away

    def opened(self, place: P) -> list[P]:
        """A file was opened. Returns the files to fetch now, the nearest first."""
        if not self._most:
            return []
        is_again = place in self._opened
        self._remember(place)
        for streak in self._streaks:
            if place == streak.place:
                return []
            if place in streak.passed:
                del streak.passed[place]
                streak.skipped = max(0, streak.skipped - 1)
                streak.opened += 1
                return []
            if self._goes_on(streak, place):
                self._streaks.remove(streak)
                self._streaks.insert(0, streak)
                return self._advance(streak, place, is_again)
        self._begin(place)
        return []

    def refused(self, places: Sequence[P]) -> None:
        """These were not fetched after all: memory is full. They may be asked for again."""
        for streak in self._streaks:
            for place in places:
                if place in streak.upcoming:
                    streak.upcoming[place] = False

    def _remember(self, place: P) -> None:
        self._opened.pop(place, None)
        self._opened[place] = None
        if len(self._opened) > OPENED_KEPT:
            del self._opened[next(iter(self._opened))]

    def _goes_on(self, streak: Streak[P], place: P) -> bool:
        if place in streak.upcoming:
            return True
        # An order that is proven is given up only where it has no more: at a directory's end.
        if streak.upcoming and streak.steps >= PROOF:
            return False
        if not self._is_near(streak.place, place):
            return False
        order = _nearest(self._orders, streak.place, place, REACH)
        if order is None:
            return False
        streak.order = order
        streak.upcoming.clear()  # another order's
        streak.beyond.clear()
        return True

    def _advance(self, streak: Streak[P], place: P, is_again: bool) -> list[P]:
        assert streak.order is not None
        streak.steps += 1
        streak.place = place
        self._leave_behind(streak, place)
        doublings = min(streak.steps - PROOF, self._most.bit_length())
        want = min(self._most, 1 << doublings) if doublings >= 0 and not streak.is_sparse else 0
        missing = want + REACH - len(streak.upcoming)
        beyond = streak.beyond
        if missing > len(beyond):
            last = beyond[-1] if beyond else next(reversed(streak.upcoming), place)
            beyond.extend(streak.order(last, max(missing, CHUNK)))
        for _ in range(min(missing, len(beyond))):
            streak.upcoming[beyond.popleft()] = False
        asked = [
            p
            for p, was_asked in islice(streak.upcoming.items(), want)
            # What was opened lately is not asked for again, unless this is a second pass.
            if not was_asked and (is_again or p not in self._opened) and not self._is_asked(p)
        ]
        streak.upcoming.update(dict.fromkeys(asked, True))
        return asked

    def _is_asked(self, place: P) -> bool:
        return any(
            streak.upcoming.get(place) or streak.passed.get(place) for streak in self._streaks
        )

    def _leave_behind(self, streak: Streak[P], place: P) -> None:
        """Forget what comes before `place`, but not at once: readers overtake each other."""
        streak.opened += 1
        while streak.upcoming:
            first = next(iter(streak.upcoming))
            was_asked = streak.upcoming.pop(first)
            if first == place:
                break
            streak.passed[first] = was_asked
            streak.skipped += 1
        while len(streak.passed) > max(self._most, REACH):
            oldest = next(iter(streak.passed))
            if streak.passed.pop(oldest):
                self.wasted.append(oldest)
        if streak.opened + streak.skipped > 2 * self._most:
            streak.opened //= 2
            streak.skipped //= 2

    def _begin(self, place: P) -> None:
        self._streaks.insert(0, Streak(place))
        for streak in self._streaks[STREAKS_KEPT:]:
            for places in (streak.passed, streak.upcoming):
                self.wasted.extend(p for p, was_asked in places.items() if was_asked)
        del self._streaks[STREAKS_KEPT:]
