"""A lead's endpoints on the real server, over socket pairs, for devices that the test plays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import anyio

from cctailscale.agents import hosting
from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Policy
from cctailscale.agents.server import AgentServer
from cctailscale.agents.wire import AgentCard, Refusal
from cctailscale.documents import Document
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.models import KnownNode, User, WhoIs
from cctailscale.teams.commands import TaskCommand
from cctailscale.teams.lead import Lead
from cctailscale.teams.wire import (
    Answer,
    CommandRequest,
    Joined,
    JoinRequest,
)
from tests.leading import NONCE, Store, leading

D = TypeVar("D", bound=Document)
TEAM = "team-of-alice"
ALICE = "alice@example.com"


class Tailnet:
    """Whose each address is: 100.64.0.N is the device nN, as WhoIs says of the connection."""

    def __init__(self) -> None:
        self.logins = dict.fromkeys(range(1, 10), ALICE)
        self.grants: dict[str, Any] = {}

    def who(self, number: int) -> WhoIs:
        node = KnownNode(
            stable_id=f"n{number}", full_name=f"host{number}.tail.ts.net.", addresses=[f"100.64.0.{number}/32"]
        )
        who = WhoIs(node=node, user_profile=User(login_name=self.logins[number]))
        return who.model_copy(update={"capabilities": self.grants})

    async def me(self, max_age: float = 0.0) -> WhoIs:  # noqa: ARG002 - the form of Device.me
        return self.who(1)

    async def whois(self, address: str) -> WhoIs:
        return self.who(int(address.rpartition(":")[0].rpartition(".")[2]))


class Peer:
    """A device that asks the lead something, on one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: host1\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        await asyncio.get_running_loop().sock_sendall(self.sock, head.encode() + b"\r\n" + (body or b""))
        return await self.answer()

    async def answer(self) -> tuple[int, bytes]:
        loop, got = asyncio.get_running_loop(), b""
        with anyio.fail_after(10):
            while b"\r\n\r\n" not in got:
                got += await self._more(loop)
            head, _, body = got.partition(b"\r\n\r\n")
            (length,) = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            while len(body) < length:
                body += await self._more(loop)
        return int(head.split(b" ")[1]), body

    async def _more(self, loop: asyncio.AbstractEventLoop) -> bytes:
        data = await loop.sock_recv(self.sock, 65536)
        if not data:
            raise EOFError
        return data

    async def get(self, kind: type[D], path: str, **query: Any) -> D:
        status, body = await self.ask("GET", f"{path}?{urlencode({'team': TEAM} | query)}")
        assert status == 200, body
        return kind.from_json(body)

    async def post(self, kind: type[D], path: str, document: Document) -> D:
        status, body = await self.ask("POST", path, document.to_json())
        assert status == 200, body
        return kind.from_json(body)

    async def join(self, token: str | None = None) -> Joined:
        return await self.post(Joined, "/v1/team/join", JoinRequest(nonce=NONCE, token=token))

    async def command(self, id: str, command: TaskCommand) -> Answer:  # noqa: A002 - the field's name
        return await self.post(Answer, "/v1/team/command", CommandRequest(team=TEAM, id=id, command=command))

    async def refused(self, method: str, path: str, body: bytes | Document | None = None) -> tuple[int, str]:
        """Status and code of a refusal; what it says is fit for a peer."""
        status, answer = await self.ask(method, path, body.to_json() if isinstance(body, Document) else body)
        refusal = Refusal.from_json(answer)
        assert "/secret/place" not in refusal.message
        return status, refusal.error


class Hosted:
    """A server with a team behind it, until the test takes it away, and connections to it."""

    def __init__(self, server: AgentServer, tailnet: Tailnet, lead: Lead, store: Store) -> None:
        self.server, self.tailnet, self.store = server, tailnet, store
        self.lead: Lead | None = lead
        self._tasks = anyio.create_task_group()

    @asynccontextmanager
    async def peer(self, number: int = 2) -> AsyncIterator[Peer]:
        """The device nN, connected."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        with ours, theirs:
            async with anyio.create_task_group() as tasks:
                address = f"100.64.0.{number}:49152"
                tasks.start_soon(self.server.serve, cast("Device", self.tailnet), ours, address)
                yield Peer(theirs)
                tasks.cancel_scope.cancel()


@asynccontextmanager
async def hosted(folder: Path, policy: Policy | None = None, lease: float = 90.0) -> AsyncIterator[Hosted]:
    card = AgentCard(name="agent", version="0", protocol=1, since=datetime.now(UTC))
    async with (
        leading(lease) as (lead, store),
        Inbox.opened(folder / "inbox.db") as inbox,
        AgentServer.opened(inbox, policy or Policy(), lambda: card) as server,
    ):
        host = Hosted(server, Tailnet(), lead, store)
        server.endpoints += hosting.endpoints(lambda: host.lead)
        yield host
