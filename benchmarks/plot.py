"""The results as one picture: a panel per row, a bar per program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report import OURS, Result, median, shown

COLUMNS = 4
COLOURS = {OURS: "#d1495b"}
PEER, LIMIT = "#7d8597", "#c9d6df"


def draw(path: Path, results: Sequence[Result]) -> None:
    """Write a PNG. A program that did not come to an end has no bar but a word."""
    mpl.use("Agg")
    lines = math.ceil(len(results) / COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.3 * lines), layout="constrained", dpi=110)
    panels = figure.subplots(lines, COLUMNS, squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    for panel, result in zip(panels.flat, results, strict=False):
        panel.set_visible(True)
        entries = [*result.programs.items(), *result.limits.items()]
        names = [name for name, _ in entries]
        values = [median(runs) for _, runs in entries]
        colours = [COLOURS.get(name, PEER if name in result.programs else LIMIT) for name in names]
        panel.barh(names, [value or 0.0 for value in values], color=colours)
        for place, (value, (_, runs)) in enumerate(zip(values, entries, strict=True)):
            problem = next((run.problem for run in runs if run.problem), "")
            wrong = ", WRONG" if any(run.wrong for run in runs) else ""
            label = f" {shown(value)}" if value is not None else f" {problem[:28]}"
            panel.text(0 if value is None else value, place, label + wrong, va="center", fontsize=7)
        panel.invert_yaxis()
        panel.margins(x=0.18)
        better = "more is better" if result.row.higher_is_better else "less is better"
        panel.set_title(f"{result.row.title}\n{result.row.unit}, {better}", fontsize=8)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
