"""The results as the section "Figures" of docs/performance.md, ready to paste.

One table of programs side by side, one of what the requests cost them, one of s3mount in every row,
and one of what readers are handed under faults. A table without lines is left out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.measure import OURS, Run
from benchmarks.report import CALM, Result, best_peer, gain, kinds, median, middle, shown

FAULTS, STREAM, SPEED = "faults", "seq", "MB/s"
PICTURE = "![s3mount beside other mount programs](performance.png)"
SAID = """\
Medians. R: requests. In bold the best, and what is within a twentieth of it. `> 5 s`: ended after
that time. Such a one, and one that was 1.25 times from the best, ran once."""
COSTS = "The requests of a run by S3's prices, in millionths of a dollar."
ALONE = """\
How many times as good s3mount is as the best of the others, and as the limit (above 1 is better);
its requests, their price, its peak memory and its CPU time."""
HANDED = """\
Six random readers on 90 objects whose every 16 bytes say whose they are; the fault strikes the
share of requests named. Operations done right, beside those without a fault; and what readers were
handed: bytes of another place or object (wrong), of two versions (mixed), less than asked for
(short; told: and the error at the next read, as read(2) may), errors. `hangs`: readers were stuck
ten seconds after the fault."""


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The table, if it has lines."""
    lines = list(lines)
    table = [header, ["---"] * len(header), *lines]
    return ["\n".join("| " + " | ".join(cells) + " |" for cells in table)] if lines else []


def _problem(runs: Sequence[Run]) -> str:
    """That it took too long, as "> 20 s", or failed."""
    problem = next((run.problem for run in runs if run.problem), "")
    return problem if problem.startswith(">") else "fails"


def _work(result: Result) -> str:
    return f"{result.row.title}, {result.row.unit}"


def _figure(result: Result, name: str, best: set[str]) -> str:
    """The median with its requests, the best in bold; a run that is no good says so."""
    runs = result.programs.get(name)
    if not runs:
        return ""
    value = median(runs)
    if value is None:
        return _problem(runs)
    text = f"**{shown(value)}**" if name in best else shown(value)
    wrong = ", wrong" if any(run.wrong for run in runs) else ""
    if result.row.most_fetched and middle(runs).fetched > result.row.most_fetched:
        wrong = f", {middle(runs).fetched / 1e6:,.0f} MB fetched{wrong}"
    if result.row.unit == "requests":
        return text + wrong
    return f"{text}, {sum(middle(runs).requests.values()):,} R{wrong}"


def _best(result: Result) -> set[str]:
    """The programs whose median is the best, or within a twentieth of it."""
    ours, peer = median(result.programs.get(OURS, [])), best_peer(result)
    values = {} if ours is None else {OURS: ours}
    values |= dict([peer]) if peer else {}
    if not values:
        return set()
    top = (max if result.row.higher_is_better else min)(values.values())
    return {name for name, value in values.items() if abs(value - top) <= 0.05 * top}


def _limits(result: Result) -> str:
    """The bare clients or local files."""
    return ", ".join(
        f"{shown(value)} ({name})"
        for name, runs in result.limits.items()
        if (value := median(runs)) is not None
    )


def _beside(results: Sequence[Result], programs: Sequence[str]) -> list[str]:
    """Programs side by side."""
    return _table(
        ["work", *programs, "bare client, or local"],
        (
            [
                _work(result),
                *(_figure(result, name, _best(result)) for name in programs),
                _limits(result),
            ]
            for result in results
            if set(result.programs) - {OURS}
        ),
    )


def _costs(results: Sequence[Result], programs: Sequence[str]) -> list[str]:
    """What the stream takes of the machine, and what the requests of each row cost."""

    def done(result: Result, name: str) -> Run | None:
        runs = result.programs.get(name, [])
        return None if median(runs) is None else middle(runs)

    lines = []
    for result in results:
        if not set(result.programs) - {OURS}:
            continue
        runs = [done(result, name) for name in programs]
        if result.row.name == STREAM:
            memory = (f"{run.peak_rss / 2**20:.0f} MiB" if run else "" for run in runs)
            lines.append([f"{result.row.title}: peak memory", *memory])
            cpu = (f"{run.cpu:.2f} s" if run else "" for run in runs)
            lines.append([f"{result.row.title}: CPU", *cpu])
        price = (f"{run.dollars * 1e6:,.0f}" if run else "" for run in runs)
        lines.append([f"{result.row.title}: requests", *price])
    return _table(["cost", *programs], lines)


def _times(result: Result, ours: float) -> str:
    """How many times as good as the best of the others."""
    peer = best_peer(result)
    return f"{gain(result.row, ours, peer[1]):.2f} ({peer[0]})" if peer else ""


def _shares(result: Result, ours: float) -> str:
    """How many times as good as the bare clients or local files."""
    return ", ".join(
        f"{gain(result.row, ours, value):.2f} ({name})"
        for name, runs in result.limits.items()
        if (value := median(runs)) is not None
    )


