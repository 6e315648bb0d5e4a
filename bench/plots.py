"""A subject as a picture: a box for each row, or lines for what grows."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# "devices, 5000 peers": a row of a series that grows.
GROWN = re.compile(r"^(?P<call>.+), (?P<size>\d+) (?P<of>[a-z]+)$")
# In the order in which a plot takes its unit; what compares or counts is in the table alone.
UNITS = ("ms", "MiB/s", "1/s", "MiB")
INCHES_WIDE = 8.5
INCHES_A_ROW = 0.28
# The same figures give the same bytes.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cc-tailscale",
    "font.size": 9,
    "font.family": "sans-serif",
}


def plotted(subject: dict[str, Any]) -> str:
    """The SVG of a subject of a report's JSON."""
    unit = next((unit for unit in UNITS if any(row["unit"] == unit for row in subject["rows"])), "")
    rows = [row for row in subject["rows"] if row["unit"] == unit]
    grown = [(found, row["median"]) for row in rows if (found := GROWN.match(row["name"]))]
    with mpl.rc_context(STYLE):
        figure = _lines(grown, unit) if grown else _boxes(rows, unit)
        written = io.StringIO()
        figure.savefig(written, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def _boxes(rows: list[dict[str, Any]], unit: str) -> Figure:
    figure = Figure(figsize=(INCHES_WIDE, 0.8 + INCHES_A_ROW * len(rows)))
    axes = figure.add_subplot()
    labels = [row["name"] for row in rows]
    axes.boxplot([row["samples"] for row in rows], orientation="horizontal", tick_labels=labels, sym=".", widths=0.6)
    axes.invert_yaxis()
    least = min((min(row["samples"]) for row in rows), default=0)
    if least > 0 and max(max(row["samples"]) for row in rows) > 50 * least:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    axes.grid(axis="x", alpha=0.4)
    return figure


def _lines(grown: list[tuple[re.Match[str], float]], unit: str) -> Figure:
    figure = Figure(figsize=(INCHES_WIDE, 4.5))
    axes = figure.add_subplot()
    calls: dict[str, list[tuple[int, float]]] = {}
    for found, median in grown:
        calls.setdefault(found["call"], []).append((int(found["size"]), median))
    for name, points in calls.items():
        sizes, medians = zip(*sorted(points), strict=True)
        axes.plot(sizes, medians, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(grown[0][0]["of"])
    axes.set_ylabel(unit)
    axes.grid(alpha=0.4)
    axes.legend()
    return figure
