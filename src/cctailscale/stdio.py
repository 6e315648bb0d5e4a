"""stdin and stdout as MCP's wire, in a form that can be stopped.

The SDK reads stdin in a thread, which nothing can interrupt: a signal would have to wait for the client's next line.
Here both ends are the event loop's own. This module knows lines, and keeps everybody else's output off the wire;
`server.py` makes messages of them with the SDK's types.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import socket
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import anyio

# One message. Tool arguments are far smaller; a line beyond it is answered as what it is, not a message.
MAX_LINE_BYTES = 16 << 20
# What a line that was too long, and was dropped, is given to the parser as: no JSON, so that it is reported.
TOO_LONG = b"(a line of more than 16 MiB)"
# The same for a request with an id that is none: JSON, but no message. The SDK would take it for a notification, and
# its sender would wait for ever.
NO_ID = '"(a request whose id is neither text nor a whole number)"'
# Where such an id may stand, in this object or one within. Nearly all lines pass without being parsed twice.
_ODD_ID = re.compile(r'"id"\s*:\s*(?:[^"\s\d-]|-?\d+[.eE])')
# Half a character, which JSON can write (JavaScript cuts texts like that) and the SDK's parser cannot read: it would
# find no message, and no id to answer to. The alternatives before it take whole characters and other escapes away.
_HALF = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)")
_MAY_HAVE_HALVES = re.compile(r"\\u[dD][89a-fA-F]")


class Lines:
    """stdin, line by line; ends with the end of input and tells `ended`."""

    def __init__(self, reader: asyncio.StreamReader, ended: anyio.Event) -> None:
        self._reader = reader
        self._ended = ended

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        line = b"\n"
        while line.isspace():  # between messages they mean nothing
            line = await self._next_line()
        if not line:
            self._ended.set()
            raise StopAsyncIteration
        text = line.decode("utf-8", "replace")
        return NO_ID if _has_no_sound_id(text) else _of_whole_characters(text)

    async def _next_line(self) -> bytes:
        """The next line, cut short by the end of input, or b"" at the end."""
        try:
            # Not readline: over the limit it drops what it has, with or without the end of the line.
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            return end.partial
        except asyncio.LimitOverrunError:
            await self._skip_line()
            return TOO_LONG
        except OSError:
            return b""

    async def _skip_line(self) -> None:
        while True:
            try:
                await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
            except asyncio.IncompleteReadError:
                return
            else:
                return


def _of_whole_characters(line: str) -> str:
    """The line with U+FFFD for each half of a character, as what encodes texts does."""
    if not _MAY_HAVE_HALVES.search(line):
        return line
    return _HALF.sub(lambda escape: r"\ufffd" if escape[1] else escape[0], line)


def _has_no_sound_id(line: str) -> bool:
    """Whether it is a request with an id of a type that no id has (JSON-RPC 2.0, 4)."""
    if not _ODD_ID.search(line):
        return False
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):  # the SDK's parser will say so
        return False
    if not isinstance(message, dict) or "id" not in message or "method" not in message:
        return False
    return isinstance(message["id"], bool) or not isinstance(message["id"], int | str)


class Wire:
    """stdout. A client that stops reading holds the writer up, and nothing else."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, text: str) -> None:
        self._writer.write(text.encode())

    async def flush(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client is gone: the end of stdin says so too
            await self._writer.drain()


class FileWire:
    """stdout where it is a file, which takes everything at once, or the terminal that stdin is too."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file

    async def write(self, text: str) -> None:
        self._file.write(text.encode())

    async def flush(self) -> None:
        pass


@asynccontextmanager
async def wire(ended: anyio.Event) -> AsyncIterator[tuple[Lines, Wire | FileWire]]:
    """Takes stdin and stdout for MCP; `ended` is set at the end of input.

    Meanwhile descriptor 0 is empty and descriptor 1 is stderr, so that no library, Go or child can touch the wire.
    """
    both_ways = os.path.sameopenfile(0, 1)  # noqa: ASYNC240 - two fstat of open descriptors
    source, sink = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    async with contextlib.AsyncExitStack() as open_ends:
        if both_ways and stat.S_ISSOCK(os.fstat(source.fileno()).st_mode):
            with source, sink:
                connection = socket.socket(fileno=os.dup(source.fileno()))
            reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_LINE_BYTES)
            open_ends.callback(writer.close)
            yield Lines(reader, ended), Wire(writer)
            return
        reader = await _reader(source, open_ends)
        if _can_wait(sink) and not both_ways:
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sink)
            open_ends.callback(transport.close)
            yield Lines(reader, ended), Wire(asyncio.StreamWriter(transport, protocol, None, loop))
        else:
            open_ends.enter_context(sink)
            yield Lines(reader, ended), FileWire(sink)


async def _reader(source: io.FileIO, open_ends: contextlib.AsyncExitStack) -> asyncio.StreamReader:
    if not _can_wait(source):
        source = _piped(source)
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    open_ends.callback(transport.close)
    return reader


def _can_wait(end: io.FileIO) -> bool:
    """Whether the event loop can watch it: pipes, sockets and terminals, but no files and not /dev/null."""
    mode = os.fstat(end.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or end.isatty()


def _piped(source: io.FileIO) -> io.FileIO:
    """The content of a file through a pipe. Reading a file never blocks for long, so that a daemon thread will do."""
    readable, writable = os.pipe()

    def copy() -> None:
        with source, os.fdopen(writable, "wb", 0) as pipe, contextlib.suppress(OSError):
            shutil.copyfileobj(source, pipe)

    threading.Thread(target=copy, name="stdin", daemon=True).start()
    return os.fdopen(readable, "rb", 0)
