"""Stretches of a directory as bytes: what is kept of it on local disk, and told again later.

A stretch is a part of a directory in shown order: its rows, and what is known of the
positions that it covers. Each tells the truth by itself, so a directory may change between
the writing of two of its stretches, and any of them may be missing.

Times are of the wall clock here, and of the daemon's own clock in `Directory`: `clock` is
what the one is ahead of the other.

Pure: knows no files, no clock, no trio. Nothing read here can run code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from s3mount.model import ObjectInfo
from s3mount.namespace.directory import Directory
from s3mount.namespace.entries import shown_at
from s3mount.namespace.known import END, START, Known, after

# Rows of a stretch: half a megabyte, made in some 2 ms.
ROWS = 8192

_LENGTH = struct.Struct("<I")


class Stretch(NamedTuple):
    """One stretch, ready to be stored."""

    learned: float  # when the newest of it was learned, on the wall clock
    data: bytes


def stretches(directory: Directory, clock: float) -> Iterator[Stretch]:
    """The directory in stretches, in order; those of which nothing is known are left out.

    The directory may change between two of them.
    """
    lo = START
    while lo != END:
        names = directory.entries.names
        i = directory.entries.at(lo)
        hi = shown_at(names[i + ROWS]) if i + ROWS < len(names) else END
        known = _known(directory, lo, hi)
        if known:
            marker = directory.marker if lo == START else None
            told = [(start, None if stop == END else stop, at + clock) for start, stop, at in known]
            head = json.dumps([told, marker and marker[1:5]]).encode()
            rows = directory.entries.packed(i, min(i + ROWS, len(names)))
            learned = max(at for _, _, at in told)
            yield Stretch(learned, _LENGTH.pack(len(head)) + head + rows)
        lo = hi


def _known(directory: Directory, lo: str, hi: str) -> list[tuple[str, str, float]]:
    """What is known of the rows shown in [lo, hi), and of what is not there.

    A file stands at "name" and is shown at "name/": where an end lies between the two, what
    is known of the file goes with its row.
    """
    known = Known()
    for start, stop, time in directory.known.intervals():
        known.learn(max(lo, start), min(hi, stop), time)
    for name in _astride(directory, hi):
        known.forget(name, after(name))
    for name in _astride(directory, lo):
        time_at_name = directory.known.since(name)
        if time_at_name is not None and (hi == END or shown_at(name) < hi):
            known.learn(name, after(name), time_at_name)
    return known.intervals()


def _astride(directory: Directory, position: str) -> list[str]:
    """The names before `position` that are shown at or behind it."""
    if position == END:
        return []
    names = (position[:n] for n in range(1, len(position)))
    find = directory.entries.find
    return [name for name in names if shown_at(name) >= position and find(name) >= 0]


def recall(
    directory: Directory, data: Sequence[bytes], *, clock: float, now: float, ttl: float
) -> None:
    """Have the directory, of which nothing is known yet, know what its stretches tell.

    Except what was learned more than `ttl` seconds before `now`, both on the wall clock, or
    after it: such a time tells only that the clock is another.
    """
    for each in data:
        start = _LENGTH.size + _LENGTH.unpack_from(each)[0]
        known, marker = json.loads(each[_LENGTH.size : start])
        known = [(lo, hi, time) for lo, hi, time in known if now - ttl <= time <= now]
        if not known or not directory.entries.append(memoryview(each)[start:]):
            continue
        for lo, hi, time in known:
            directory.known.learn(lo, END if hi is None else hi, time - clock)
        if marker is not None:
            directory.marker = ObjectInfo(directory.prefix, *marker)
