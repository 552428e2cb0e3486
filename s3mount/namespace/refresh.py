"""Lists anew, in the background, what is still being used when it is about to be too old.

Without it, a long walk stops at every directory once the first minute is over: its listing is
as old as the TTL then, and must be asked for again while the program waits.

What is used within the last quarter of its TTL is asked for again, one page from the name on,
and so is what is not there: a program that looks for a file every second waits for none;
directories that are small, and have no subdirectories, with their neighbours in one flat page.
What nobody uses is left to expire.

INVARIANTS
- Nobody waits for a refresh, and no failure of one reaches anybody.
- A page is asked for once within a quarter of the TTL, whatever it brought; one of a
  directory and kind is on its way, and at most `IN_FLIGHT_MOST` of all.

Must not know: inodes, what listings are handed out to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import trio

from s3mount.errors import RequestError
from s3mount.namespace.directory import Directory
from s3mount.namespace.known import END, START
from s3mount.namespace.order import place_of
from s3mount.namespace.pages import from_name

log = logging.getLogger(__name__)

IN_FLIGHT_MOST = 4
# Of the TTL. The kernel, too, is told to ask again at that age, or it would keep all use of a
# name to itself until the end.
AGE = 0.75
# Entries of a directory that is listed anew together with its neighbours: several fit a page.
SMALL = 250
# Names that a page brings.
PAGE = 1000
TRIED_KEPT = 1024


class _Page(NamedTuple):
    """A page of `prefix`, from a position or (flat) a key on."""

    prefix: str
    start: str
    is_flat: bool


class _Turn(NamedTuple):
    """From which age on what is used is asked for again, and the seconds that it then has left."""

    age: float
    rest: float


def _turn(ttl: float) -> _Turn:
    # Where all is for ever, or so short that an answer is as old as it may be: never.
    return _Turn(ttl * AGE, ttl * (1 - AGE)) if 1.0 <= ttl < math.inf else _Turn(math.inf, 0.0)


class Refresher:
    """Keeps fresh what is used.

    `list_page(directory, lo)` lists one page of a directory from the position `lo` on,
    `list_flat(prefix, start)` one of `prefix` without a delimiter from the key `start` on.
    """

    def __init__(
        self,
        *,
        ttl: float,
        negative_ttl: float,
        top: str,
        nursery: trio.Nursery,
        list_page: Callable[[Directory, str], Awaitable[object]],
        list_flat: Callable[[str, str], Awaitable[object]],
    ) -> None:
        self._turns = {False: _turn(ttl), True: _turn(negative_ttl)}
        self._top = top
        self._nursery = nursery
        self._list_page = list_page
        self._list_flat = list_flat
        self._tried: dict[_Page, float] = {}  # the latest last
        self._in_flight: set[tuple[str, bool]] = set()  # whose pages are on their way, of a kind

    def ask_again_in(self, ttl: float, *, is_absent: bool = False) -> float:
        """Seconds after which the kernel is to ask again for what is good for `ttl` seconds."""
        rest = self._turns[is_absent].rest
        if not rest:
            return ttl
        # Behind that age a few times more: the refresh may be late, or another's turn.
        return ttl - rest if ttl > rest else min(ttl, rest / 4)

    def used(
        self, directory: Directory, name: str, learned: float, *, is_absent: bool = False
    ) -> None:
        """What is known of the name since `learned` was used just now."""
        now = trio.current_time()
        turn = self._turns[is_absent]
        if now - learned < turn.age or len(self._in_flight) >= IN_FLIGHT_MOST:
            return
        entries = len(directory)
        reached = directory.known.reach(START, -math.inf)
        is_whole = reached == END
        is_leaf = not directory.entries.directories and directory.prefix != self._top
        if is_whole and entries < SMALL and is_leaf:
            parent = place_of(directory.prefix).prefix
            page = _Page(parent, directory.prefix, is_flat=True)
            self._start(page, partial(self._list_flat, *page[:2]), now - turn.rest)
        else:
            # As a lookup in the dark does: the directory from its start, unless that is known,
            # and does not reach the name.
            is_first = entries < PAGE and (is_whole or reached == START)
            lo = START if is_first else from_name(name)
            page = _Page(directory.prefix, lo, is_flat=False)
            self._start(page, partial(self._list_page, directory, lo), now - turn.rest)

    def _start(self, page: _Page, ask: Callable[[], Awaitable[object]], since: float) -> None:
        """Ask for the page, unless that was done since a moment ago."""
        now = trio.current_time()
        flight = (page.prefix, page.is_flat)
        if flight in self._in_flight or self._tried.get(page, -math.inf) > since:
            return
        self._tried.pop(page, None)
        self._tried[page] = now
        if len(self._tried) > TRIED_KEPT:
            del self._tried[next(iter(self._tried))]
        self._in_flight.add(flight)
        self._nursery.start_soon(self._refresh, flight, ask)

    async def _refresh(
        self, flight: tuple[str, bool], ask: Callable[[], Awaitable[object]]
    ) -> None:
        try:
            await ask()
        except RequestError as error:
            log.debug("listing %r anew failed: %s", flight[0], error)
        except Exception:
            # Nobody waits for this task: its failure must not end the mount.
            log.exception("listing anew failed: this is a bug, please report it")
        finally:
            self._in_flight.discard(flight)
