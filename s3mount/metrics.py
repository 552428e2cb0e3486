"""Counters of what was done: requests by kind, bytes, cache hits, errors.

INVARIANT: counters only grow, and are touched on the trio thread alone.
Requests are counted where they are sent, one per HTTP request (a retry is a
request too: it is paid for).
"""

from __future__ import annotations

from collections import Counter


class Metrics:
    """Named counters; a name that was never counted reads 0."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, name: str, amount: int = 1) -> None:
        """Add `amount` to the counter `name`, such as "requests.get" or "bytes.fetched"."""
        self._counts[name] += amount

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        """All counters, by name, in alphabetical order."""
        return dict(sorted(self._counts.items()))
