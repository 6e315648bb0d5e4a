"""A server on this machine's loopback that counts its visitors: what a fetch from the tailnet must never reach."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nsecret\n"
KNOCK_SECONDS = 5.0


class Door:
    """Answers every connection and counts it."""

    def __init__(self) -> None:
        self.visits = 0
        self._port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls) -> AsyncIterator[Door]:
        door = cls()
        server = await asyncio.start_server(door._answer, "127.0.0.1", 0)
        async with server:
            door._port = server.sockets[0].getsockname()[1]
            yield door

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    async def knock(self) -> None:
        """Visits it from this process: it does answer."""
        async with asyncio.timeout(KNOCK_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            if await reader.read() != ANSWER:
                raise ConnectionError("the server on this machine does not answer itself")
            writer.close()
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        await reader.readline()
        writer.write(ANSWER)
        writer.close()
