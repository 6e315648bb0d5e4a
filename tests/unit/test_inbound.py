"""Forwards from the tailnet, with the test in the node's place: what WhoIs says, and when it says something else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cctailscale.agents import inbound as inbound_module
from cctailscale.agents.inbound import InboundForward, InboundForwards
from cctailscale.agents.refusals import Refusals
from cctailscale.errors import CcTailscaleError, NodeClosed
from cctailscale.tailnet.models import KnownNode, User, WhoIs

BOUND = 5.0
ADDRESS = "100.64.0.2:40000"


def who(node_id: str, login: str = "alice@example.com") -> WhoIs:
    node = KnownNode(stable_id=node_id, full_name=f"{node_id}.tail1234.ts.net.")
    return WhoIs(node=node, user_profile=User(login_name=login))


class Device:
    """As `device.Device`, as far as a forward asks it. `peer` is who has the address; an error is raised instead."""

    def __init__(self) -> None:
        self.peer: WhoIs | CcTailscaleError | None = who("peer")
        self.asked: list[str] = []

    async def me(self) -> WhoIs:
        return who("me")

    async def whois(self, address: str) -> WhoIs | None:
        self.asked.append(address)
        if isinstance(self.peer, CcTailscaleError):
            raise self.peer
        return self.peer


class Visited:
    """A forward whose program and visitor the test plays."""

    def __init__(self, program: socket.socket) -> None:
        self.device = Device()
        self.visitor, self.remote = socket.socketpair()
        self.visitor.setblocking(False)
        self.remote.setblocking(False)
        self.forward = InboundForward(id="i1", local_port=program.getsockname()[1], port=8080, refusals=Refusals())

    async def receives(self) -> bytes:
        """What the visitor gets next; nothing for the end."""
        async with asyncio.timeout(BOUND):
            return await asyncio.get_running_loop().sock_recv(self.visitor, 100)


@asynccontextmanager
async def visited(**settings: Any) -> AsyncIterator[tuple[Visited, InboundForwards, socket.socket]]:
    node = SimpleNamespace(settings=SimpleNamespace(allow_from=(), **settings))
    outbound = SimpleNamespace(all=list)
    with socket.create_server(("127.0.0.1", 0)) as program:
        program.setblocking(False)
        visit = Visited(program)
        async with InboundForwards.opened(cast(Any, node), cast(Any, outbound)) as forwards:
            with visit.visitor, visit.remote:
                yield visit, forwards, program


def begin(visit: Visited, forwards: InboundForwards) -> asyncio.Task[None]:
    return asyncio.create_task(forwards._visited(visit.forward, cast(Any, visit.device), visit.remote, ADDRESS))


async def taken(program: socket.socket) -> socket.socket:
    async with asyncio.timeout(BOUND):
        local, _ = await asyncio.get_running_loop().sock_accept(program)
    return local


async def test_who_is_there_is_asked_by_the_address_that_came_with_the_connection() -> None:
    async with visited() as (visit, forwards, program):
        task = begin(visit, forwards)
        with await taken(program) as local:
            local.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(local, b"welcome")
            assert await visit.receives() == b"welcome"
            assert visit.device.asked == [ADDRESS]
            (shown,) = visit.forward.visits
            assert (shown.peer.node_id, shown.peer.login) == ("peer", "alice@example.com")
            assert (shown.splice.sent, visit.forward.sent) == (7, 7)
        visit.visitor.close()
        await asyncio.wait_for(task, BOUND)
        assert (visit.forward.visits, visit.forward.connections) == ([], 0)


@pytest.mark.parametrize(
    "peer", [None, who("peer", "bob@example.com"), who("peer", "tagged-devices")], ids=["nobody", "another", "tagged"]
)
async def test_who_may_not_is_cut_off_and_the_program_hears_nothing(peer: WhoIs | None) -> None:
    async with visited() as (visit, forwards, program):
        visit.device.peer = peer
        await asyncio.wait_for(begin(visit, forwards), BOUND)
        assert await visit.receives() == b""
        assert (visit.forward.refusals.count, visit.forward.total) == (1, 0)
        with pytest.raises(BlockingIOError):
            program.accept()


async def test_where_nobody_says_who_is_there_nobody_gets_in() -> None:
    async with visited() as (visit, forwards, program):
        visit.device.peer = NodeClosed()
        await asyncio.wait_for(begin(visit, forwards), BOUND)
        assert await visit.receives() == b""
        assert visit.forward.last_error == str(NodeClosed())
        with pytest.raises(BlockingIOError):
            program.accept()


@pytest.mark.parametrize(
    ("later", "error"),
    [
        (who("other"), "the peer's address now belongs to another device"),
        (who("peer", "bob@example.com"), "may not send messages to this agent"),
        (None, "could not be identified"),
        (NodeClosed(), "it is not known any more who is there"),
    ],
)
async def test_what_has_changed_about_a_peer_ends_its_connection(
    later: WhoIs | CcTailscaleError | None, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound_module, "DECIDE_AGAIN_SECONDS", 0.01)
    async with visited() as (visit, forwards, program):
        task = begin(visit, forwards)
        with await taken(program) as local:
            local.setblocking(False)
            visit.device.peer = later
            await asyncio.wait_for(task, BOUND)
            assert await visit.receives() == b""
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(local, 1)
        assert error in str(visit.forward.last_error)
        assert visit.forward.visits == []


async def test_a_cancelled_connection_leaves_nothing_behind() -> None:
    async with visited() as (visit, forwards, program):
        task = begin(visit, forwards)
        with await taken(program):
            task.cancel()
            await asyncio.wait([task])
            assert await visit.receives() == b""
        assert (visit.forward.connections, visit.remote.fileno()) == (0, -1)
