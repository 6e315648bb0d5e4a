"""cc-tailscale as a person runs it: the real process, with pipes or on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "cctailscale")
SECONDS = 45.0
COLUMNS, LINES = 80, 40
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Ran:
    """How a command ended. On a terminal `out` has both outputs as they came, colours and all."""

    code: int
    out: str
    err: str = ""


async def ran(environ: dict[str, str], *words: str, cwd: Path | None = None) -> Ran:
    """Runs a command to its end, with pipes."""
    async with started(environ, *words, cwd=cwd) as process:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def started(
    environ: dict[str, str], *words: str, cwd: Path | None = None, stdout: int = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command with pipes, as long as the block; killed if it runs at its end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *words, stdin=asyncio.subprocess.DEVNULL, stdout=stdout,
        stderr=asyncio.subprocess.PIPE, env=base() | environ, cwd=cwd,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def filled(pipe: int) -> None:
    """Returns once a pipe that nobody reads from takes no more. There is no event for that."""
    async with asyncio.timeout(20):
        while True:
            (held,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))
            if held > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - PAGE_BYTES:
                return
            await asyncio.sleep(0.01)


async def on_a_terminal(environ: dict[str, str], *words: str) -> Ran:
    """Runs a command to its end on a terminal of 80 columns."""
    async with terminal(environ, *words) as (process, ours):
        out = await asyncio.wait_for(asyncio.to_thread(remaining, ours), SECONDS)
        return Ran(await asyncio.wait_for(process.wait(), SECONDS), out)


@contextlib.asynccontextmanager
async def terminal(environ: dict[str, str], *words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A command on a terminal of 80 columns, and the terminal's other end; killed if it runs at the block's end."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *words, stdin=theirs, stdout=theirs, stderr=theirs, env=base() | environ
        )
    finally:
        os.close(theirs)
    try:
        yield process, ours
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(ours)


async def read_until(ours: int, wanted: str) -> str:
    """What a command writes to its terminal, as far as the first part that ends with `wanted` in it."""
    out = b""
    async with asyncio.timeout(SECONDS):
        while wanted not in out.decode(errors="replace"):
            out += await asyncio.to_thread(os.read, ours, 65536)
    return out.decode(errors="replace")


def base() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TS_DISABLE_PORTMAPPER": "1", "TERM": "xterm-256color", "LANG": "C.UTF-8"}


def remaining(fd: int) -> str:
    """What a command on a terminal writes from now on. Blocks."""
    parts = []
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while part := os.read(fd, 65536):
            parts.append(part)
    return b"".join(parts).decode()


def plain_screen(out: str) -> list[str]:
    """The lines that are left on a terminal, without colours; what else it would obey stays in them."""
    lines = [""]
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r\n|\r|[^\x1b\r]+|\x1b", out):
        match part:
            case "\r\n":
                lines.append("")
            case "\x1b[1A":  # a line up: rich goes back over what it is about to wipe out
                lines.pop()
            case "\x1b[2K":
                lines[-1] = ""
            case str() if re.fullmatch(r"\r|\x1b\[[0-9;]*m|\x1b\[\?25[lh]", part):
                pass  # colours, and whether there is a cursor
            case _:
                lines[-1] += part
    return lines
