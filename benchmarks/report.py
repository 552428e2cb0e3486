"""The results as tables of plain text, as JSON, and as a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import OURS, Run
from benchmarks.programs import PROGRAMS
from benchmarks.rows import ROWS, Row

CALM = "fault-none"


@dataclass(slots=True)
class Result:
    """The runs of one row, by program and by limit."""

    row: Row
    programs: dict[str, list[Run]] = field(default_factory=dict)
    limits: dict[str, list[Run]] = field(default_factory=dict)


def median(runs: Sequence[Run]) -> float | None:
    """Of the runs that came to an end, if they are more than half."""
    values = [run.value for run in runs if run.value is not None]
    return statistics.median(values) if len(values) * 2 > len(runs) else None


def best_peer(result: Result) -> tuple[str, float] | None:
    """The best of the others, by its median, among those that did the work and did it right."""
    most = result.row.most_fetched
    peers = {
        name: value
        for name, runs in result.programs.items()
        if name != OURS
        and (value := median(runs)) is not None
        and not any(run.wrong or (most and run.fetched > most) for run in runs)
    }
    if not peers:
        return None
    choose = max if result.row.higher_is_better else min
    name = choose(peers, key=lambda peer: peers[peer])
    return name, peers[name]


def gain(row: Row, ours: float, other: float) -> float:
    """How many times as good ours is."""
    if row.higher_is_better:
        return ours / other if other else float("inf")
    return other / ours if ours else float("inf")


def shown(value: float) -> str:
    """Three digits, or all those before the point."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _cell(runs: Sequence[Run]) -> str:
    value = median(runs)
    if value is None:
        return next((run.problem for run in runs if run.problem), "?")[:24]
    wrong = " WRONG" if any(run.wrong for run in runs) else ""
    return shown(value) + wrong + (" hangs" if any(run.details.get("hung") for run in runs) else "")


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [list(header), *(list(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def _calm(results: Sequence[Result]) -> Mapping[str, float]:
    """What each program does without faults."""
    return {
        name: value
        for result in results
        if result.row.name == CALM
        for name, runs in result.programs.items()
        if (value := median(runs))
    }


def summary(results: Sequence[Result], programs: Sequence[str]) -> str:
    """One line per row: medians, and s3mount's figure as a multiple of the best others'."""
    calm = _calm(results)

    def cell(result: Result, name: str) -> str:
        runs = result.programs.get(name)
        if runs is None:
            return ""
        value = median(runs)
        if result.row.unit != "ops" or value is None or name not in calm:
            return _cell(runs)
        return f"{_cell(runs)}, {value / calm[name]:.2f} of calm"

    def against(row: Row, ours: float | None, name: str, runs: Sequence[Run]) -> str:
        value = median(runs)
        times = f" ({gain(row, ours, value):.2f})" if ours and value else ""
        return f"{name} {_cell(runs)}{times}"

    def line(result: Result) -> list[str]:
        ours, peer = median(result.programs.get(OURS, [])), best_peer(result)
        limits = [against(result.row, ours, name, runs) for name, runs in result.limits.items()]
        return [
            f"{result.row.title}, {result.row.unit}",
            *(cell(result, name) for name in programs),
            f"{gain(result.row, ours, peer[1]):.2f} ({peer[0]})" if ours and peer else "",
            ", ".join(limits),
            result.row.reach,
        ]

    header = ["work, unit", *programs, "x best peer", "limit (x)", "to reach"]
    return _table(header, [line(result) for result in results])


def kinds(requests: Mapping[str, int]) -> str:
    """Their numbers, as "1000 GET 2 LIST"."""
    return " ".join(f"{number} {kind}" for kind, number in sorted(requests.items())) or "0"


def middle(runs: Sequence[Run]) -> Run:
    """The run whose figure is nearest to the median."""
    value = median(runs)
    done = [run for run in runs if run.value is not None] or list(runs)
    return min(done, key=lambda run: abs((run.value or 0) - (value or 0)))


def _detail_line(name: str, runs: Sequence[Run]) -> list[str]:
    """The run whose figure is the median stands for its requests; the worst for its memory."""
    typical = middle(runs)
    values = [run.value for run in runs if run.value is not None]
    spread = f"{shown(min(values))}-{shown(max(values))}" if values else ""
    more = [f"{key} {shown(number)}" for key, number in typical.details.items() if number]
    if typical.items and typical.value is not None:
        each = f"{typical.requests_each:.3g} requests, {shown(typical.kib_each)} KiB"
        more.insert(0, f"{each} for each of {typical.items:,}")
    more += sorted({f"WRONG: {run.wrong}" for run in runs if run.wrong})
    more += sorted({run.problem for run in runs if run.problem})
    return [
        name,
        _cell(runs),
        spread,
        kinds(typical.requests),
        f"{typical.fetched / 1e6:.1f}",
        f"{max(run.peak_rss for run in runs) / 2**20:.0f}",
        f"{typical.cpu:.2f}",
        f"{typical.dollars:.6f}",
        "; ".join(more)[:120],
    ]


def details(results: Sequence[Result]) -> str:
    """For each row a table: requests by kind, bytes, memory, CPU, dollars."""
    parts: list[str] = []
    for result in results:
        header = [
            result.row.unit,
            *("median", "range", "requests", "MB", "RSS MiB", "CPU s", "dollars", "more"),
        ]
        lines = [_detail_line(name, runs) for name, runs in result.programs.items()]
        lines += [_detail_line(name, runs) for name, runs in result.limits.items()]
        parts.append(f"{result.row.name}: {result.row.title}\n\n" + _table(header, lines))
    return "\n\n".join(parts)


def write_json(path: Path, about: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Every run of every row."""
    rows = [
        {
            "row": result.row.name,
            "title": result.row.title,
            "unit": result.row.unit,
            "higher_is_better": result.row.higher_is_better,
            **{
                kind: {
                    name: {"median": median(runs), "runs": [asdict(run) for run in runs]}
                    for name, runs in measured.items()
                }
                for kind, measured in (("programs", result.programs), ("limits", result.limits))
            },
        }
        for result in results
    ]
    path.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def read_json(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """What `write_json` wrote: about the run, and the results of rows that there still are."""
    data = json.loads(path.read_text())
    known = {row.name: row for row in ROWS}
    results = []
    for entry in data["rows"]:
        if entry["row"] in known:
            measured = (
                {name: [Run(**run) for run in found["runs"]] for name, found in entry[kind].items()}
                for kind in ("programs", "limits")
            )
            results.append(Result(known[entry["row"]], *measured))
    return data["about"], results


Results = tuple[dict[str, Any], list[Result]]


def join(before: Results | None, now: Results) -> Results:
    """The results of two times: of a row and program that both have, those of now."""
    if before is None:
        return now
    (about, earlier), (about_now, later) = before, now
    rows = {result.row.name: result for result in earlier}
    for result in later:
        old = rows.get(result.row.name, Result(result.row))
        programs, limits = old.programs | result.programs, old.limits | result.limits
        rows[result.row.name] = Result(result.row, programs, limits)
    took_part = {*about["programs"], *about_now["programs"]}
    joined = {
        **about_now,
        "programs": [name for name in PROGRAMS if name in took_part],
        "versions": about["versions"] | about_now["versions"],
        "commands": list(dict.fromkeys([*about["commands"], *about_now["commands"]])),
    }
    return joined, [rows[row.name] for row in ROWS if row.name in rows]
