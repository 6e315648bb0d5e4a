"""`python -m bench [SUBJECT ...]`: measures, prints a table per subject, and writes JSON and a page if asked.

A goal that is missed is printed as MISSED; the exit code says only whether everything could be measured. With `--check`
it says whether a ratio is worse than its bound (bench/check.py).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench import (
    agents,
    check,
    fetch,
    footprint,
    forward,
    growth,
    join,
    lookup,
    members,
    memory,
    parallel,
    save,
    size,
    start,
    stop,
    teams,
    throughput,
)
from bench.figures import Subject
from bench.lab import Lab
from bench.page import write_page
from bench.report import Report

SUBJECTS: dict[str, Callable[[Lab, int], Awaitable[Subject]]] = {
    "start": start.measure,
    "join": join.measure,
    "fetch": fetch.measure,
    "parallel": parallel.measure,
    "throughput": throughput.measure,
    "save": save.measure,
    "forward": forward.measure,
    "lookup": lookup.measure,
    "memory": memory.measure,
    "footprint": footprint.measure,
    "messages": agents.measure_messages,
    "agents": agents.measure_agents,
    "teams": teams.measure,
    "stop": stop.measure,
    "size": size.measure,
    "peers": growth.measure_peers,
    "crowd": growth.measure_agents,
    "members": members.measure,
}
LEFT_OUT = (
    "the MCP server in TypeScript: its packages are not here (`nox -s bench` installs them from the npm registry)."
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures cc-tailscale beside its peers.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"one of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds, interleaved (default: 10)")
    parser.add_argument("--check", action="store_true", help="a short run that fails when a ratio is beyond its bound")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables there, and plots beside it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args(argv)
    unknown = [name for name in options.subjects if name not in SUBJECTS]
    if unknown or options.rounds < 1:
        parser.error(f"there is no subject {unknown[0]}" if unknown else "at least one round is needed")
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error("needs Linux: it reads /proc")
    if options.check:
        return asyncio.run(_check())
    report = Report(options.rounds)
    asyncio.run(_measure(options.subjects or list(SUBJECTS), options.rounds, report))
    document = report.to_json()
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.page:
        write_page(document, options.page)
    return 0


async def _measure(names: Sequence[str], rounds: int, report: Report) -> None:
    report.begin()
    with Lab.opened() as lab:
        if lab.typescript is None:
            report.leave_out(LEFT_OUT)
        for name in names:
            print(f"measuring {name} (load average {os.getloadavg()[0]:.1f}) …", file=sys.stderr)
            report.add(await SUBJECTS[name](lab, rounds))
    report.end()


async def _check() -> int:
    with Lab.opened() as lab:
        if lab.typescript is None:
            print(f"LEFT OUT: {LEFT_OUT}")
        rows = await check.measure(lab)
    for row in rows:
        print(f"{'ok' if row.met else 'WORSE'}: {row.name}: {row.median:.2f}, bound {row.goal}")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
