"""Which way to the disk takes more at the moment: past the page cache, or through it.

Past it is the rule. When the writers are behind, the page cache may help, which takes what a
slow disk cannot; but where memory must first be had from a host, or is full of what waits for
the disk already, it is the slower way, and costs what the stream beside it needs: a GiB took
2.2 s of CPU, and left the writers further behind. So both are measured, the page cache for one
job first. And a disk that stalls (0.1 to 0.5 s, with 1 GB/s before and after) is slower than
anything while it does.

Pure: times in seconds and sizes in bytes are given.
"""

from __future__ import annotations

import math
from collections import deque

# The best of so many measures counts: a stall tells nothing about what comes after it.
_MEASURES = 4
# Seconds after which what is known of the page cache is too old, and it is tried again.
_KNOWN_FOR = 30.0
# Seconds without an end of a job of 4 MiB, which takes 6 to 12 ms, that are a stall.
STALL = 0.03


class TwoWays:
    """What was measured, and what follows."""

    def __init__(self) -> None:
        # Seconds for a byte, the latest last, by whether it went through the page cache.
        self._costs = {hurry: deque[float](maxlen=_MEASURES) for hurry in (False, True)}
        self._tried = -math.inf  # when the page cache was last measured

    def note(self, size: int, seconds: float, now: float, *, hurry: bool) -> None:
        """So many bytes, more than none, were written in that time."""
        if hurry:
            if self._is_old(now):
                self._costs[True].clear()
            self._tried = now
        self._costs[hurry].append(seconds / size)

    def may_hurry(self, now: float, *, waited: float) -> bool:
        """For writers who are behind: whether their next job goes through the page cache.

        `waited`: for how long the oldest job that goes past it is under way, 0 if there is none.
        """
        if self._is_old(now):
            return True
        # A disk that is not measured yet is taken for the faster way.
        return waited > STALL or min(self._costs[True]) < min(self._costs[False], default=0.0)

    def _is_old(self, now: float) -> bool:
        return now - self._tried > _KNOWN_FOR
