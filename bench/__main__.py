"""`python -m bench [SUBJECT ...]`: measures, prints a table per subject and writes JSON if asked.

A goal that is missed is printed as MISSED; the exit code says only whether everything could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench import agents, fetch, forward, growth, join, lookup, memory, save, start, stop, teams, throughput
from bench.figures import Subject
from bench.lab import Lab
from bench.report import Report

SUBJECTS: dict[str, Callable[[Lab, int], Awaitable[Subject]]] = {
    "start": start.measure,
    "join": join.measure,
    "fetch": fetch.measure,
    "throughput": throughput.measure,
    "save": save.measure,
    "forward": forward.measure,
    "lookup": lookup.measure,
    "memory": memory.measure,
    "messages": agents.measure_messages,
    "agents": agents.measure_agents,
    "teams": teams.measure,
    "growth": growth.measure,
    "stop": stop.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures cc-tailscale beside its peers.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"one of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds, interleaved (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args(argv)
    unknown = [name for name in options.subjects if name not in SUBJECTS]
    if unknown or options.rounds < 1:
        parser.error(f"there is no subject {unknown[0]}" if unknown else "at least one round is needed")
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error("needs Linux: it reads /proc")
    report = Report(options.rounds)
    asyncio.run(_measure(options.subjects or list(SUBJECTS), options.rounds, report))
    if options.json:
        options.json.write_text(report.to_json())
    return 0


async def _measure(names: Sequence[str], rounds: int, report: Report) -> None:
    report.begin()
    with Lab.opened() as lab:
        for name in names:
            print(f"measuring {name} (load average {os.getloadavg()[0]:.1f}) …", file=sys.stderr)
            report.add(await SUBJECTS[name](lab, rounds))
    report.end()


if __name__ == "__main__":
    sys.exit(main())
