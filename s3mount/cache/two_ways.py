"""Which way to the disk takes more at the moment: past the page cache, or through it.

Past it is the rule. When the writers are behind, the page cache may help, which takes what a
slow disk cannot; but where memory must first be had from a host, or is slow, or full of what
waits for the disk already, it is the slower way, and costs what the stream beside it needs:
a GiB took 2.2 s of CPU, and left the writers further behind. So both are measured, the page
cache for one job first.

Pure: times in seconds and sizes in bytes are given.
"""

from __future__ import annotations

import math

# Of the last measure in what is known: disks stall now and then.
_WEIGHT = 0.25
# Seconds after which what is known of the page cache is too old, and it is tried once more.
_KNOWN_FOR = 30.0


class TwoWays:
    """What was measured, and what follows."""

    def __init__(self) -> None:
        # Seconds for a byte, by whether it went through the page cache.
        self._cost: dict[bool, float] = {}
        self._tried_at = -math.inf

    def note(self, size: int, seconds: float, *, hurry: bool) -> None:
        """So many bytes, more than none, were written in that time."""
        cost = seconds / size
        known = self._cost.get(hurry, cost)
        self._cost[hurry] = known + _WEIGHT * (cost - known)

    def may_hurry(self, now: float) -> bool:
        """For one job of writers who are behind: whether it goes through the page cache."""
        if now - self._tried_at > _KNOWN_FOR:
            self._tried_at = now
            self._cost.pop(True, None)
            return True
        return self._cost.get(True, math.inf) < self._cost.get(False, math.inf)
