"""Which stretches of a key order are known, and since when.

One page of a listing tells everything about one stretch of the order: what lies
in it exists, and nothing else does. `Known` keeps exactly that, as disjoint
half-open intervals [lo, hi) of strings, each with the time it was learned.

Half-open intervals cover S3's exclusive `start-after` and inclusive last key
alike, because `after(x)` is the very next string behind x: there is none between
"x" and "x\\0".

INVARIANTS: intervals are sorted, disjoint and not empty.
Pure: knows no names, no clock, no requests. What a position means is the caller's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

START = ""
# Greater than every key: S3 keys have at most 1,024 bytes, this one 1,028.
END = "\U0010ffff" * 257


def after(position: str) -> str:
    """The least string greater than `position`."""
    return position + "\0"


class Known:
    """Disjoint intervals of a string order, each with the time it was learned.

    Neighbours learned within `grain` seconds of each other become one interval with the
    older time, so that a listing of a thousand pages leaves a few dozen intervals.
    """

    __slots__ = ("_grain", "_his", "_los", "_times")

    def __init__(self, grain: float = 0.0) -> None:
        self._grain = grain
        self._los: list[str] = []
        self._his: list[str] = []
        self._times: list[float] = []

    def __bool__(self) -> bool:
        return bool(self._los)

    def learn(self, lo: str, hi: str, time: float) -> None:
        """All of [lo, hi) is known as of `time`; what was known of it before is replaced."""
        if lo >= hi:
            return
        if not self._los:
            self._insert(0, lo, hi, time)
            return
        self.forget(lo, hi)
        i = bisect_left(self._los, lo)
        if i > 0 and self._his[i - 1] == lo and abs(self._times[i - 1] - time) <= self._grain:
            i -= 1
            lo, time = self._los[i], min(self._times[i], time)
            self._delete(i, i + 1)
        if i < len(self._los) and self._los[i] == hi and abs(self._times[i] - time) <= self._grain:
            hi, time = self._his[i], min(self._times[i], time)
            self._delete(i, i + 1)
        self._insert(i, lo, hi, time)

    def forget(self, lo: str, hi: str) -> None:
        """Nothing of [lo, hi) is known any more."""
        if lo >= hi:
            return
        i = bisect_right(self._his, lo)  # the first interval that ends behind lo
        j = bisect_left(self._los, hi)  # the first that begins at or behind hi
        if i >= j:
            return
        first_lo, first_time = self._los[i], self._times[i]
        last_hi, last_time = self._his[j - 1], self._times[j - 1]
        self._delete(i, j)
        if last_hi > hi:
            self._insert(i, hi, last_hi, last_time)
        if first_lo < lo:
            self._insert(i, first_lo, lo, first_time)

    def since(self, position: str) -> float | None:
        """When the interval that holds `position` was learned; None in the dark."""
        i = bisect_right(self._los, position) - 1
        if i >= 0 and position < self._his[i]:
            return self._times[i]
        return None

    def around(self, position: str) -> tuple[str, str, float]:
        """The interval [lo, hi) that holds `position`, and its time; an empty one in the dark."""
        i = bisect_right(self._los, position) - 1
        if i >= 0 and position < self._his[i]:
            return self._los[i], self._his[i], self._times[i]
        return position, position, 0.0

    def reach(self, position: str, not_before: float) -> str:
        """How far from `position` on all is known, and learned at or after `not_before`.

        The first position that is not; `position` itself when it is in the dark.
        """
        i = bisect_right(self._los, position) - 1
        if i < 0:
            return position
        while i < len(self._los) and self._los[i] <= position < self._his[i]:
            if self._times[i] < not_before:
                break
            position = self._his[i]
            i += 1
        return position

    def older(self, lo: str, hi: str, time: float) -> list[tuple[str, str]]:
        """The stretches of [lo, hi) that are in the dark, or were learned at `time` or before."""
        stretches = []
        i = bisect_right(self._his, lo)
        while i < len(self._los) and self._los[i] < hi:
            if self._times[i] > time:
                if lo < self._los[i]:
                    stretches.append((lo, self._los[i]))
                lo = self._his[i]
            i += 1
        if lo < hi:
            stretches.append((lo, hi))
        return stretches

    def oldest(self) -> float | None:
        """When the longest-known interval was learned; None when nothing is known."""
        return min(self._times, default=None)

    def intervals(self) -> list[tuple[str, str, float]]:
        """Every (lo, hi, time), in order."""
        return list(zip(self._los, self._his, self._times, strict=True))

    def _insert(self, i: int, lo: str, hi: str, time: float) -> None:
        self._los.insert(i, lo)
        self._his.insert(i, hi)
        self._times.insert(i, time)

    def _delete(self, i: int, j: int) -> None:
        del self._los[i:j], self._his[i:j], self._times[i:j]
