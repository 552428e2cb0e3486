"""One run of one row with one program: mount, work, count, verify, unmount.

Work is done in a child process: a mount that hangs takes the child with it, not the benchmark.
Cold means: a new mount, an empty disk cache, and page caches dropped; then the server's own files
are read into memory again, because its disk is not what is measured.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from benchmarks.modelled_s3 import Counts, ModelledS3
from benchmarks.modelled_s3.server import CONNECTION_RATE, TIME_TO_FIRST_BYTE
from benchmarks.mounting import Mounted, MountError, Usage, mounted
from benchmarks.prices import dollars
from benchmarks.programs import PROGRAMS, Program, Target
from benchmarks.rows.row import Limit, Outcome, Profile, Row, Stage
from benchmarks.rows.shell import WorkFailedError

T = TypeVar("T")
OURS = "s3mount"
VERIFY_TIMEOUT = 30.0
SAMPLE = 64 << 20
"""Bytes of a file that are compared for other programs: not all of them keep what was read."""
TOOLS = ("bash", "cat", "cmp", "cp", "curl", "dd", "diff", "du", "find", "grep", "gzip", "ls")
MORE_TOOLS = ("md5sum", "rsync", "stat", "tar", "umount", "zcat")


class TooSlowError(Exception):
    """The work was not done in time, or is stuck."""


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement."""

    value: float | None
    """In the row's unit; None: see `problem`."""
    problem: str = ""
    wrong: str = ""
    """Bytes or names that were not those of the bucket."""
    seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    fetched: int = 0
    """Bytes of bodies that the server sent."""
    peak_rss: int = 0
    cpu: float = 0.0
    """Seconds of the program while the work was done."""
    dollars: float = 0.0
    details: dict[str, float] = field(default_factory=dict)
    items: int = 0
    """Files or reads; see `Outcome`."""

    @property
    def requests_each(self) -> float:
        """For each file or read."""
        return sum(self.requests.values()) / self.items

    @property
    def kib_each(self) -> float:
        """KiB fetched for each file or read."""
        return self.fetched / 1024 / self.items


@dataclass(frozen=True, slots=True)
class Place:
    """Where the benchmark works."""

    server: ModelledS3
    directory: Path
    """Below it: data/ (local copies), mnt/, cache/, scratch/, logs/."""
    local: dict[str, Path]
    """The local copy of each dataset."""
    limit: float = 60.0
    """Seconds that a peer's run may take, where the row has no more patience."""
    fault_seconds: float = 8.0
    """How long readers read while faults strike."""

    def patience(self, row: Row, program: Program, at_least: float = 0.0) -> float:
        """How long to wait for the program in this row."""
        if program.name == OURS:
            return row.timeout
        return min(row.timeout, max(self.limit * row.patience, at_least))


def _child(pipe: Connection, work: Callable[[], T]) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        pipe.send((work(), ""))
    except (WorkFailedError, OSError) as error:
        pipe.send((None, str(error)))


def bounded(work: Callable[[], T], seconds: float, rescue: Callable[[], None]) -> T:
    """Do the work in a child process.

    `rescue` is called if the child is stuck even against SIGKILL.

    Raises:
        TooSlowError: it takes longer than `seconds`.
        WorkFailedError: it failed; the message says how.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise TooSlowError(f"> {seconds:.0f} s")
        result, problem = receiver.recv()
    except EOFError as error:
        process.join()
        raise WorkFailedError(f"the worker ended with {process.exitcode}") from error
    finally:
        receiver.close()
        if process.is_alive():
            process.join(0.5)
        if process.is_alive() and process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # on a busy machine it may have no group of its own yet
        process.join(3)
        if process.is_alive():
            rescue()
            process.join(10)
        if not process.is_alive():
            process.close()
    if problem:
        raise WorkFailedError(problem)
    value: T = result
    return value


def drop_caches() -> None:
    """Forget what the kernel has of files that are clean; needs root."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def warm_tools() -> None:
    """Read the tools' binaries, so that a run does not wait for the local disk."""
    for tool in (*TOOLS, *MORE_TOOLS):
        path = shutil.which(tool)
        if path:
            Path(path).read_bytes()


