"""The command line: `cc-tailscale` alone is the MCP server, with a word after it a command for people."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

_HINT = """\
cc-tailscale is an MCP server: it speaks JSON-RPC on stdin and stdout, and waits for a client now (Ctrl-C to stop).
Add it to Claude Code with: claude mcp add tailscale -- uvx cc-tailscale
For what it does from a shell: cc-tailscale --help"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs what `argv` says, to the end of the process."""
    try:
        _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # while it was still being loaded: later on a signal is waited for
        sys.exit(128 + signal.SIGINT)


def _run(words: list[str]) -> NoReturn:
    if words[:1] == ["inbox"] and "--hook" in words:
        from cctailscale.commands.inbox import hook

        hook(os.environ)  # in milliseconds: nothing else is loaded
    if words not in ([], ["serve"]):
        from cctailscale.commands.arguments import parsed

        arguments = parsed(words)  # before all that the command itself needs is loaded
        if arguments.command == "inbox":  # no tailnet is joined for it
            from cctailscale.commands.inbox import show

            show(arguments, os.environ)
        from cctailscale.commands.shell import run as run_command

        run_command(arguments, os.environ)
    if sys.stdin is not None and sys.stdin.isatty():  # None: it was closed before the start
        print(_HINT, file=sys.stderr)  # noqa: T201 - said to a person who started it by hand
    from cctailscale.app import run

    run(os.environ)
