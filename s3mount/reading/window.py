"""The readahead state machine: from the reads of one handle to what is worth having.

A handle may carry several interleaved streams (a tar of two members, eight threads on
one descriptor). A read is one of these:

    at offset 0      the whole first block is fetched: most files are read from the start
    alone            exactly what is asked: it may be random access; or as much as was read
                     in a row after the last jumps (`Jumps`), if each of them went on
    going on         it begins where an earlier read ended, or ends where one began: a
                     stream, forward or backward, with a window of bytes fetched beyond it
    in step          the third at one distance, one by one: a strided stream; the next reads
                     of the same size at the same distance are fetched, not what lies between

A window is `GROWTH` times what the stream has read in a row, so a reader who stops early
costs little, up to the limit that comes in with each read. Its far end moves in whole
runs, so that requests are few and long; a run is an eighth of a window that grows, so that
many are under way at once, and a quarter of one at its limit: of a single stream that would be
longer than a run may be, and several streams have as many under way together.

A stream that the reader turned away from is given up, and the `Plan` says what was fetched
for it in vain: what no other stream of the handle goes on to read. Turned away means: so
many reads have passed without one of its own, and none of its own is being waited for. That
takes few reads when there was one stream (a seek), and many once it was come back to
(several readers share the descriptor).

Once a stream is established its reads may arrive out of order (the kernel reads ahead with
several requests at once): a read within `SLACK` of the position belongs to it. Before
that, only one at the very byte does: random reads meet by chance within 2 MiB.

Pure: knows no clock, no requests, no memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

GROWTH = 16
# Two of the kernel's largest readahead requests (1 MiB each).
SLACK = 2 * 1024 * 1024
# Streams remembered per handle; the one that rested longest is replaced.
MAX_STREAMS = 8
# Reads that belong to no stream, remembered because one may turn out to have begun one.
MAX_LONE = 16
# Reads without one of the stream's own, for each stream there is, after which it is given up:
# before and after it was come back to from another stream.
PATIENCE = 2
PATIENCE_SHARED = 32
# Reads ahead of a strided stream: each may be a request, so no more than connections.
MAX_STEPS = 32
# Runs that a window is worth while it grows, and at its limit. Four files at once took 510 GETs
# a GiB with an eighth throughout; with a quarter throughout the first 8 MiB came 5-15 % later.
RUNS_WHILE_GROWING = 8
RUNS_PER_WINDOW = 4

# Jumps that went on, before the next one is expected to; and what is fetched for it at most.
JUMPS_PROOF = 2
LONGEST_JUMP = 4 * 1024 * 1024

Stretch = tuple[int, int]  # bytes [start, stop)


class Jumps:
    """How far readers went on, lately, from where they had jumped to: not to a file's start.

    One for all handles: `tail -c 1M *` jumps once in each file, and who reads the members of
    an archive, or columns, jumps in one. The shortest of the last ones is what is expected, so
    that one random read puts an end to it.
    """

    def __init__(self) -> None:
        self._lately = deque([0] * JUMPS_PROOF, maxlen=JUMPS_PROOF)

    @property
    def expected(self) -> int:
        """Bytes that will be read in a row after a jump."""
        return min(LONGEST_JUMP, *self._lately)

    def note(self, length: int) -> None:
        """After a jump so many bytes were read in a row."""
        self._lately.append(length)


@dataclass(slots=True, eq=False)
class Stream:
    """One sequence of reads: where it is, and how far ahead of it was fetched.

    `step` is 0 for a forward stream, `BACKWARD` for a backward one, else the distance
    between the starts of its reads.
    """

    position: int  # forward: the end of the furthest read; else the start of the last one
    ahead: int  # what lies between the position and here was asked for already
    step: int
    seen: int  # bytes read in a row
    used: int  # the read that touched it last, counted per handle
    window: int = 0  # bytes worth having beyond the position
    pending: int = 0  # reads of it that were not answered yet; the handle counts them
    patience: int = PATIENCE
    hoped: int = 0  # bytes that are worth having, all in all, of what a jump began
    is_proven: bool = True  # False: a jump alone began it

    @property
    def wanted(self) -> Stretch:
        """What was asked for ahead of the position."""
        return min(self.position, self.ahead), max(self.position, self.ahead)

    def comes_back(self, block_size: int) -> bool:
        """Whether the next read may want more of the block in which the last one ended."""
        if self.step in (0, BACKWARD):
            return True
        return self.position // block_size == (self.position + self.step) // block_size

    def fell_short(self, start: int, reached: int) -> None:
        """Of what the last plan had ahead, only what comes before `reached` was asked for.

        `reached` lies in the stretch that begins at `start`.
        """
        self.ahead = (
            reached if self.step == 0 else start if self.step == BACKWARD else self.position
        )


def _without(stretches: list[Stretch], start: int, stop: int) -> list[Stretch]:
    """What of the stretches lies outside of [start, stop)."""
    parts = [
        part
        for first, last in stretches
        for part in ((first, min(last, start)), (max(first, stop), last))
    ]
    return [(first, last) for first, last in parts if first < last]


BACKWARD = -1  # no strided stream has it: reads one byte apart overlap or adjoin


class Plan(NamedTuple):
    """What to fetch, in stretches of bytes [start, stop), and what to fetch no more."""

    demand: Stretch  # needed now
    ahead: tuple[Stretch, ...]  # worth having soon, the nearest first
    run: int  # bytes that one request of `ahead` should bring at most
    given_up: tuple[Stretch, ...]  # asked for earlier, and not wanted any more
    stream: Stream | None  # what the read goes on with; None: it may be random


class Limits(NamedTuple):
    """Bytes that reading ahead may hold for one handle, and bring in one request."""

    window: int
    run: int


class Window:
    """The streams of one handle."""

    def __init__(self, block_size: int, sector_size: int, jumps: Jumps) -> None:
        self._block_size = block_size
        self._sector_size = sector_size
        self._jumps = jumps
        self._jump: Stream | Stretch | None = None  # what the last one led to
        self._streams: list[Stream] = []
        self._lone: deque[Stretch] = deque(maxlen=MAX_LONE)
        self._reads = 0

    @property
    def wanted(self) -> list[Stretch]:
        """What was asked for ahead of all streams."""
        return [stream.wanted for stream in self._streams]

    def leave(self) -> None:
        """Nothing more will be read."""
        self._end_jump()

    def read(
        self, offset: int, size: int, file_size: int, limits: Limits, *, alone: bool = True
    ) -> Plan:
        """What to fetch for a read of [offset, offset + size).

        `alone`: every read of the handle before it was answered.
        """
        self._reads += 1
        stop = min(offset + size, file_size)
        stream = self._stream_of(offset, stop)
        if stream is not None:
            stream.is_proven = True
        else:
            stream = self._new_stream(offset, stop, alone=alone) or self._jump_to(offset, stop)
        if stream is None:
            self._lone.append((offset, stop))
            first = min(max(stop, self._block_size), file_size) if offset == 0 else stop
            return Plan((offset, first), (), 0, self._give_up(), None)
        if stream.used and stream.used < max(other.used for other in self._streams):
            stream.patience = PATIENCE_SHARED
        stream.used = self._reads
        given_up = self._give_up()
        if not self._moves(stream, offset, stop):
            return Plan((offset, stop), (), 0, given_up, stream)
        stream.seen += stop - offset
        limit = max(limits.window // len(self._streams), 0)
        stream.window = min(limit, self._worth(stream))
        runs = RUNS_PER_WINDOW if stream.window == limit else RUNS_WHILE_GROWING
        # To the nearest block: a window of almost 16 blocks is worth runs of four.
        run = min(limits.run, stream.window // runs + self._block_size // 2)
        run = max(run - run % self._block_size, self._block_size)
        if stream.step == 0:
            ahead = self._forward(stream, file_size, run)
        elif stream.step == BACKWARD:
            ahead, run = self._backward(stream), self._block_size
        else:
            ahead = self._strided(stream, stop - offset, file_size, limits.window)
        return Plan((offset, stop), ahead, run, given_up, stream)

    # --- whose read it is ---------------------------------------------------------

    def _stream_of(self, offset: int, stop: int) -> Stream | None:
        best, nearest = None, SLACK + 1
        for stream in self._streams:
            if not stream.is_proven:
                distance = 0 if offset == stream.position else SLACK + 1
            elif stream.step == 0:
                distance = abs(offset - stream.position)
            elif stream.step == BACKWARD:
                distance = abs(stop - stream.position)
            elif offset == stream.position + stream.step:
                return stream
            else:
                continue
            if distance < nearest:
                best, nearest = stream, distance
        return best

    def _new_stream(self, offset: int, stop: int, *, alone: bool) -> Stream | None:
        """The stream that this read makes of one or two lone reads before it."""
        for lone in reversed(self._lone):
            first, last = lone
            if last == offset:
                stream = Stream(position=offset, ahead=offset, step=0, seen=last - first, used=0)
            elif first == stop:
                stream = Stream(first, first, step=BACKWARD, seen=last - first, used=0)
            else:
                continue
            self._lone.remove(lone)
            self._streams.append(stream)
            if lone == self._jump and stream.step == 0:
                self._jump = stream
            return stream
        return self._new_strided(offset) if alone else None

    def _new_strided(self, offset: int) -> Stream | None:
        """The stream that the last two lone reads make with this one.

        The last two: among many random reads of a small file some are in step by chance. And
        none at once: several readers that share a file out begin at one distance, too.
        """
        if len(self._lone) < 2:
            return None
        (before, _), (first, last) = self._lone[-2], self._lone[-1]
        step = offset - first
        if first - before != step or abs(step) <= last - first:
            return None
        stream = Stream(first, first, step=step, seen=2 * (last - first), used=0)
        self._lone.pop()
        self._streams.append(stream)
        return stream

    def _jump_to(self, offset: int, stop: int) -> Stream | None:
        """The stream that a read which goes on with none is expected to begin, if any."""
        if not offset:
            return None
        self._end_jump()
        expected = self._jumps.expected
        if expected <= max(self._sector_size, stop - offset):
            self._jump = offset, stop
            return None
        # A sector more than that: so there is something to give up at its end.
        hoped = expected + self._sector_size
        stream = Stream(offset, offset, 0, seen=0, used=0, hoped=hoped, is_proven=False)
        self._streams.append(stream)
        self._jump = stream
        return stream

    def _end_jump(self) -> None:
        if self._jump is None:
            return
        if isinstance(self._jump, Stream):
            self._jumps.note(self._jump.seen)
        else:
            start, stop = self._jump
            self._jumps.note(stop - start)
        self._jump = None

    @staticmethod
    def _worth(stream: Stream) -> int:
        """Bytes worth having beyond the position."""
        if stream.seen < stream.hoped:
            return stream.hoped - stream.seen
        return stream.seen * GROWTH

    @staticmethod
    def _moves(stream: Stream, offset: int, stop: int) -> bool:
        """Take the stream to the end of this read; False when it was there already."""
        if stream.step == 0:
            if stop <= stream.position:
                return False
            stream.position = stop
        elif stream.step == BACKWARD:
            if offset >= stream.position:
                return False
            stream.position = offset
        else:
            stream.position = offset
        return True

    def _give_up(self) -> tuple[Stretch, ...]:
        """Forget the streams that the reader turned away from; what was fetched for them."""
        rested = [(s, (self._reads - s.used) // len(self._streams)) for s in self._streams]
        gone = [s for s, reads in rested if reads > s.patience and not s.pending]
        if not gone and len(self._streams) > MAX_STREAMS:
            gone = [min(self._streams, key=lambda s: (s.pending > 0, s.used))]
        for stream in gone:
            self._streams.remove(stream)
        left = [stream.wanted for stream in gone if stream.ahead != stream.position]
        if left:
            size = self._block_size
            for start, stop in self.wanted:
                left = _without(left, start // size * size, -(-stop // size) * size)
        return tuple(left)

    # --- what it wants next -------------------------------------------------------

    def _forward(self, stream: Stream, file_size: int, run: int) -> tuple[Stretch, ...]:
        """The next whole runs that fit into the window; of a narrow one, blocks or sectors."""
        begin = max(stream.ahead, stream.position)
        end = stream.position + stream.window
        if end >= file_size:
            end = file_size
        else:
            unit = run if stream.window >= 2 * run else self._block_size
            if stream.window < self._block_size or stream.seen < stream.hoped:
                unit = self._sector_size
            end -= end % unit
        if end <= begin:
            return ()
        stream.ahead = end
        return ((begin, end),)

    def _backward(self, stream: Stream) -> tuple[Stretch, ...]:
        """The next whole blocks below: each a request of its own, or the nearest comes last."""
        size = self._block_size
        top = min(stream.ahead, stream.position)
        low = max(0, stream.position - stream.window)
        unit = size if stream.window >= size else self._sector_size
        low = -(-low // unit) * unit
        if low >= top:
            return ()
        stream.ahead = low
        cuts = [top, *range((top - 1) // size * size, low, -size), low]
        return tuple((lower, upper) for upper, lower in pairwise(cuts) if lower < upper)

    def _strided(
        self, stream: Stream, size: int, file_size: int, limit: int
    ) -> tuple[Stretch, ...]:
        """The next reads at this distance, twice as many each time."""
        step = stream.step
        doublings = min(stream.seen // size - 2, MAX_STEPS)
        steps = min(MAX_STEPS, 2 ** max(doublings, 0), limit // self._block_size)
        done = max((stream.ahead - stream.position) // step, 0)
        starts = [stream.position + step * i for i in range(done + 1, steps + 1)]
        starts = [start for start in starts if 0 <= start < file_size]
        if not starts:
            return ()
        stream.ahead = starts[-1]
        return tuple((start, min(start + size, file_size)) for start in starts)
