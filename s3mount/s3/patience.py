"""When an answer is late, learned from recent ones, and how many second requests that is worth.

Late is what takes longer than nearly all that came before it: `SLOW_FACTOR` times the 95th
percentile, and twice the median at least. Latencies differ by what is waited for (the first
buffer of a body or the next one, and how large it is), so they are kept by kind.

A second request costs money and bandwidth, and a service that is slow because it is
overloaded suffers from it. So each request earns `share` of one, and there is a small
allowance for the first seconds of a mount: second requests <= ALLOWANCE + share * requests.

Pure: times in seconds come in.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable

SLOW_FACTOR = 1.5
# Below this, what is measured is this machine's scheduler.
LEAST = 0.02
# While fewer than `ENOUGH` of a kind are known.
UNKNOWN = 0.5
ENOUGH = 8
KEPT = 128
ALLOWANCE = 5.0
# Unused shares are worth no more: a long calm must not pay for a storm.
MOST_SAVED = 20.0

# A request that is silent for so long may be given up for lost, whatever the share says, and
# sent again; the first one may still answer, up to --read-timeout.
LOST_FIRST = 1.0
LOST_NEXT = 2.0
LOST_FACTOR = 4.0
# While nothing is answered, one of all requests is sent again that often: who reads is back as soon
# after the endpoint.
PROBE = 1.0


class _Recent:
    """The latest latencies of one kind."""

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=KEPT)
        self.median = self.p95 = 0.0
        self._unseen = 0

    def add(self, seconds: float) -> None:
        self.values.append(seconds)
        self._unseen += 1
        # Sorting for each would cost more than signing a request.
        if self._unseen >= min(16, 1 + len(self.values) // 4):
            self._unseen = 0
            ordered = sorted(self.values)
            self.median = ordered[len(ordered) // 2]
            self.p95 = ordered[min(int(len(ordered) * 0.95), len(ordered) - 1)]


class Patience:
    """See the module."""

    def __init__(self, share: float) -> None:
        """`share`: second requests per request, on average; 0: none."""
        self._share = share
        self._saved = ALLOWANCE if share else 0.0
        self._recent: dict[Hashable, _Recent] = {}
        self.heard = -math.inf  # when any request last delivered something
        self._probed = -math.inf

    def observe(self, kind: Hashable, seconds: float) -> None:
        """An answer came that soon after its own request was sent."""
        recent = self._recent.get(kind)
        if recent is None:
            recent = self._recent[kind] = _Recent()
        recent.add(seconds)

    def sent(self) -> None:
        """A request was sent."""
        self._saved = min(self._saved + self._share, MOST_SAVED)

    def take(self) -> bool:
        """Whether a second request may be sent; if so, it is counted."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True

    def repeat(self, sent: float, now: float) -> bool:
        """Whether what was sent then, and seems lost, may be sent again; if so, it is.

        While nothing is answered, one of all requests at a time: a service that is slow because
        it is overloaded must not be asked for everything twice.
        """
        if self.heard <= sent:
            if now - self._probed < PROBE:
                return False
            self._probed = now
        return True

    def late_after(self, kind: Hashable) -> float:
        """How long to wait before a second request."""
        recent = self._recent.get(kind)
        if recent is None or len(recent.values) < ENOUGH:
            return UNKNOWN
        return max(recent.p95 * SLOW_FACTOR, recent.median * 2, LEAST)

    def lost_after(self, kind: Hashable, sent: float, times: int) -> float:
        """How long to wait before giving up what was sent then, and given up `times` before.

        While nothing is answered it may be the service that is slow, and gets longer.
        """
        recent = self._recent.get(kind)
        least = LOST_NEXT if times and self.heard <= sent else LOST_FIRST
        return max(least, recent.p95 * LOST_FACTOR) if recent is not None else least
