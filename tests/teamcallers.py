"""Devices that say to a lead over the tailnet whatever a test wants, without a session of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from cctailscale.agents import client
from cctailscale.documents import Document
from cctailscale.errors import AgentRefused
from cctailscale.tailnet.device import Device
from cctailscale.teams.commands import Create, TaskCommand
from cctailscale.teams.keys import new_nonce
from cctailscale.teams.wire import (
    MAX_LIST_BYTES,
    Answer,
    CommandRequest,
    EventPage,
    Joined,
    JoinRequest,
    LeaveRequest,
    ProofRequest,
    TaskPage,
    TeamView,
)
from tests.callers import addresses, identity, joined, until_known
from tests.localnet import Localnet
from tests.teaming import Session

D = TypeVar("D", bound=Document)
SECONDS = 10.0


@dataclass
class Caller:
    """A device, and the lead that it asks."""

    device: Device
    lead: str  # its address
    team: str

    async def ask(self, path: str, document: Document | bytes | None = None) -> bytes:
        """The body of the answer. Raises AgentRefused."""
        body = document.to_json() if isinstance(document, Document) else document
        method = "GET" if body is None else "POST"
        return await client.ask(self.device, self.lead, method, path, body, SECONDS, MAX_LIST_BYTES)

    async def refused(self, path: str, document: Document | bytes | None = None) -> tuple[int, str]:
        """Status and code of the refusal."""
        with pytest.raises(AgentRefused) as raised:
            await self.ask(path, document)
        return raised.value.status, raised.value.code

    async def join(self, token: str | None = None) -> Joined:
        return Joined.from_json(await self.ask("team/join", JoinRequest(nonce=new_nonce(), token=token)))

    async def leave(self) -> None:
        await self.ask("team/leave", LeaveRequest(team=self.team))

    async def command(self, number: str, command: TaskCommand) -> Answer:
        request = CommandRequest(team=self.team, id=number, command=command)
        return Answer.from_json(await self.ask("team/command", request))

    async def view(self) -> TeamView:
        return TeamView.from_json(await self.ask(f"team?team={self.team}"))

    async def events(self, after: int, wait: float = 0.0) -> EventPage:
        return EventPage.from_json(await self.ask(f"team/events?team={self.team}&after={after}&wait={wait}"))

    async def tasks(self, query: str = "limit=200") -> TaskPage:
        return TaskPage.from_json(await self.ask(f"team/tasks?team={self.team}&{query}"))

    def everything(self) -> list[tuple[str, Document | None]]:
        """One question for each endpoint of a team."""
        return [
            ("team/join", JoinRequest(nonce=new_nonce())),
            ("team/proof", ProofRequest(team=self.team, nonce=new_nonce())),
            ("team/leave", LeaveRequest(team=self.team)),
            ("team/command", CommandRequest(team=self.team, id="one", command=Create(subject="One"))),
            (f"team?team={self.team}", None),
            (f"team/tasks?team={self.team}", None),
            (f"team/events?team={self.team}&after=0", None),
        ]


@asynccontextmanager
async def caller(
    tailnet: Localnet,
    folder: Path,
    hostname: str,
    lead: Session,
    *,
    user: str | None = None,
    tags: tuple[str, ...] = (),
) -> AsyncIterator[Caller]:
    """A device of alice@example.com, unless it is another's, that knows the team which `lead` leads."""
    spec = {"user": user} if user else {"tags": list(tags)} if tags else {}
    key = tailnet.key(ephemeral=True, **spec) if spec else None
    async with joined(tailnet, folder, hostname, key) as device:
        assert lead.node.running_device is not None
        assert lead.teamwork.part is not None
        await until_known(lead.node.running_device, device)
        await until_known(device, lead.node.running_device)
        address = addresses(await identity(lead.node.running_device))[0]
        yield Caller(device, address, lead.teamwork.part.team)
