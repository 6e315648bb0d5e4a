"""Agents on the local tailnet, in this process, and callers that say to them whatever a test wants, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Policy
from cctailscale.agents.rate import Rate
from cctailscale.agents.server import AgentServer
from cctailscale.agents.store import LIMITS, Limits
from cctailscale.agents.wire import PORT, AgentCard, Message
from cctailscale.tailnet.binding import NodeConfig
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.listener import Listener
from cctailscale.tailnet.models import WhoIs
from tests.localnet import Localnet

ALICE = "alice@example.com"
BOB = "bob@example.com"
SECONDS = 10.0
# A thousand times what is allowed, for tests that are about something else.
UNLIMITED = partial(Rate, per_minute=60_000, burst=100_000)


@contextlib.asynccontextmanager
async def joined(tailnet: Localnet, folder: Path, hostname: str, key: str | None = None) -> AsyncIterator[Device]:
    """A device of alice@example.com, or of whomever the key is."""
    state = folder / hostname
    state.mkdir()
    config = NodeConfig(hostname, state, tailnet.control_url, auth_key=key or tailnet.auth_key)
    async with Device.opened(config, "TS_AUTHKEY", SECONDS) as device:
        await device.joined(SECONDS)
        yield device


class Stage:
    """A tailnet and the devices on it, each made when it is first asked for, and held by a task of its own."""

    def __init__(self, tailnet: Localnet, folder: Path, tasks: anyio.abc.TaskGroup) -> None:
        self.tailnet = tailnet
        self._folder = folder
        self._tasks = tasks
        self._devices: dict[str, Device] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, folder: Path) -> AsyncIterator[Stage]:
        with Localnet.started() as tailnet:
            async with anyio.create_task_group() as tasks:
                yield cls(tailnet, folder, tasks)
                tasks.cancel_scope.cancel()

    async def device(self, hostname: str, user: str = ALICE, tags: tuple[str, ...] = ()) -> Device:
        if hostname not in self._devices:
            key = self.tailnet.key(user=user, tags=list(tags), ephemeral=True)
            self._devices[hostname] = await self._tasks.start(self._hold, hostname, key)
        return self._devices[hostname]

    async def _hold(self, hostname: str, key: str, *, task_status: anyio.abc.TaskStatus[Device]) -> None:
        async with joined(self.tailnet, self._folder, hostname, key) as device:
            task_status.started(device)
            await anyio.sleep_forever()


@dataclass
class Answerer:
    """An agent that answers: its device, its server and what it has stored."""

    device: Device
    server: AgentServer
    inbox: Inbox
    listener: Listener
    name: str
    addresses: list[str]  # IPv4, IPv6

    async def stored(self) -> list[tuple[str, str]]:
        """The unread messages: the sender's name, the body."""
        return [(message.sender.name, message.body) for message in await self.inbox.unread(1000)]


@contextlib.asynccontextmanager
async def answering(
    device: Device, folder: Path, *, policy: Policy | None = None, rate: Rate | None = None, limits: Limits = LIMITS
) -> AsyncIterator[Answerer]:
    """An agent on a device that has joined."""
    me = await identity(device)
    card = AgentCard(name=me.node.name, version="0", protocol=1, project="p", since=datetime.now(UTC))
    async with (
        Inbox.opened(folder / f"{me.node.stable_id}.db", limits=limits) as inbox,
        AgentServer.opened(inbox, policy or Policy(), lambda: card, rate or UNLIMITED()) as server,
        Listener.opened(device.handle, PORT) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, partial(server.serve, device))
        yield Answerer(device, server, inbox, listener, me.node.name, addresses(me))
        tasks.cancel_scope.cancel()


@dataclass
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The code of a refusal."""
        error: str = self.json["error"]
        return error


@dataclass
class Line:
    """One connection to an agent."""

    host: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter = field(repr=False)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)

    async def answer(self) -> Answer:
        """The next answer. Raises IncompleteReadError or ConnectionError if the connection ends instead."""
        with anyio.fail_after(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split(" ")[1]), headers, body)

    async def ask(self, *parts: bytes) -> Answer:
        self.send(*parts)
        return await self.answer()

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask(request("GET", path, None, {"Host": self.host} | headers))

    async def post(self, body: bytes | Message, path: str = "/v1/messages", **headers: str) -> Answer:
        document = body.to_json() if isinstance(body, Message) else body
        return await self.ask(request("POST", path, document, {"Host": self.host} | headers))

    async def ended(self) -> bytes:
        """What still comes before the other side ends the connection."""
        with anyio.fail_after(SECONDS):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


def request(method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """A request. An empty header value leaves that header out; `_` in a name stands for `-`."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + (body or b"")


@contextlib.asynccontextmanager
async def line(caller: Device, to: Answerer, *, ipv6: bool = False) -> AsyncIterator[Line]:
    """A connection from a device to an agent."""
    address = f"[{to.addresses[1]}]:{PORT}" if ipv6 else f"{to.addresses[0]}:{PORT}"
    sock = await caller.handle.dial(address, SECONDS)
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield Line(to.name, reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError), anyio.fail_after(SECONDS):
            await writer.wait_closed()


def message(body: str = "Hello.", **fields: Any) -> Message:
    return Message.new("A subject", body, **fields)


async def until_known(device: Device, other: Device) -> None:
    """Returns once `device` knows of `other`, which has just joined."""
    address = addresses(await identity(other))[0]
    with anyio.fail_after(5):
        while await device.whois(address) is None:  # noqa: ASYNC110 - the node tells no task
            await anyio.sleep(0.01)


async def identity(device: Device) -> WhoIs:
    """Who a device that has joined is."""
    me = await device.me()
    assert me is not None
    return me


def addresses(who: WhoIs) -> list[str]:
    """A device's addresses: IPv4, IPv6."""
    return [prefix.partition("/")[0] for prefix in who.node.addresses]


def posted(agent: Answerer, sent: Message) -> bytes:
    """A message as it goes over the wire."""
    return request("POST", "/v1/messages", sent.to_json(), {"Host": agent.name})
