"""The small version for CI, within a minute: a few rounds, and bounds on ratios alone.

A bound lies well beyond what is measured (docs/performance.md), so that a busy machine does not break it and a change
that makes something half as slow again does. Times depend on the machine and are not judged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from bench import fetch, join, save, start
from bench.figures import Goal, Row, Subject
from bench.lab import GO, OURS, TYPESCRIPT, Lab

ROUNDS = 3
MEASURES: Sequence[tuple[Callable[[Lab, int], Awaitable[Subject]], int]] = (
    (start.measure, ROUNDS),
    (join.measure, ROUNDS),
    (fetch.measure, ROUNDS),
    (save.measure, 2),
)
BOUNDS = {
    f"{OURS} / empty MCPServer, by round": Goal(1.4),
    f"{OURS} / {start.NPX}, by round": Goal(1.5),
    "tailscale_status / in memory, by round": Goal(3),
    f"1 KiB, keep-alive: {OURS} / {TYPESCRIPT}, by round": Goal(2),
    f"1 KiB, keep-alive: {OURS} / {GO}, by round": Goal(12),
    f"{OURS} / {GO}, by round": Goal(0.35, "at least"),
}
# What is not there where the server in TypeScript could not be installed.
OPTIONAL = {name for name in BOUNDS if TYPESCRIPT in name or start.NPX in name}


async def measure(lab: Lab) -> list[Row]:
    """The rows that have a bound, judged by it. Raises LookupError if one was not measured."""
    found: dict[str, Row] = {}
    for subject, rounds in MEASURES:
        found |= {row.name: row for row in (await subject(lab, rounds)).rows}
    missing = set(BOUNDS) - set(found) - (OPTIONAL if lab.typescript is None else set())
    if missing:
        raise LookupError(f"nothing measures {', '.join(sorted(missing))}")
    return [replace(found[name], goal=bound) for name, bound in BOUNDS.items() if name in found]
