"""Where a command's output goes: the result to stdout, all else to stderr; with colour and a spinner on a terminal.

What is shown may have been chosen by a peer. Every text passes `visible`, which leaves nothing in it that a terminal
obeys, and no text is taken for rich's markup.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TextIO

import anyio
import anyio.to_thread
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cctailscale.commands.arguments import in_shell_words
from cctailscale.errors import UNPRINTABLE, CcTailscaleError
from cctailscale.redact import Redactor

# Off a terminal nothing is wrapped.
ENDLESS_COLUMNS = 100_000
# For the cursor to come back at the end, on a terminal that may take nothing any more.
LAST_SECONDS = 0.3
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def visible(text: str) -> str:
    """Text without what a terminal obeys: no control character but tab and line feed, no bidi or other format mark."""
    text = text.replace("\r\n", "\n")
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in UNPRINTABLE else REPLACEMENT for c in text)


async def apart(write: Callable[..., object], *arguments: object) -> None:
    """Writes in a thread, which is left to itself when cancelled: who does not read must not keep this from ending."""
    await anyio.to_thread.run_sync(partial(write, *arguments), abandon_on_cancel=True)


class Screen:
    """Both outputs of one command. Texts are redacted on their way out."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows "?" where it lacks a sign
        self._out, self._err = _console(sys.stdout), _console(sys.stderr)
        self.handler: logging.Handler = _Log(self)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the result as it is."""
        return self._out.is_terminal

    @property
    def lines(self) -> int:
        """How many the terminal has, now."""
        return self._out.height

    def taken(self, *parts: RenderableType) -> int:
        """How many lines these take on the terminal, which wraps what is too long."""
        return sum(len(self._out.render_lines(part, pad=False)) for part in parts)

    def text(self, text: str, style: str = "") -> Text:
        """A text to be shown, whoever chose it."""
        return Text(visible(self._redactor(text)), style)

    def result(self, *parts: RenderableType) -> None:
        """A part of the result, to stdout."""
        for part in parts:
            _print(self._out, part)

    def as_is(self, text: str) -> None:
        """A part of the result whose lines are its own; what is too long for the terminal, the terminal wraps."""
        if not text:
            return
        shown = visible(self._redactor(text))
        print(shown, end="" if shown.endswith("\n") else "\n", file=self._out.file, flush=True)

    def result_json(self, value: Any) -> None:  # noqa: ANN401 - JSON
        """The result as JSON: ASCII alone, so that a terminal has nothing to obey in it."""
        document = json.dumps(self._redactor.value(value), indent=2).replace("\x7f", "\\u007f")
        print(document, file=self._out.file, flush=True)

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncIterator[Callable[[RenderableType], Awaitable[None]]]:
        """On a terminal: what is shown takes the place of what was shown before. The last stays."""
        live = Live(console=self._out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        await apart(live.start)
        try:
            yield partial(apart, partial(live.update, refresh=True))
        finally:
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                await apart(live.stop)

    def note(self, text: str, style: str = "") -> None:
        """A line for the person, to stderr. Where that is gone it is lost: no command must fail by it."""
        with contextlib.suppress(OSError):
            self._err.print(self.text(text, style))  # not `_print`: it may come while a spinner turns

    def link(self, text: str, url: str) -> None:
        """A line and a URL below it, which is never broken: it is to be copied, or clicked on."""
        self.note(text, "bold")
        with contextlib.suppress(OSError):
            self._err.print(self.text(f"  {url}"), soft_wrap=True)

    def error(self, error: CcTailscaleError) -> None:
        """What went wrong, and what to do."""
        self.note(f"cc-tailscale: {error.happened}", "bold red")
        for sentence in filter(None, (error.meaning, error.next_step)):
            self.note(in_shell_words(sentence))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """A sink for stages: the last one beside a spinner, or each on a line where stderr is no terminal."""
        progress = Progress(self, self._err)
        try:
            yield progress
        finally:
            progress.pause()


class Progress:
    """Called with a stage, it shows that. The spinner goes with `pause` and comes back with the next stage."""

    def __init__(self, screen: Screen, console: Console) -> None:
        self._screen = screen
        self._status = console.status("") if console.is_terminal else None
        self._told: str | None = None

    async def __call__(self, stage: str) -> None:
        self.show(stage)

    def show(self, stage: str) -> None:
        if self._status is not None:
            self._status.update(self._screen.text(stage, "dim"))
            self._status.start()
        elif stage != self._told:
            self._screen.note(stage)
        self._told = stage

    def pause(self) -> None:
        if self._status is not None:
            with contextlib.suppress(OSError):
                self._status.stop()


class _Log(logging.Handler):
    """The log, in the midst of what else goes to stderr."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.note(self.format(record), "yellow")


def _console(stream: TextIO) -> Console:
    terminal = stream.isatty()
    console = Console(file=stream, force_terminal=terminal, highlight=False, markup=False, emoji=False)
    if not terminal:
        console.width = ENDLESS_COLUMNS
    return console


def _print(console: Console, what: RenderableType) -> None:
    with console.capture() as captured:
        console.print(what)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=console.file)
    console.file.flush()
