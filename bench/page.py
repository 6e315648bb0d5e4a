"""docs/performance.md: from the JSON of a run, its tables and a plot for each subject."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.figures import number

FIGURES = "performance"  # the folder beside the page, with the plots and the JSON
INTRODUCTION = """# Performance

cc-tailscale beside what a user would run in its place, on the same local tailnet, against the same peer, in one run, in
turns. `nox -s bench` makes this page; all samples are in [{json}]({json}).

| | |
|---|---|
| cc-tailscale | this MCP server, with the node in its process |
| TypeScript + helper | an MCP server on the official SDK, socks-proxy-agent, a Go helper with SOCKS and a control API |
| tailscaled + curl | Tailscale's daemon in userspace mode with its SOCKS port, and curl |
| bare tsnet | a Go program that fetches by itself: the floor |
| empty MCPServer | a server without tools on the Python SDK |

All share one machine: what a figure is worth is its ratio to the one beside it, and that is taken round by round. The
server in TypeScript is in `bench/baseline`, its helper and the bare program in `libtailscale/baseline`.

Measured {measured} with {platform}, {cpus} CPUs, Python {python}, cc-tailscale {version}, {rounds} rounds; load average
{load}.
"""


def write_page(document: dict[str, Any], file: Path) -> None:
    """Writes the page, and beside it its plots and the JSON."""
    folder = file.parent / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(document, indent=1) + "\n")
    from bench.plots import plotted  # with matplotlib, which nothing else needs

    for subject in document["subjects"]:
        (folder / f"{subject['name']}.svg").write_text(plotted(subject))
    file.write_text(page(document))


def page(document: dict[str, Any]) -> str:
    """The page of a report's JSON."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: dict[str, Any]) -> Iterator[str]:
    loads = document["load_average"]
    words = document | {"json": f"{FIGURES}/figures.json", "load": f"{min(loads):.1f} to {max(loads):.1f}"}
    yield INTRODUCTION.format(**words)
    if document["left_out"]:
        yield f"**Left out:** {document['left_out']}\n"
    yield from _goals(document)
    for subject in document["subjects"]:
        yield f"\n## {subject['name']}\n\n{subject['about']}\n"
        yield f"![{subject['name']}]({FIGURES}/{subject['name']}.svg)\n"
        yield "| what | median | q1 - q3 | worst | unit | goal | |\n|---|---:|---:|---:|---|---|---|"
        for row in subject["rows"]:
            yield _row(row)


def _goals(document: dict[str, Any]) -> Iterator[str]:
    judged = [(subject["name"], row) for subject in document["subjects"] for row in subject["rows"] if row["goal"]]
    missed = [(name, row) for name, row in judged if not row["goal"]["met"]]
    yield f"## Goals\n\n{len(judged) - len(missed)} of {len(judged)} goals are met.\n"
    for name, row in missed:
        yield f"- **missed**: {name}, {row['name']}: {number(row['median'])} {row['unit']}, goal {row['goal']['text']}"


def _row(row: dict[str, Any]) -> str:
    goal = row["goal"]
    many = len(row["samples"]) > 1
    worst = row["min"] if row["unit"] in {"MiB/s", "1/s"} or (goal and goal["kind"] == "at least") else row["max"]
    cells = [
        row["name"],
        number(row["median"]),
        f"{number(row['q1'])} - {number(row['q3'])}" if many else "",
        number(worst) if many else "",
        row["unit"],
        goal["text"] if goal else "",
        ("met" if goal["met"] else "**missed**") if goal else "",
    ]
    return f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in cells)} |"
