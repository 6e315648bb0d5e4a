"""The body of an answer, piece by piece: a large one straight from its socket, past the event loop and the parser.

Of a file of known length nothing is left to parse after the headers. A thread that waits for a whole piece saves a
tenth of a download's CPU time, which asyncio and aiohttp take for the dozens of small ones that it is made of.
"""

import os
import socket
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import closing
from functools import cache
from typing import Final

import aiohttp
import anyio
import anyio.to_thread
from aiohttp import hdrs

# Less than this is not worth a new connection for the next request: one that was read straight is not used again.
STRAIGHT_BYTES = 4 << 20
# What is read at a time; the disk takes it in one go (savefile.PIECE_BYTES).
PIECE_BYTES = 1 << 20
# A thread waits for so long for a piece, then gives what there is: a call that is cancelled has to wait for it.
WAIT_SECONDS: Final = 0.1
# Linux counts WAIT_SECONDS for a whole call. BSD's kernels, so macOS too, count them anew for whatever arrives, and a
# trickle would hold the thread for hours.
_FLAGS = socket.MSG_WAITALL if sys.platform == "linux" else 0
# Bodies that are read straight at the same time; others wait for a free thread, piece by piece.
MAX_THREADS = 16


@cache
def _threads() -> anyio.CapacityLimiter:
    """Made late, since a limiter needs a running loop."""
    return anyio.CapacityLimiter(MAX_THREADS)


async def pieces(response: aiohttp.ClientResponse, *, sent: bool) -> AsyncGenerator[bytes]:
    """The body as it comes. Its bytes count in `response.content.total_bytes`, whichever way they take.

    `sent`: no part of the request can be left to send. A peer may answer before it has read it; the loop would send the
    rest over a socket that blocks by then, and stand still until the peer reads on.
    To be closed by who does not read it to its end. Raises what aiohttp raises.
    """
    content, transport = response.content, response.connection and response.connection.transport
    left = 0 if _coded(response) or not sent else (response.content_length or 0) - content.total_bytes
    if left < STRAIGHT_BYTES or transport is None or transport.get_extra_info("sslcontext") is not None:
        async for part in content.iter_any():
            yield part
        return
    with closing(response), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        begun = b""
        while part := content.read_nowait():  # each may let the parser give more of what it was sent
            begun += part
        transport.pause_reading()
        left = (response.content_length or 0) - content.total_bytes
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(WAIT_SECONDS * 1e6)))
        if begun:
            yield begun
        while left:
            part = await anyio.to_thread.run_sync(_received, sock, min(left, PIECE_BYTES), limiter=_threads())
            left -= len(part)
            content.total_bytes += len(part)
            if part:
                yield part


def _coded(response: aiohttp.ClientResponse) -> bool:
    """Whether there is something to take off it, as gzip or the sizes of chunks."""
    return hdrs.CONTENT_ENCODING in response.headers or hdrs.TRANSFER_ENCODING in response.headers


def _received(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or those that have come within `WAIT_SECONDS`. Raises aiohttp.ClientPayloadError at their end."""
    try:
        part = sock.recv(count, _FLAGS)
    except BlockingIOError:
        return b""
    except ConnectionError as error:
        raise aiohttp.ClientPayloadError("the connection broke") from error
    if not part:
        raise aiohttp.ClientPayloadError("the connection ended")
    return part