def warm_machine() -> None:
    """Touch memory: the first touch of a page can cost a guest more than what is measured."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    chunk = 64 << 20
    held = [b"\1" * chunk for _ in range(min(pages, 2 << 30) // chunk)]
    held.clear()


def _reset(place: Place) -> None:
    """Give the next run empty directories.

    Files of before are emptied and kept until the end: an ext4 without a journal uses no inode
    again within five minutes, and searches past all of them for each new file. After the removal
    of 1,000 cached blocks that took a tenth of a run's CPU.
    """
    aside = Path(tempfile.mkdtemp(prefix="before-", dir=place.directory))
    for name in ("cache", "scratch"):
        (place.directory / name).rename(aside / name)
        (place.directory / name).mkdir()
    for directory, _, names in os.walk(aside):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                os.truncate(path, 0)


def _set_profile(place: Place, profile: Profile) -> None:
    place.server.clear_faults()
    if profile is Profile.RAW:
        place.server.set_model(ttfb=0, rate=0)
    else:
        place.server.set_model(ttfb=TIME_TO_FIRST_BYTE, rate=CONNECTION_RATE)


def _stage(place: Place, row: Row, limit: float) -> Stage:
    tls = row.profile is Profile.TLS
    return Stage(
        root=place.directory / "mnt",
        local=place.local[row.dataset],
        scratch=place.directory / "scratch",
        server=place.server,
        bucket=row.dataset,
        endpoint_url=place.server.tls_endpoint_url if tls else place.server.endpoint_url,
        ca_path=place.server.ca_path if tls else None,
        limit=limit,
        fault_seconds=place.fault_seconds,
    )


def _make_cold(place: Place, row: Row) -> None:
    _reset(place)
    drop_caches()
    place.server.warm(row.dataset)
    warm_tools()
    _set_profile(place, row.profile)
    place.server.reset_counts()


def _no_rescue() -> None:
    """Nothing is mounted."""


def run_limit(place: Place, row: Row, limit: Limit) -> Run:
    """What the row's figure is held against."""
    if limit.mount_options is not None:
        options = row.mount_options + limit.mount_options
        return run_program(
            place, replace(row, work=limit.work, mount_options=options, verify=None), PROGRAMS[OURS]
        )
    _make_cold(place, row)
    stage = _stage(place, row, row.timeout)
    if limit.is_local:
        stage = replace(stage, root=stage.local)
    try:
        if limit.is_local and not row.drop_page_cache:
            bounded(lambda: limit.work(stage), row.timeout, _no_rescue)
        start = time.monotonic()
        outcome = bounded(lambda: limit.work(stage), row.timeout, _no_rescue)
        counts = place.server.counts()
    except (TooSlowError, WorkFailedError, OSError) as error:
        return Run(None, problem=str(error))
    return _result(outcome, time.monotonic() - start, counts, Usage(0, 0.0), 0.0)


def _result(outcome: Outcome, seconds: float, counts: Counts, used: Usage, before: float) -> Run:
    requests = {kind: number for kind, number in counts.requests.items() if number}
    return Run(
        value=outcome.value,
        wrong=outcome.wrong,
        seconds=seconds,
        requests=requests,
        fetched=counts.bytes_sent,
        peak_rss=used.peak_rss,
        cpu=max(used.cpu - before, 0.0),  # nothing is known of a process that ended
        dollars=dollars(requests),
        details=outcome.details,
        items=outcome.items,
    )


@contextlib.contextmanager
def _on_stage(
    place: Place, row: Row, program: Program, limit: float
) -> Iterator[tuple[Mounted, Stage]]:
    stage = _stage(place, row, limit)
    target = Target(
        endpoint_url=stage.endpoint_url,
        bucket=stage.bucket,
        mountpoint=stage.root,
        cache_dir=place.directory / "cache",
        ca_path=stage.ca_path,
        disk_cache=row.disk_cache,
        options=row.mount_options,
    )
    log = place.directory / "logs" / f"{row.name}-{program.name}.log"
    with mounted(program, target, log) as mount:
        yield (
            mount,
            replace(
                stage,
                usable_after=mount.usable_after,
                resident=mount.resident,
                compare=None if program.name == OURS else SAMPLE,
            ),
        )


def run_program(
    place: Place, row: Row, program: Program, verify: bool = True, at_least: float = 0.0
) -> Run:
    """The row's work in a mount of this program, which has `at_least` these seconds."""
    limit = place.patience(row, program, at_least)
    try:
        return _run_mounted(place, row, program, verify, limit)
    except (MountError, TooSlowError, WorkFailedError, OSError) as error:
        return Run(None, problem=str(error))
    finally:
        with contextlib.suppress(OSError):
            place.server.clear_faults()


def _run_mounted(place: Place, row: Row, program: Program, verify: bool, limit: float) -> Run:
    _make_cold(place, row)
    before = 0.0
    if row.counts_mounting:
        # Once before, so that the local disk that the program is read from is not measured.
        with _on_stage(place, row, program, limit):
            pass
        _reset(place)
        place.server.reset_counts()
    with _on_stage(place, row, program, limit) as (mount, stage):
        if row.bounds_itself:
            limit = row.timeout
        if row.prepare is not None:
            prepare = row.prepare
            bounded(lambda: prepare(stage), limit, mount.kill)
        if row.drop_page_cache:
            drop_caches()
            place.server.warm(row.dataset)
            warm_tools()
        if not row.counts_mounting:
            place.server.reset_counts()
            before = mount.usage().cpu
        start = time.monotonic()
        try:
            outcome = bounded(lambda: row.work(stage), limit, mount.kill)
        except TooSlowError as error:
            counts = place.server.counts(settle=0)
            run = _result(Outcome(0), limit, counts, mount.usage(), before)
            mount.kill()
            return replace(run, value=None, problem=str(error))
        seconds = time.monotonic() - start
        run = _result(outcome, seconds, place.server.counts(), mount.usage(), before)
        if outcome.details.get("hung"):
            mount.kill()
        elif verify and row.verify is not None:
            return replace(run, wrong=_verified(row.verify, stage, mount))
        return run


def _verified(compare: Callable[[Stage], str], stage: Stage, mount: Mounted) -> str:
    """What is wrong with the bytes, or that nobody knows."""
    try:
        return bounded(lambda: compare(stage), VERIFY_TIMEOUT, mount.kill)
    except (TooSlowError, WorkFailedError) as error:
        return f"not compared: {error}"
