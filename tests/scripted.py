"""A peer whose answers a test writes, byte by byte: a real node in this process, with its services played by the test.

It shows what the other side of a call saw: who connected, which requests came over which connection, when it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cctailscale.tailnet.binding import NodeConfig
from cctailscale.tailnet.device import Device
from tests.localnet import Localnet

JOIN_SECONDS = 20.0
# A connection that its client has forgotten ends the test that waits for it, and not this.
HANG_SECONDS = 60.0
ACCEPT_BYTES = 64  # TAILSCALE_ACCEPT_BYTES
HEAD_BYTES = 64 << 10

Service = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Connection:
    """One connection that came; `closed` is set when its client has ended it."""

    requests: list[Received] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_closed(self, seconds: float = 10) -> None:
        await asyncio.wait_for(self.closed.wait(), seconds)


@dataclass
class Received:
    """One HTTP request. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: Connection


@dataclass
class Answer:
    """What to write, and what to do then: keep the connection, close it, or do nothing until the client goes."""

    data: bytes
    then: Literal["keep", "close", "hang"] = "keep"


def http(body: bytes | str = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A sound HTTP answer; `content_type` becomes Content-Type."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


class ScriptedPeer:
    """The peer. `answers` maps a path to what is answered there; "*" stands for all other paths."""

    def __init__(self, device: Device, name: str, addresses: list[str]) -> None:
        self.device = device
        self.name = name
        self.ipv4, self.ipv6 = addresses
        self.answers: dict[str, Answer] = {}
        self.connections: list[Connection] = []
        self._connected = asyncio.Event()
        self._open: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def joined(cls, tailnet: Localnet, hostname: str, folder: Path) -> AsyncIterator[ScriptedPeer]:
        """Joins `tailnet` as `hostname` and serves HTTP on port 80, as long as the block."""
        os.environ["TS_DISABLE_PORTMAPPER"] = "1"  # read by Go when the extension is loaded
        folder.mkdir(parents=True, exist_ok=True)
        config = NodeConfig(hostname, folder, tailnet.control_url, auth_key=tailnet.auth_key)
        async with Device.opened(config, "TS_AUTHKEY", JOIN_SECONDS) as device:
            await device.joined(JOIN_SECONDS)
            status = await device.api.status(peers=False)
            assert status.me is not None
            peer = cls(device, status.me.name, status.tailscale_ips)
            try:
                await peer.serve_http(80)
                yield peer
            finally:
                await peer._close()

    def answer(self, path: str, data: bytes, then: Literal["keep", "close", "hang"] = "keep") -> str:
        """Sets what is answered at `path`; gives the path's URL."""
        self.answers[path] = Answer(data, then)
        return f"http://{self.name}{path}"

    async def serve(self, port: int, service: Service) -> None:
        """Gives every connection to `port` to `service`."""
        listener = await self.device.handle.listen(port)
        listener.setblocking(False)
        self._open.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener, service)

    async def serve_http(self, port: int) -> None:
        """Serves `answers` on `port` as well."""
        await self.serve(port, self._http)

    def requests(self) -> list[Received]:
        """All requests so far, connection by connection."""
        return [request for connection in self.connections for request in connection.requests]

    async def request_for(self, path: str, seconds: float = 10) -> Received:
        """The first request whose path is `path`, once it has come."""
        async with asyncio.timeout(seconds):
            while True:
                for request in self.requests():
                    if request.target.partition("?")[0] == path:
                        return request
                self._connected.clear()
                await self._connected.wait()

    def _accept(self, listener: socket.socket, service: Service) -> None:
        while True:
            try:
                message, fds, _, _ = socket.recv_fds(listener, ACCEPT_BYTES, 1)
            except BlockingIOError:
                return
            if not message:
                return
            task = asyncio.create_task(self._serve(socket.socket(fileno=fds[0]), service))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, service: Service) -> None:
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, limit=HEAD_BYTES)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                await service(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection()
        self.connections.append(connection)
        ended = False
        try:
            while not ended:
                request = await self._received(reader, connection)
                answer = self.answers.get(request.target.partition("?")[0]) or self.answers["*"]
                connection.requests.append(request)
                self._connected.set()
                writer.write(answer.data)
                await writer.drain()
                if answer.then == "hang":
                    async with asyncio.timeout(HANG_SECONDS):
                        await reader.read()
                ended = answer.then != "keep"
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            connection.closed.set()

    @staticmethod
    async def _received(reader: asyncio.StreamReader, connection: Connection) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8", "surrogateescape")
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Received(method, target, headers, body, connection)

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._open:
            loop.remove_reader(listener)
            listener.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
