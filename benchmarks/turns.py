"""Whose turn it is: who does a row, in which order, and who need not do it again.

Runs are spent where they decide. What failed or was ended at the limit is not waited for again, and
a program that was far from the best in its first run is not asked for a second one. s3mount has all
its runs. Knows nothing of mounts: only rows, programs and what their runs came to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.measure import OURS, Run
from benchmarks.programs import Program
from benchmarks.report import gain
from benchmarks.rows import Row

SETTLED = 1.25
"""So many times from the best, one run says enough."""


def takes_part(program: Program, row: Row, named: bool) -> bool:
    """Whether the program does this row; `named`: the row was asked for by its own name."""
    if program.name == OURS:
        return True
    if row.mount_options or (row.disk_cache and not program.has_disk_cache):
        return False
    return row.with_peers or named


def runs_of(row: Row, runs: int) -> int:
    """How often the row is done where `runs` were asked for."""
    return min(runs, row.runs or runs)


def order(programs: Sequence[Program], number: int) -> list[Program]:
    """Each run begins with another program, so that none always follows the same one."""
    first = number % max(len(programs), 1)
    return [*programs[first:], *programs[:first]]


def runs_again(name: str, row: Row, done: Mapping[str, Sequence[Run]]) -> bool:
    """Whether the program has another run, after those that all programs had so far."""
    mine = done.get(name, ())
    if name == OURS or not mine:
        return True
    if mine[-1].value is None or mine[0].value is None:
        return False
    most = row.most_fetched or float("inf")
    firsts = [
        runs[0].value
        for runs in done.values()
        if runs and not runs[0].wrong and runs[0].fetched <= most
    ]
    return all(gain(row, value, mine[0].value) <= SETTLED for value in firsts if value is not None)


def not_before(done: Mapping[str, Sequence[Run]]) -> float:
    """The seconds after which another program may be ended: when s3mount would have been done."""
    return 1.1 * max((run.seconds for run in done.get(OURS, ())), default=0.0)
