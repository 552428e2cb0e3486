"""The results as one picture for the README: a panel per work, a bar per program, log scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import OURS
from benchmarks.report import Result, median, shown

# What is shown, and what it is called: the rows that say most, in three columns.
PANELS: Mapping[str, str] = {
    "seq": "Stream of 1 GiB, cold",
    "disk-warm": "Stream of 1 GiB from the disk cache",
    "random-32": "Random reads of 4 KiB, 32 readers",
    "first-byte": "First byte of a file, directory not listed",
    "find-2000": "find, 200 directories of 10 files",
    "ls-5000": "ls -l, 5,000 files",
    "stat": "1,000 stats, directory not listed",
    "grep-1000": "grep -r, 1,000 files of 16 KiB",
    "tar": "tar c, 1,000 files of 16 KiB",
}
COLUMNS = 3
COLOURS = {OURS: "#d1495b"}
PEER, ENDED, LIMIT = "#8d99ae", "#bcc5d3", "#e3eaf1"
INK = "#333333"


def _entries(result: Result, programs: Sequence[str]) -> list[tuple[str, float | None, str, str]]:
    """Name, median, label and colour of each bar: the programs, then the limit that is nearest."""
    entries = []
    for name in programs:
        runs = result.programs.get(name)
        if runs is None:
            continue
        value = median(runs)
        problem = next((run.problem for run in runs if run.problem), "")
        colour = COLOURS.get(name, PEER)
        label = shown(value) if value is not None else "fails"
        if value is None and problem.startswith(">"):
            label = problem
            if result.row.unit == "s":  # the bar is at least so long
                value, colour = float(problem.strip("> s")), ENDED
        label += "  (wrong bytes)" if any(run.wrong for run in runs) else ""
        entries.append((name, value, label, colour))
    limits = {name: median(runs) for name, runs in result.limits.items()}
    found = [(name, value) for name, value in limits.items() if value is not None]
    choose = max if result.row.higher_is_better else min
    for name, value in [choose(found, key=lambda limit: limit[1])] if found else []:
        entries.append((name, value, shown(value), LIMIT))
    return entries


def _draw_panel(panel: Axes, result: Result, programs: Sequence[str]) -> None:
    entries = _entries(result, programs)
    values = [value for _, value, _, _ in entries if value]
    # A bar on a log scale begins somewhere: below the least, so that each one can be seen.
    low = min(values, default=1.0) / 2
    high = max(values, default=1.0)
    for place, (_, value, label, colour) in enumerate(entries):
        if value:
            panel.barh(place, value - low, left=low, color=colour, height=0.72)
        bold = "bold" if colour == COLOURS[OURS] else "normal"
        panel.annotate(
            label,
            (value or low, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
            fontweight=bold,
        )
    panel.set_xscale("log")
    # A third of the width is left for the label of the longest bar.
    panel.set_xlim(low, high * (high / low) ** 0.45)
    panel.set_yticks(range(len(entries)), [name for name, *_ in entries], fontsize=9, color=INK)
    panel.set_ylim(len(entries) - 0.4, -0.6)
    better = "more is better" if result.row.higher_is_better else "less is better"
    panel.set_title(
        f"{PANELS[result.row.name]}\n", fontsize=10.5, loc="left", color=INK, fontweight="bold"
    )
    panel.text(
        0, 1.03, f"{result.row.unit}, {better}", transform=panel.transAxes, fontsize=9, color=INK
    )
    panel.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)


def draw(path: Path, about: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Write a PNG of the rows in `PANELS` that were run, or nothing if none was."""
    by_name = {result.row.name: result for result in results}
    chosen = [by_name[name] for name in PANELS if name in by_name]
    if not chosen:
        return
    mpl.use("Agg")
    columns = min(COLUMNS, len(chosen))
    lines = -(-len(chosen) // columns)
    bars = max(len(_entries(result, about["programs"])) for result in chosen)
    figure = Figure(
        figsize=(4.4 * columns, (0.25 * bars + 0.8) * lines + 0.5), layout="constrained", dpi=100
    )
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    for panel, result in zip(panels.flat, chosen, strict=False):
        panel.set_visible(True)
        _draw_panel(panel, result, about["programs"])
    # Of the constrained layout; the stub tells of the base class alone.
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.supxlabel(
        f"Modelled S3: {about['model'].partition(', unless')[0]}. {about['cpus']} CPUs,"
        f" {about['date'][:10]}. Log scale.",
        fontsize=9,
        color=INK,
    )
    figure.savefig(path)
