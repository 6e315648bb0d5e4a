"""The command line: `cc-tailscale` alone is the MCP server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cctailscale import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.command == "demo":
        from cctailscale.demo import demo

        return demo(options.localnet)
    if sys.stdin.isatty():
        print(_HINT, file=sys.stderr)  # noqa: T201 - said to a person who started it by hand
    from cctailscale.app import run

    return run(os.environ)


_HINT = """\
cc-tailscale is an MCP server: it speaks JSON-RPC on stdin and stdout, and waits for a client now (Ctrl-C to stop).
Add it to Claude Code with: claude mcp add tailscale -- uvx cc-tailscale"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cc-tailscale",
        description="MCP server that puts Claude Code on your tailnet. Without a command it serves stdin and stdout.",
    )
    parser.add_argument("--version", action="version", version=f"cc-tailscale {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    demo = commands.add_parser("demo", help="show the whole thing on a tailnet of its own, without an account")
    demo.add_argument("--localnet", required=True, metavar="PROGRAM", help="the localnet program (see CONTRIBUTING.md)")
    return parser
