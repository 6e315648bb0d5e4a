"""The figures as tables on stdout, and as JSON."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

from rich.box import ASCII2, ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.figures import Row, Subject, number
from cctailscale import __version__

# What the tables need; a terminal that is narrower wraps inside the cells.
PLAIN_COLUMNS = 120


class Report:
    """Shows each subject as it comes, and keeps it."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._left_out: str | None = None
        self._subjects: list[Subject] = []
        self._loads: list[float] = []
        self._console = Console(highlight=False, markup=False, emoji=False)
        if not self._console.is_terminal:
            self._console.width = PLAIN_COLUMNS

    def begin(self) -> None:
        self._loads.append(os.getloadavg()[0])
        about = (
            f"cc-tailscale {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
        )
        self._console.print(
            f"{about}, {os.cpu_count()} CPUs, {self._rounds} rounds, load average {self._loads[0]:.1f} at the beginning"
        )

    def leave_out(self, what: str) -> None:
        """Says what could not be measured, and why."""
        self._left_out = what
        self._console.print(Text(f"LEFT OUT: {what}", style="yellow"))

    def add(self, subject: Subject) -> None:
        self._subjects.append(subject)
        self._loads.append(os.getloadavg()[0])
        table = Table(
            box=ROUNDED if self._console.is_terminal else ASCII2,
            title=subject.name,
            title_justify="left",
            caption=subject.about,
            caption_justify="left",
        )
        table.add_column("what", overflow="fold")
        for heading in ("median", "q1 - q3", "p95", "max"):
            table.add_column(heading, justify="right")
        table.add_column("unit")
        table.add_column("goal")
        table.add_column("verdict")
        for row in subject.rows:
            table.add_row(*_cells(row))
        self._console.print()
        self._console.print(table)

    def end(self) -> None:
        missed = self.missed
        judged = sum(row.met is not None for s in self._subjects for row in s.rows)
        self._console.print(
            f"\n{judged - len(missed)} of {judged} goals met; load average {os.getloadavg()[0]:.1f} at the end"
        )
        for name in missed:
            self._console.print(Text(f"MISSED {name}", style="red"))

    @property
    def missed(self) -> list[str]:
        """Every goal that was missed, by name."""
        return [f"{s.name}: {row.name}" for s in self._subjects for row in s.rows if row.met is False]

    def to_json(self) -> dict[str, Any]:
        """Everything, with every sample."""
        return {
            "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "version": __version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "load_average": [round(load, 2) for load in self._loads],
            "rounds": self._rounds,
            "left_out": self._left_out,
            "subjects": [
                {"name": s.name, "about": s.about, "rows": [row.to_json() for row in s.rows]} for s in self._subjects
            ],
        }


def _cells(row: Row) -> list[Text]:
    style = {None: "", True: "green", False: "bold red"}[row.met]
    many = len(row.samples) > 1
    return [
        Text(row.name),
        Text(number(row.median)),
        Text(f"{number(row.percentile(25))} - {number(row.percentile(75))}" if many else ""),
        Text(number(row.percentile(95)) if many else ""),
        Text(number(max(row.samples)) if many else ""),
        Text(row.unit),
        Text(str(row.goal or "")),
        Text(row.verdict, style=style),
    ]
