"""Keeps out the programs that walk every filesystem of a machine for an index of their own.

`updatedb` and desktop indexers would list, and some of them read, a whole bucket each day.
A program is known by its name in /proc: that of the thread that asks, or of its process. It
is looked at when a directory is opened, and nowhere else: a walk ends there.

A name is no protection, only a convenience: whoever renames a program gets in.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import trio

log = logging.getLogger(__name__)

# TASK_COMM_LEN of the kernel, without its NUL.
COMM_MAX = 15
# Seconds for which a process is taken for what it was. Reading /proc takes 20 us; a
# number may be another's some time, and exec(2) changes what a process is.
REMEMBERED = 1.0
KEPT = 256


class Crawlers:
    """Tells which processes to keep out, and logs each name once."""

    def __init__(self, names: Collection[str], proc: Path = Path("/proc")) -> None:
        self._names = {name[:COMM_MAX]: name for name in names}
        self._proc = proc
        self._known: dict[int, tuple[float, bool]] = {}
        self._told: set[str] = set()

    def is_one(self, pid: int) -> bool:
        """Whether the process (or thread) is to be kept out.

        0, a process of another PID namespace, is not.
        """
        if not self._names or not pid:
            return False
        now = trio.current_time()
        until, verdict = self._known.get(pid, (now, False))
        if until <= now:
            verdict = self._look(pid)
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[pid] = (now + REMEMBERED, verdict)
        return verdict

    def _look(self, pid: int) -> bool:
        for name in (self._comm(pid), self._comm(self._process(pid))):
            if name in self._names:
                if name not in self._told:
                    self._told.add(name)
                    log.info(
                        "kept out %s (process %d), which walks whole filesystems; see --keep-out",
                        self._names[name],
                        pid,
                    )
                return True
        return False

    def _comm(self, pid: int) -> str:
        try:
            return (self._proc / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
        except OSError:  # it has ended, or /proc hides it
            return ""

    def _process(self, tid: int) -> int:
        """The process that a thread belongs to."""
        try:
            status = (self._proc / str(tid) / "status").read_text(errors="replace")
        except OSError:
            return tid
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return int(fields.get("Tgid", tid))
