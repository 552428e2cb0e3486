"""How the memory that reading ahead may use is divided among the handles that do, and what one
learns from another.

Pure arithmetic; knows no buffers.
"""

from __future__ import annotations

from collections import deque

from s3mount.reading.window import Jumps, Limits

# Of all buffers, what is never read ahead: it serves those who wait, and the cache's writer.
RESERVE = 0.1
# The same beside a cache on disk, whose writer holds blocks that were read. With less to spare the
# next block rarely gets the place behind the one before it, and every second read is a copy.
RESERVE_BESIDE_CACHE = 0.25
# But as much as fills a connection to S3 is not given up for that.
ENOUGH = 60 * 1024 * 1024
# Blocks that the kernel's own readahead keeps each handle waiting for: two requests of 1 MiB.
WAITED_FOR = 2
# Runs under way at once that a full window is worth: with 25 ms to the first byte and 90 MB/s
# per connection, 16 runs of 4 MiB bring 0.95 GB/s, 8 of 8 MiB 0.57, 64 of 1 MiB take a core.
RUNS = 16
LONGEST_RUN = 8 * 1024 * 1024
# Files of more than a block whose first read is remembered: when none of these was at the start,
# the next one's is not expected there.
BEGUN_KEPT = 3


class Readahead:
    """The share of each handle, equal for all that read ahead."""

    def __init__(self, memory: int, block_size: int, *, beside_cache: bool = False) -> None:
        """`memory`: bytes of all buffers; `beside_cache`: a cache on disk is written from them."""
        self._budget = int(memory * (1 - RESERVE))
        if beside_cache:
            most = int(memory * (1 - RESERVE_BESIDE_CACHE))
            self._budget = max(most, min(self._budget, ENOUGH))
        self._waited_for = WAITED_FOR * block_size
        # To the nearest block: at the default, a mebibyte more or less that the process takes would
        # make the difference of a quarter in requests.
        run = min(LONGEST_RUN, self._budget // RUNS + block_size // 2)
        self._run = max(block_size, run - run % block_size)
        self._streaming = 0
        self.jumps = Jumps()
        self._at_start = deque([True] * BEGUN_KEPT, maxlen=BEGUN_KEPT)

    def join(self) -> None:
        """One more handle reads ahead."""
        self._streaming += 1

    def leave(self) -> None:
        """One handle fewer reads ahead."""
        self._streaming -= 1

    def begin(self, offset: int) -> None:
        """Somebody begins to read a file of more than a block here."""
        self._at_start.append(not offset)

    @property
    def begins_at_start(self) -> bool:
        """Whether large files are read from their start, if any of the last ones was."""
        return any(self._at_start)

    @property
    def limits(self) -> Limits:
        """What one handle may hold ahead of its position, and bring in one request."""
        share = self._budget // max(1, self._streaming)
        return Limits(max(0, share - self._waited_for), self._run)
