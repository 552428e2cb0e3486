"""Running the tools a row is about."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}


class WorkFailedError(Exception):
    """A tool failed in the mount; the message is what it said."""


def run(command: str | Sequence[str | Path], cwd: Path | None = None) -> tuple[float, bytes]:
    """Run to the end: seconds, and what it wrote to stdout. A str goes through bash.

    Raises:
        WorkFailedError: its status is not 0.
    """
    argv = ["bash", "-c", command] if isinstance(command, str) else command
    start = time.perf_counter()
    done = subprocess.run(
        argv, cwd=cwd, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        shown = said[-1] if said else f"status {done.returncode}"
        raise WorkFailedError(f"{argv[0]} failed ({len(said)} complaints): {shown}")
    return seconds, done.stdout


def difference(left: Path, right: Path) -> str:
    """The first line of `diff -r`; empty if the two are equal."""
    done = subprocess.run(["diff", "-rq", str(left), str(right)], capture_output=True, check=False)
    return done.stdout.decode(errors="replace").split("\n")[0] if done.returncode else ""
