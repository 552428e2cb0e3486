"""The readahead state machine: from the reads of one handle to what is worth having.

A handle may carry several interleaved streams (a tar of two members, eight threads on
one descriptor). Each read is given to the stream whose position it goes on from, or
starts a new one. A stream's window is what is fetched beyond the read:

    first read at offset 0   the whole first block: most files are read from the start
    first read elsewhere     nothing: it may be random access
    each read that goes on   the window grows, times `GROWTH`, up to the limit

A stream is told to fetch more only when less than half of its window is left, so that
requests are few and long.

Reads arrive a little out of order: the kernel reads ahead with several requests at
once. So a read "goes on" from a stream when it starts within `SLACK` of the position.

Pure: knows no clock, no requests, no memory; the limit comes in with each read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

GROWTH = 4
# Two of the kernel's largest readahead requests (1 MiB each).
SLACK = 2 * 1024 * 1024
# Streams remembered per handle; the one that rested longest is replaced.
MAX_STREAMS = 8


@dataclass(slots=True)
class Stream:
    """One sequence of reads: where it is, and how far ahead of it was fetched."""

    position: int  # the end of the furthest read
    window: int  # bytes worth having beyond the position
    ahead: int  # everything before this offset was asked for already
    used: int  # the read that touched it last, counted per handle


class Plan(NamedTuple):
    """Byte ranges [start, stop) worth having for one read."""

    demand: tuple[int, int]  # needed now
    ahead: tuple[int, int]  # worth having soon; empty when start == stop
    stream: Stream | None  # the sequence that the read goes on with; None: it may be random


class Window:
    """The streams of one handle."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._streams: list[Stream] = []
        self._reads = 0

    def read(self, offset: int, size: int, file_size: int, limit: int) -> Plan:
        """What to fetch for a read of [offset, offset + size), `limit` bytes ahead at most."""
        self._reads += 1
        stop = min(offset + size, file_size)
        stream = self._stream_of(offset)
        if stream is None:
            stream = self._start(offset, stop)
            if offset == 0:
                first = min(max(stop, self._block_size), file_size)
                stream.ahead = first
                return Plan((0, first), (first, first), stream)
            return Plan((offset, stop), (stop, stop), None)
        stream.used = self._reads
        if stop <= stream.position:
            return Plan((offset, stop), (stop, stop), stream)
        stream.position = stop
        stream.window = min(limit, max(stream.window * GROWTH, self._block_size))
        return Plan((offset, stop), self._advance(stream, file_size), stream)

    def _advance(self, stream: Stream, file_size: int) -> tuple[int, int]:
        """The stretch ahead that is due, in whole blocks; empty while enough is under way."""
        begin = max(stream.ahead, stream.position)
        if begin - stream.position > stream.window // 2:
            return begin, begin
        end = stream.position + stream.window
        end = min(file_size, -(-end // self._block_size) * self._block_size)
        if end <= begin:
            return begin, begin
        stream.ahead = end
        return begin, end

    def _stream_of(self, offset: int) -> Stream | None:
        near = [s for s in self._streams if abs(offset - s.position) <= SLACK]
        return min(near, key=lambda s: abs(offset - s.position), default=None)

    def _start(self, offset: int, stop: int) -> Stream:
        if len(self._streams) == MAX_STREAMS:
            self._streams.remove(min(self._streams, key=lambda s: s.used))
        stream = Stream(position=stop, window=0, ahead=stop, used=self._reads)
        self._streams.append(stream)
        return stream
