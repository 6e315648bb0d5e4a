"""The command line: `cc-tailscale` alone is the MCP server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cctailscale import __version__


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs what `argv` says, to the end of the process."""
    _parser().parse_args(argv)
    if sys.stdin.isatty():
        print(_HINT, file=sys.stderr)  # noqa: T201 - said to a person who started it by hand
    from cctailscale.app import run

    run(os.environ)


_HINT = """\
cc-tailscale is an MCP server: it speaks JSON-RPC on stdin and stdout, and waits for a client now (Ctrl-C to stop).
Add it to Claude Code with: claude mcp add tailscale -- uvx cc-tailscale"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cc-tailscale",
        description="MCP server that puts Claude Code on your tailnet. It serves stdin and stdout.",
        epilog="Settings are environment variables: see README.md.",
    )
    parser.add_argument("--version", action="version", version=f"cc-tailscale {__version__}")
    return parser