def _spread(runs: Sequence[Run]) -> str:
    values = [run.value for run in runs if run.value is not None]
    if len(values) < 2:
        return ""
    return f" ({shown(min(values))}-{shown(max(values))})"


def _asked(run: Run) -> str:
    """Requests by kind, and what of them falls on each file or read."""
    each = f"; {run.requests_each:.3g} and {shown(run.kib_each)} KiB each" if run.items else ""
    return kinds(run.requests) + each


def _cpu(result: Result, run: Run) -> str:
    """Seconds, for streams also by the gigabyte."""
    if result.row.unit != SPEED or not run.value:
        return f"{run.cpu:.2f} s"
    return f"{run.cpu:.2f} s, {run.cpu / (run.value * run.seconds / 1000):.2f} a GB"


def _alone(results: Sequence[Result]) -> list[str]:
    """s3mount in every row, with what it is to reach."""
    lines = []
    for result in results:
        runs = result.programs.get(OURS, [])
        value = median(runs)
        if value is None:
            if runs:
                lines.append([_work(result), _problem(runs), *[""] * 6, result.row.reach])
            continue
        run = middle(runs)
        wrong = ", wrong" if any(run.wrong for run in runs) else ""
        memory = max(run.peak_rss for run in runs) / 2**20
        lines.append(
            [
                _work(result),
                f"{shown(value)}{_spread(runs)}{wrong}",
                _times(result, value),
                _shares(result, value),
                _asked(run),
                f"{run.dollars:.6f}",
                f"{memory:.0f} MiB",
                _cpu(result, run),
                result.row.reach,
            ]
        )
    header = ["s3mount", "figure", "x best other", "x bare client, or local"]
    return _table([*header, "requests", "dollars", "memory", "CPU", "to reach"], lines)


def _handed(result: Result, runs: Sequence[Run], calm: float | None) -> str:
    """Operations under a fault, and whatever readers should never be handed."""
    value = median(runs)
    if not runs:
        return ""
    if value is None:
        return _problem(runs)
    details = middle(runs).details
    told = details.get("told by the next read")
    share = f" ({value / calm:.2f})" if calm and result.row.unit == "ops" else ""
    bad = [
        f"{details[kind]:.0f} {kind}" + (f" ({told:.0f} told)" if kind == "short" and told else "")
        for kind in ("wrong", "mixed", "short", "errors")
        if details.get(kind)
    ]
    hangs = ["hangs"] if details.get("hung") else []
    return ", ".join([shown(value) + share, *bad, *hangs])


def _longest(runs: Sequence[Run]) -> str:
    worst = [run.details["worst s"] for run in runs if "worst s" in run.details]
    return f"{max(worst):.1f} s" if worst else ""


def _faults(results: Sequence[Result], programs: Sequence[str]) -> list[str]:
    calm: Mapping[str, float | None] = {
        name: median(runs)
        for result in results
        if result.row.name == CALM
        for name, runs in result.programs.items()
    }
    return _table(
        ["fault", *programs, f"{OURS}: longest operation"],
        (
            [
                _work(result),
                *(
                    _handed(result, result.programs.get(name, []), calm.get(name))
                    for name in programs
                ),
                _longest(result.programs.get(OURS, [])),
            ]
            for result in results
        ),
    )


def _said(about: Mapping[str, Any]) -> list[str]:
    """When, where and how it was measured."""
    versions = [f"{name} {version}" for name, version in about["versions"].items() if name != OURS]
    machine = (
        f"{about['date'][:10]}, {about['cpus']} CPUs, Linux {about['kernel'].split('-')[0]},"
        f" Python {about['python']}{'; ' if versions else ''}{', '.join(versions)}. By"
    )
    commands = "\n".join(f"$ {command}" for command in about["commands"])
    wrapped = textwrap.fill(machine, 100, break_long_words=False, break_on_hyphens=False)
    return [wrapped, f"```console\n{commands}\n```", SAID]


def document(about: Mapping[str, Any], results: Sequence[Result]) -> str:
    """The figures, what they cost, s3mount alone, and what readers are handed under faults."""
    programs = [
        name for name in about["programs"] if any(name in result.programs for result in results)
    ]
    calm = [result for result in results if result.row.group != FAULTS]
    struck = [result for result in results if result.row.group == FAULTS]
    parts = ["## Figures", *_said(about), PICTURE, *_beside(calm, programs)]
    for title, explained, table in (
        ("What it costs", COSTS, _costs(calm, programs)),
        ("s3mount, row by row", ALONE, _alone(calm)),
        ("When the server fails, lies or changes", HANDED, _faults(struck, programs)),
    ):
        if table:
            parts += [f"### {title}", explained, *table]
    return "\n\n".join(parts)
