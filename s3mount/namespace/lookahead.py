"""Which directories and files a walk wants next.

Tools visit a tree in an order: `find`, `du`, `ls -R` directory by directory, `grep -r`,
`cat *`, `tar`, `cp -r` file by file. Two predictors notice such an order from the places
visited, and say what to fetch before it is asked for. Both start small, double with
every step that proves them right, and ask for nothing more at the first that does not.

- `Walks`: the directories that a process lists. Its appetite is in pages of listing.
- `Streaks`: the files that are opened. Its appetite is in files.

A place is anything hashable; what follows a place, in which order, is asked of functions
given at construction.

Pure: knows no names, no clock, no requests.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

# The places that follow `place`, at most so many, nearest first.
Following = Callable[[P, int], list[P]]

# --- directories --------------------------------------------------------------------

# A walk may skip this many directories (-prune, -name on directories, several threads).
WALK_REACH = 8
WALKS_KEPT = 4
VISITS_KEPT = 16
PAGES_MOST = 64


@dataclass(slots=True, eq=False, weakref_slot=True)
class Walk(Generic[P]):
    """One recognised walk through directories."""

    place: P  # the directory visited last
    steps: int = 1
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
            return 1 << (self.steps - 1)
        return PAGES_MOST + self.steps


class Walks(Generic[P]):
    """Recognises walks in the directories that are listed.

    A step goes to one of the next few directories in tree order (`following`), which
    holds for depth first; a walk begins with a directory and then one of its first
    subdirectories.
    """

    def __init__(self, following: Following[P]) -> None:
        self._following = following
        self._walks: list[Walk[P]] = []  # the one used last comes first
        self._visits: list[P] = []

    def visit(self, place: P) -> Walk[P] | None:
        """A directory is being listed. Returns the walk that this is a step of, if any."""
        for walk in self._walks:
            if place == walk.place:
                return walk
            if place in self._following(walk.place, WALK_REACH):
                walk.place = place
                walk.steps += 1
                self._walks.remove(walk)
                self._walks.insert(0, walk)
                return walk
        begun = next(
            (past for past in reversed(self._visits) if place in self._following(past, 2)), None
        )
        self._visits = [*self._visits[1 - VISITS_KEPT :], place]
        if begun is None:
            return None
        walk = Walk(place)
        self._walks = [walk, *self._walks[: WALKS_KEPT - 1]]
        return walk

    def is_at(self, place: P) -> bool:
        """Whether a walk of more than one step visited `place` last."""
        return any(walk.place == place and walk.steps > 1 for walk in self._walks)


# --- files --------------------------------------------------------------------------

# Steps in order before anything is fetched: with less, a coincidence would do.
PROOF = 2
# How far a step may go while nothing is proven; afterwards, as far as was fetched, and this.
REACH = 3
STREAKS_KEPT = 8


@dataclass(slots=True)
class Streak(Generic[P]):
    """One recognised, or suspected, sequence of opened files."""

    place: P  # the furthest file opened
    order: Following[P] | None = None  # None: suspected only, any order may prove right
    steps: int = 0
    upcoming: dict[P, bool] = field(default_factory=dict)  # in order; True: was asked for
    passed: dict[P, bool] = field(default_factory=dict)  # left behind lately, not opened


class Streaks(Generic[P]):
    """Recognises sequences in the files that are opened, and says which to fetch next.

    `orders` are tried in turn: the first in which two opens follow each other is the
    streak's. `most` bounds the files asked for and not yet opened, per streak; 0 turns
    everything off.
    """

    def __init__(self, orders: Sequence[Following[P]], most: int) -> None:
        self._orders = orders
        self._most = most
        self._streaks: list[Streak[P]] = []  # the one used last comes first
        self.wasted: list[P] = []  # asked for, and given up; for the caller to take away

    def opened(self, place: P) -> list[P]:
        """A file was opened. Returns the files to fetch now, the nearest first."""
        if not self._most:
            return []
        for streak in self._streaks:
            if place == streak.place or place in streak.passed:
                streak.passed.pop(place, None)
                return []
            if self._goes_on(streak, place):
                self._streaks.remove(streak)
                self._streaks.insert(0, streak)
                return self._advance(streak, place)
        self._begin(place)
        return []

    def refused(self, places: Sequence[P]) -> None:
        """These were not fetched after all: memory is full. They may be asked for again."""
        for streak in self._streaks:
            for place in places:
                if place in streak.upcoming:
                    streak.upcoming[place] = False

    def _goes_on(self, streak: Streak[P], place: P) -> bool:
        if streak.order is not None:
            return place in streak.upcoming
        for order in self._orders:
            if place in order(streak.place, REACH):
                streak.order = order
                return True
        return False

    def _advance(self, streak: Streak[P], place: P) -> list[P]:
        assert streak.order is not None
        streak.steps += 1
        streak.place = place
        self._leave_behind(streak, place)
        doublings = min(streak.steps - PROOF, self._most.bit_length())
        want = min(self._most, 1 << doublings) if doublings >= 0 else 0
        missing = want + REACH - len(streak.upcoming)
        if missing > 0:
            last = next(reversed(streak.upcoming), place)
            streak.upcoming.update(dict.fromkeys(streak.order(last, missing), False))
        asked = [p for p in list(streak.upcoming)[:want] if not streak.upcoming[p]]
        streak.upcoming.update(dict.fromkeys(asked, True))
        return asked

    def _leave_behind(self, streak: Streak[P], place: P) -> None:
        """Forget what comes before `place`, but not at once: readers overtake each other."""
        while streak.upcoming:
            first = next(iter(streak.upcoming))
            was_asked = streak.upcoming.pop(first)
            if first == place:
                break
            streak.passed[first] = was_asked
        while len(streak.passed) > max(self._most, REACH):
            oldest = next(iter(streak.passed))
            if streak.passed.pop(oldest):
                self.wasted.append(oldest)

    def _begin(self, place: P) -> None:
        self._streaks.insert(0, Streak(place))
        for streak in self._streaks[STREAKS_KEPT:]:
            for places in (streak.passed, streak.upcoming):
                self.wasted.extend(p for p, was_asked in places.items() if was_asked)
        del self._streaks[STREAKS_KEPT:]
