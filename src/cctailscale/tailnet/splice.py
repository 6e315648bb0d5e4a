"""Two sockets as one connection: bytes both ways with back-pressure, half-close, and resets that stay resets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from typing import Final

import anyio

# At most so much of each direction is in this process, and only while its receiver does not take it. A quarter of it
# costs a third more CPU time; asyncio's streams cost twice as much at any size.
READ_BYTES = 256 << 10
# A connection on which nothing moves is closed after so long. Pools keep database connections for about half of it.
IDLE_SECONDS = 3600.0

_RESET: Final = struct.pack("ii", 1, 0)
_ORDERLY: Final = struct.pack("ii", 0, 0)


class Splice:
    """Copies `local` to `remote` and back until both have ended, and closes them.

    Both sockets are connected and non-blocking, and belong to it. The end of one direction is passed on as the end of
    that direction; an error on either socket resets the other, so that what was cut off does not look complete.
    `moved_at` is monotonic; `error` says what ended it, None before that and after an orderly end.
    """

    def __init__(self, local: socket.socket, remote: socket.socket) -> None:
        self._local = local
        self._remote = remote
        self._scope = anyio.CancelScope()
        self._counts = {local: 0, remote: 0}
        self.moved_at = time.monotonic()
        self.error: str | None = None

    @property
    def sent(self) -> int:
        """Bytes from `local` to `remote`."""
        return self._counts[self._local]

    @property
    def received(self) -> int:
        """Bytes from `remote` to `local`."""
        return self._counts[self._remote]

    async def run(self) -> None:
        """Returns after the end of both directions, or after a reset. Cancelled, it resets both."""
        orderly = False
        try:
            for sock in (self._local, self._remote):
                with contextlib.suppress(OSError):  # macOS: it is reset already
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._scope:
                async with anyio.create_task_group() as pumps:
                    pumps.start_soon(self._pump, self._local, self._remote)
                    pumps.start_soon(self._pump, self._remote, self._local)
                orderly = True
        finally:
            close(self._local, orderly=orderly)
            close(self._remote, orderly=orderly)

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(source, READ_BYTES):
                await loop.sock_sendall(sink, data)
                self._counts[source] += len(data)
                self.moved_at = time.monotonic()
                await asyncio.sleep(0)  # a fast pair never waits, and would keep all others waiting
            sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.reset(os.strerror(error.errno) if error.errno else str(error))

    def reset(self, reason: str) -> None:
        """Ends it for `reason`, the first of which stays."""
        self.error = self.error or reason
        self._scope.cancel()

    def check(self, now: float) -> None:
        """Ends it where no event would: nothing has moved for an hour, or one side is reset and the other stuck.

        To be called every second or so; `now` is monotonic.
        """
        if now - self.moved_at > IDLE_SECONDS:
            self.reset(f"nothing moved for {IDLE_SECONDS:g} s")
        for sock in (self._local, self._remote):
            # While a pump waits for its receiver it does not read, and would not see that its source is gone.
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if sock.fileno() >= 0 else 0
            if code:
                self.reset(os.strerror(code))


def close(sock: socket.socket, *, orderly: bool) -> None:
    """Closes a connection: `orderly`, what was sent is still delivered; else the other side sees a reset."""
    if sock.fileno() >= 0:
        with contextlib.suppress(OSError):  # as above
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY if orderly else _RESET)
        sock.close()
