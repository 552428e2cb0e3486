"""The results as tables for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.measure import OURS, Run
from benchmarks.report import Result, best_peer, median, shown

FAULTS, STREAM = "faults", "seq"


def _lines(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    table = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)


def _problem(runs: Sequence[Run]) -> str:
    """That it took too long, as "> 20 s", or failed."""
    problem = next((run.problem for run in runs if run.problem), "")
    return problem if problem.startswith(">") else "fails"


def _middle(runs: Sequence[Run]) -> Run:
    """The run whose figure is nearest to the median."""
    value = median(runs)
    done = [run for run in runs if run.value is not None] or list(runs)
    return min(done, key=lambda run: abs((run.value or 0) - (value or 0)))


def _figure(result: Result, name: str, best: set[str]) -> str:
    """The median with its requests, the best in bold; a run that is no good says so."""
    runs = result.programs.get(name)
    if not runs:
        return ""
    value = median(runs)
    if value is None:
        return _problem(runs)
    figure = f"{shown(value)} {result.row.unit}"
    text = f"**{figure}**" if name in best else figure
    asked = sum(_middle(runs).requests.values())
    wrong = ", wrong" if any(run.wrong for run in runs) else ""
    return f"{text}, {asked:,} R{wrong}"


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
    return ", ".join(
        f"{shown(value)} {result.row.unit} ({name})"
        for name, runs in result.limits.items()
        if (value := median(runs)) is not None
    )


def _handed(runs: Sequence[Run]) -> str:
    """Operations under a fault, and whatever readers should never be handed."""
    value = median(runs)
    if value is None:
        return _problem(runs)
    details = _middle(runs).details
    bad = [
        f"{details[kind]:.0f} {kind}"
        for kind in ("wrong", "mixed", "short", "errors", "hung")
        if details.get(kind)
    ]
    return ", ".join([shown(value), *bad])


def _cost(runs: Sequence[Run]) -> list[str]:
    middle = _middle(runs)
    rss = max(run.peak_rss for run in runs) / 2**20
    return [f"{rss:.0f} MiB", f"{middle.cpu:.2f} s", f"${middle.dollars:.6f}"]


def document(about: Mapping[str, Any], results: Sequence[Result]) -> str:
    """The figures, what each run cost, and what readers are handed under faults."""
    programs = [
        name for name in about["programs"] if any(name in result.programs for result in results)
    ]
    calm = [result for result in results if result.row.group != FAULTS]
    struck = [result for result in results if result.row.group == FAULTS]
    said = f"{about['date'][:10]}, {about['cpus']} CPUs, Linux {about['kernel'].split('-')[0]}"
    said += f", Python {about['python']}. `{about['command']}`, medians of {about['runs']};"
    said += f" R: requests; other programs are ended after {about['limit']:.0f} s."
    parts = [
        said,
        _lines(
            ["work", *programs, "bare client, or local"],
            (
                [
                    result.row.title,
                    *(_figure(result, name, _best(result)) for name in programs),
                    _limits(result),
                ]
                for result in calm
            ),
        ),
    ]
    if calm:
        costs = (
            [result.row.title, name, *_cost(runs)]
            for result in calm
            for name, runs in result.programs.items()
            if median(runs) is not None and (name == OURS or result.row.name == STREAM)
        )
        parts.append(_lines(["work", "program", "peak memory", "CPU", "requests cost"], costs))
    if struck:
        handed = (
            [
                f"{result.row.title}, {result.row.unit}",
                *(_handed(result.programs.get(name, [])) if name in result.programs else ""
                  for name in programs),
            ]
            for result in struck
        )  # fmt: skip
        parts.append(_lines(["fault", *programs], handed))
    return "\n\n".join(parts)
