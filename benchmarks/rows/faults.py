"""Rows about a server that fails, lies or changes: what six random readers are handed.

Every 16 bytes of every object say whose they are, so that a reader can tell a wrong byte from a
right one whatever the server and the mount did.
"""

from __future__ import annotations

import errno
import mmap
import multiprocessing
import os
import random
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from benchmarks.datasets import (
    FAULT_OBJECTS,
    FAULT_VERSIONS,
    RECORD,
    fault_content,
    fault_key,
    fault_objects,
    fault_size,
)
from benchmarks.modelled_s3 import Fault, FaultKind
from benchmarks.rows.row import Outcome, Row, Stage
from benchmarks.rows.shell import WorkFailedError

READERS = 6
GRACE = 10.0
"""A reader that is not back so long after the end is stuck."""
TIMEOUT = 90.0
"""For the work as a whole; it ends by itself before."""
DEADLINE = 3.0
MAX_READ = 256 * 1024
MAX_PAUSE = 0.1
"""Readers pause up to this long between operations: calm is bound by them, not by the mount."""


class Field(IntEnum):
    """What a reader counts, in its part of the shared memory."""

    OPS = 0
    WRONG = auto()
    MIXED = auto()
    SHORT = auto()
    TOLD = auto()
    """Of the short ones, those of which the next read gives the error, as read(2) may."""
    ERRORS = auto()
    EIO = auto()
    ESTALE = auto()
    WORST_US = auto()
    DONE = auto()


FIELDS = len(Field)
T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """Counters in memory that the readers share: they count also for a reader that hangs."""

    memory: memoryview

    @classmethod
    def for_readers(cls, readers: int) -> Tally:
        """Zeros."""
        return cls(memoryview(mmap.mmap(-1, readers * FIELDS * 8)).cast("Q"))

    def add(self, reader: int, field: Field, number: int = 1) -> None:
        """Add to a reader's counter."""
        self.memory[reader * FIELDS + field] += number

    def worst(self, reader: int, seconds: float) -> None:
        """Keep the longest system call."""
        place = reader * FIELDS + Field.WORST_US
        self.memory[place] = max(self.memory[place], int(seconds * 1e6))

    def of(self, field: Field) -> list[int]:
        """One counter of every reader."""
        return list(self.memory[field::FIELDS])


