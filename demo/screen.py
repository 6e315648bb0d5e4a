"""What the demo looks like: at most 80 columns, in colour on a terminal, as plain text anywhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

COLUMNS = 80
INDENT = 3
# Of facts: so that those of one step, shown one after the other, stand in line.
NAME_COLUMNS = 8


class Screen:
    """Prints as things happen. What is shown may come from a program or a peer: no text is taken for markup."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows "?" where it lacks a sign
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._console.width = min(COLUMNS, self._console.width)

    def title(self, name: str, about: str) -> None:
        self._print(Text(name, style="bold"), 0)
        self._print(Text(about), 0)

    def step(self, number: int, title: str) -> None:
        self._print(Text(f"\n{number}. {title}", style="bold cyan"), 0)

    def note(self, text: str) -> None:
        self._print(Text(text))

    def command(self, who: str, text: str) -> None:
        """Something that a person, or that person's Claude, would write."""
        self._print(Text(f"{who}> {text}", style="bold"))

    def progress(self, text: str) -> None:
        self._print(Text(f"… {text}", style="dim"), 2 * INDENT)

    def facts(self, facts: Mapping[str, str]) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=NAME_COLUMNS)
        for name, value in facts.items():
            table.add_row(Text(name, style="dim"), Text(value))
        self._print(table, 2 * INDENT)

    def quote(self, text: str) -> None:
        """An answer as the model reads it."""
        for line in text.rstrip().splitlines():
            table = Table.grid(padding=(0, 1))
            table.add_row(Text("|", style="dim"), Text(line or " "))
            self._print(table, 2 * INDENT)

    def refusal(self, text: str) -> None:
        table = Table.grid(padding=(0, 1))
        table.add_row(Text("refused:", style="yellow"), Text(text))
        self._print(table, 2 * INDENT)

    def done(self, text: str) -> None:
        self._print(Text(f"ok: {text}", style="green"))

    def failed(self, text: str, log: str = "") -> None:
        self._print(Text(f"FAILED: {text}", style="bold red"))
        if log:
            self.note("The last that cc-tailscale wrote to its log:")
            self.quote(log)

    def end(self, text: str, *, good: bool) -> None:
        self._print(Text(f"\n{text}", style="bold green" if good else "bold red"), 0)

    def _print(self, what: Text | Table, indent: int = INDENT) -> None:
        with self._console.capture() as printed:
            self._console.print(Padding(what, (0, 0, 0, indent), expand=False))
        for line in printed.get().splitlines():
            print(line.rstrip(), flush=True)  # noqa: T201 - rich fills each line up with blanks
