"""What everyday commands ask that nobody thinks of as reading a bucket."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.rows.row import Outcome, Row, Stage

COMMANDS = {
    "ls --color": ("ls --color=always", 0),
    "test -e": ("test -e lib/package9/setup.py", 1),
    "completion": ("compgen -f nested/d01", 0),
    "python import": (f"PYTHONPATH=lib {sys.executable} -B -c 'import package7'", 0),
    # Looks for .git in every directory up to the mountpoint, which is a border.
    "git status": ("git -C work/src status 2>/dev/null", 128),
}
"""Each with the status that it ends with."""


def _everyday(stage: Stage) -> Outcome:
    """How many requests they are, one after the other, and how many when they are repeated."""
    asked: dict[str, float] = {}
    wrong = ""
    before = stage.server.counts().total
    for time in ("", " again"):
        for name, (command, status) in COMMANDS.items():
            done = subprocess.run(
                ["bash", "-c", command], cwd=stage.root, capture_output=True, check=False
            )
            if done.returncode != status:
                said = done.stderr.decode(errors="replace").strip().splitlines()
                wrong = f"{name}: {said[-1] if said else done.returncode}"
            total = stage.server.counts().total
            asked[name + time] = total - before
            before = total
    again = sum(number for name, number in asked.items() if name.endswith(" again"))
    first = sum(asked.values()) - again
    return Outcome(first, {**asked, "repeated": again}, wrong)


EVERYDAY = (
    Row("everyday", "everyday", ", ".join(COMMANDS), "requests", "everyday", _everyday, runs=1,
        patience=2, reach="none repeated"),
)  # fmt: skip