def judge(number: int, offset: int, asked: int, data: bytes) -> tuple[Field | None, int | None]:
    """What is wrong with data read at offset, if anything, and of which version it is."""
    sizes = [fault_size(number, version) for version in range(FAULT_VERSIONS)]
    if not data:
        return (Field.SHORT if offset < min(sizes) else None), None
    for version, size in enumerate(sizes):
        if data == fault_content(number, version, offset, len(data)):
            whole = len(data) == min(asked, size - offset)
            return (None if whole else Field.SHORT), version
    records = array("Q", data[: len(data) // RECORD * RECORD])
    places = array("Q", range(offset, offset + len(records) // 2 * RECORD, RECORD))
    owners = {(tag >> 48, tag >> 24 & 0xFFFFFF) for tag in set(records[0::2])}
    if records[1::2] == places and owners == {(0x5333, number)}:
        return Field.MIXED, None
    return Field.WRONG, None


def _timed(tally: Tally, me: int, operation: Callable[[], T]) -> T:
    """One system call, which may be the longest."""
    start = time.monotonic()
    try:
        return operation()
    finally:
        tally.worst(me, time.monotonic() - start)


def _operation(
    root: Path, number: int, source: random.Random, tally: Tally, me: int
) -> Field | None:
    """Open an object, read it in one to four places: all must be right, and of one version."""
    path = root / fault_key(number)
    descriptor = _timed(tally, me, lambda: os.open(path, os.O_RDONLY))
    versions: set[int] = set()
    try:
        for _ in range(source.randint(1, 4)):
            offset = source.randrange(0, fault_size(number, 0), RECORD)
            asked = source.randrange(RECORD, MAX_READ, RECORD)
            data = _timed(tally, me, partial(os.pread, descriptor, asked, offset))
            problem, version = judge(number, offset, asked, data)
            if problem is Field.SHORT and data:
                _read_on(descriptor, offset + len(data), tally, me)
            if problem is not None:
                return problem
            if version is not None:
                versions.add(version)
    finally:
        os.close(descriptor)
    return Field.MIXED if len(versions) > 1 else None


def _read_on(descriptor: int, offset: int, tally: Tally, me: int) -> None:
    """Where a read ended early: read(2) gives what it has, and the error at the next call."""
    try:
        os.pread(descriptor, RECORD, offset)
    except OSError:
        tally.add(me, Field.TOLD)


def _count_operation(root: Path, number: int, source: random.Random, tally: Tally, me: int) -> bool:
    """One operation, counted; whether all was right."""
    try:
        problem = _operation(root, number, source, tally, me)
    except OSError as error:
        tally.add(me, Field.ERRORS)
        if error.errno in {errno.EIO, errno.ESTALE}:
            tally.add(me, Field[errno.errorcode[error.errno]])
        return False
    tally.add(me, Field.OPS if problem is None else problem)
    return problem is None


def _reader(root: Path, tally: Tally, me: int, until: float) -> None:
    source = random.Random(me)
    while time.monotonic() < until:
        _count_operation(root, source.randrange(FAULT_OBJECTS), source, tally, me)
        time.sleep(source.uniform(0, MAX_PAUSE))
    tally.add(me, Field.DONE)


def _until_right(root: Path, tally: Tally, me: int, until: float) -> None:
    """Read this reader's share of the objects, each until it is right."""
    source = random.Random(100 + me)
    for number in range(me, FAULT_OBJECTS, READERS):
        while time.monotonic() < until:
            if _count_operation(root, number, source, tally, me):
                break
            time.sleep(0.02)
    tally.add(me, Field.DONE)


def _start(
    target: Callable[[Path, Tally, int, float], None], stage: Stage, tally: Tally, until: float
) -> list[BaseProcess]:
    context = multiprocessing.get_context("fork")
    readers: list[BaseProcess] = [
        context.Process(target=target, args=(stage.root, tally, me, until), daemon=True)
        for me in range(READERS)
    ]
    for reader in readers:
        reader.start()
    return readers


def _outcome(value: float, tally: Tally, struck: int) -> Outcome:
    details: dict[str, float] = {
        "wrong": sum(tally.of(Field.WRONG)),
        "mixed": sum(tally.of(Field.MIXED)),
        "short": sum(tally.of(Field.SHORT)),
        "told by the next read": sum(tally.of(Field.TOLD)),
        "errors": sum(tally.of(Field.ERRORS)),
        "EIO": sum(tally.of(Field.EIO)),
        "ESTALE": sum(tally.of(Field.ESTALE)),
        "hung": tally.of(Field.DONE).count(0),
        "worst s": max(tally.of(Field.WORST_US)) / 1e6,
        "struck": struck,
    }
    bad = {name: details[name] for name in ("wrong", "mixed", "short") if details[name]}
    said = ", ".join(f"{number} {name}" for name, number in bad.items())
    return Outcome(value, {name: float(number) for name, number in details.items()}, said)


def _join(readers: list[BaseProcess], until: float) -> None:
    for reader in readers:
        reader.join(max(until - time.monotonic(), 0.05))
        if reader.is_alive():
            reader.kill()


def _struck_by(faults: tuple[Fault, ...], stage: Stage) -> Outcome:
    """Operations done right while the faults strike."""
    tally = Tally.for_readers(READERS)
    stage.server.set_faults(*faults, seed=7)
    end = time.monotonic() + stage.fault_seconds
    readers = _start(_reader, stage, tally, end)
    time.sleep(max(end - time.monotonic(), 0))
    done = sum(tally.of(Field.OPS))
    struck = sum(stage.server.counts(settle=0).faults.values())
    stage.server.clear_faults()
    _join(readers, end + GRACE)
    return _outcome(done, tally, struck)


def _replaced(stage: Stage) -> Outcome:
    """Operations done right while every 50 ms an object is replaced."""
    tally = Tally.for_readers(READERS)
    source = random.Random(9)
    versions = [fault_objects(stage.local, version) for version in range(FAULT_VERSIONS)]
    end = time.monotonic() + stage.fault_seconds
    readers = _start(_reader, stage, tally, end)
    replaced = 0
    while time.monotonic() < end:
        key = fault_key(source.randrange(FAULT_OBJECTS))
        stage.server.replace(stage.bucket, key, source.choice(versions)[key])
        replaced += 1
        time.sleep(0.05)
    done = sum(tally.of(Field.OPS))
    _join(readers, end + GRACE)
    stage.server.put_many(stage.bucket, versions[0])
    return _outcome(done, tally, replaced)


def _in_outage(stage: Stage) -> tuple[list[BaseProcess], Tally, float]:
    """Readers while the endpoint accepts and never answers; when it is back."""
    tally = Tally.for_readers(READERS)
    back = time.monotonic() + stage.fault_seconds
    stage.server.hang(stage.fault_seconds)
    readers = _start(_reader, stage, tally, back)
    time.sleep(max(back - time.monotonic(), 0))
    return readers, tally, back


def _comes_back(stage: Stage) -> Outcome:
    """Seconds from the end of an outage until every object is read right."""
    readers, tally, back = _in_outage(stage)
    after = Tally.for_readers(READERS)
    _join(_start(_until_right, stage, after, back + stage.limit), back + stage.limit)
    seconds = time.monotonic() - back
    _join(readers, time.monotonic())
    if sum(after.of(Field.OPS)) < FAULT_OBJECTS:
        raise WorkFailedError(f"> {stage.limit:.0f} s")
    outcome = _outcome(seconds, after, 0)
    during = {
        f"{field.name.lower()} in the outage": float(sum(tally.of(field)))
        for field in (Field.OPS, Field.WRONG, Field.ERRORS)
    }
    worst = max(*tally.of(Field.WORST_US), *after.of(Field.WORST_US)) / 1e6
    return Outcome(seconds, {**outcome.details, **during, "worst s": worst}, outcome.wrong)


def _longest(stage: Stage) -> Outcome:
    """The longest operation during an outage, in seconds."""
    readers, tally, back = _in_outage(stage)
    _join(readers, back + GRACE)
    outcome = _outcome(0.0, tally, 0)
    return Outcome(outcome.details["worst s"], outcome.details, outcome.wrong)


def _row(name: str, title: str, reach: str, *faults: Fault, with_peers: bool = True) -> Row:
    return Row(
        f"fault-{name}",
        *("faults", title, "ops", "faults"),
        partial(_struck_by, faults),
        higher_is_better=True,
        timeout=TIMEOUT,
        bounds_itself=True,
        runs=1,
        reach=reach,
        with_peers=with_peers,
    )


FAULTS = (
    _row("none", "no fault (bound by the readers)", ""),
    Row("fault-replaced", "faults", "objects replaced meanwhile", "ops", "faults", _replaced,
        True, timeout=TIMEOUT, bounds_itself=True, runs=1),
    _row("whole", "30 % of ranges answered 200 with the whole object", "0.3 of calm",
         Fault(FaultKind.WHOLE_OBJECT, 0.3)),
    _row("range", "30 % of ranges answered with another range", "0.3 of calm",
         Fault(FaultKind.WRONG_RANGE, 0.3)),
    _row("html", "30 % answered by a page of HTML, status 200", "0.3 of calm",
         Fault(FaultKind.HTML, 0.3)),
    _row("etag", "10 % under another ETag", "", Fault(FaultKind.WRONG_ETAG, 0.1), with_peers=False),
    _row("reset", "15 % of requests reset", "0.8 of calm", Fault(FaultKind.RESET, 0.15)),
    _row("reset-body", "15 % of bodies reset after 64 KiB", "",
         Fault(FaultKind.RESET_BODY, 0.15), with_peers=False),
    _row("early-end", "15 % of bodies end early after 64 KiB", "",
         Fault(FaultKind.EARLY_END, 0.15), with_peers=False),
    _row("stall", "5 % of bodies stop after 64 KiB for ever", "0.5 of calm",
         Fault(FaultKind.STALL, 0.05)),
    _row("503", "20 % are 503", "0.4 of calm", Fault(FaultKind.SLOW_DOWN, 0.2)),
    _row("500", "20 % are 500", "", Fault(FaultKind.INTERNAL_ERROR, 0.2), with_peers=False),
    _row("drip", "5 % drip at 2 KiB/s", "", Fault(FaultKind.SLOW_DRIP, 0.05), with_peers=False),
    _row("all", "all of these at once, 2 % each", "",
         *(Fault(kind, 0.02) for kind in FaultKind
           if kind not in {FaultKind.FORBIDDEN, FaultKind.TRUNCATED_XML}), with_peers=False),
    Row("fault-hang", "faults", "after an outage without any answer: until all is read right", "s",
        "faults", _comes_back, timeout=TIMEOUT, patience=3, bounds_itself=True, reach="3 s"),
    Row("fault-deadline", "faults", f"the longest operation in it, --deadline {DEADLINE:.0f}s", "s",
        "faults", _longest, timeout=TIMEOUT, bounds_itself=True, with_peers=False,
        mount_options=("--deadline", f"{DEADLINE:.0f}s"), reach=f"{DEADLINE:.0f} s"),
)  # fmt: skip
