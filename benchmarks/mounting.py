"""A mounted program: started in the foreground, watched, and ended whatever state it is in."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import ACCESS_KEY, SECRET_KEY, Program, Target

USABLE_TIMEOUT = 30.0
UNMOUNT_TIMEOUT = 5.0
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class MountError(Exception):
    """The program is not installed, ended, or did not become usable; the message says which."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and its descendants."""

    peak_rss: int
    """Bytes: the sum of each process's peak."""
    cpu: float
    """Seconds, user and system."""


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def usage(pid: int) -> Usage:
    """Of the process `pid` and its living descendants; zeros when it is gone."""
    rss, ticks = 0, 0
    for process in _descendants(pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process}/status").read_text()
            rss += next(
                (int(line.split()[1]) for line in status.splitlines() if line[:6] == "VmHWM:"), 0
            )
            # Fields 14 to 17 of proc(5): user and system time, its own and its dead children's.
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(int(field) for field in fields[11:15])
    return Usage(rss * 1024, ticks / _CLOCK_TICKS)


def resident(pid: int) -> int:
    """Bytes of memory that the process `pid` and its descendants have now."""
    pages = 0
    for process in _descendants(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_mounted(mountpoint: Path) -> bool:
    """Whether the kernel has a mount there. Asks the filesystem nothing, so it cannot hang."""
    mounts = Path("/proc/self/mounts").read_text()
    return any(line.split(" ")[1] == str(mountpoint) for line in mounts.splitlines())


def _run_briefly(*argv: str, seconds: float = UNMOUNT_TIMEOUT) -> bool:
    """Whether it succeeds in time. One that is stuck in a mount is not waited for."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return process.wait(timeout=seconds) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        return False


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-3:]) or "it said nothing"


@dataclass(slots=True)
class Mounted:
    """A mount that is usable; see `mounted`."""

    process: subprocess.Popen[bytes]
    target: Target
    log: Path
    usable_after: float
    """Seconds from the start of the program until a stat of the mountpoint was answered."""

    def usage(self) -> Usage:
        """So far."""
        return usage(self.process.pid)

    def resident(self) -> int:
        """Bytes of memory now."""
        return resident(self.process.pid)

    def kill(self) -> None:
        """Let go of whoever is stuck in the mount: without its daemon the kernel answers."""
        for pid in reversed(_descendants(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=UNMOUNT_TIMEOUT)
        if is_mounted(self.target.mountpoint):
            # Forced, it answers also for a daemon that waits for itself.
            _run_briefly("umount", "-l", "-f", str(self.target.mountpoint))


def _wait_usable(process: subprocess.Popen[bytes], target: Target, log: Path) -> None:
    deadline = time.monotonic() + USABLE_TIMEOUT
    while not is_mounted(target.mountpoint):
        if process.poll() is not None:
            raise MountError(f"ended with status {process.returncode}: {_tail(log)}")
        if time.monotonic() > deadline:
            raise MountError(f"not mounted after {USABLE_TIMEOUT:.0f} s: {_tail(log)}")
        time.sleep(0.002)
    if not _run_briefly("stat", str(target.mountpoint), seconds=USABLE_TIMEOUT):
        raise MountError("mounted, but a stat of the root fails")


@contextlib.contextmanager
def mounted(program: Program, target: Target, log: Path) -> Iterator[Mounted]:
    """Mount, wait until it is usable, and unmount at the end: by force where that takes too long.

    Raises:
        MountError: it did not become usable.
    """
    binary = program.find()
    if binary is None:
        raise MountError(f"not installed: set ${program.variable} to its binary")
    if is_mounted(target.mountpoint):
        raise MountError(f"{target.mountpoint} is still mounted")
    target.mountpoint.mkdir(parents=True, exist_ok=True)
    target.cache_dir.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(target.cache_dir.parent),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **program.environment(target),
    }
    with log.open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            [binary, *program.command(target)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    mount = Mounted(process, target, log, 0.0)
    try:
        _wait_usable(process, target, log)
        mount.usable_after = time.monotonic() - start
        yield mount
        if process.poll() is None and _run_briefly("umount", str(target.mountpoint)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=UNMOUNT_TIMEOUT)
    finally:
        mount.kill()
