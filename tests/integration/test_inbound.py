"""Forwards from the tailnet: who reaches a program of this machine, who does not, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from cctailscale.agents import inbound as inbound_module
from cctailscale.agents.inbound import InboundForward, InboundForwards
from cctailscale.errors import ForwardsFull, InboundOff, PortUnfit
from cctailscale.tailnet import node as node_module
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.forward import Forwards
from cctailscale.tailnet.node import Node
from tests.agent import Agent, Json
from tests.conftest import environ_for
from tests.inprocess import event, node_in, unheard
from tests.localnet import Localnet

BOUND = 15.0
PORT = 8080
ON = {"TS_ALLOW_INBOUND_FORWARD": "1"}
GRANT = {"cc-tailscale.dev/cap/agent": [{"allow": ["message"]}]}
T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def within(answer: Awaitable[T], seconds: float = BOUND) -> T:
    return await asyncio.wait_for(answer, seconds)


async def until(condition: Any, seconds: float = BOUND) -> None:
    """Waits for something that no event tells of."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


class Program:
    """A program on 127.0.0.1 that sends back what it gets, and ends after its client has."""

    def __init__(self) -> None:
        self.port = 0
        self.clients: list[str] = []
        self.open = 0

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Program]:
        program = cls()
        server = await asyncio.start_server(program._echo, "127.0.0.1", 0)
        program.port = server.sockets[0].getsockname()[1]
        async with server:
            yield program

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(writer.get_extra_info("peername")[0])
        self.open += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    async with Program.started() as program:
        yield program


@asynccontextmanager
async def showing(environ: dict[str, str], **settings: str) -> AsyncIterator[tuple[Node, InboundForwards]]:
    """A node in this process that may show ports."""
    async with (
        node_in(environ | ON | settings) as node,
        Forwards.opened(node) as outbound,
        InboundForwards.opened(node, outbound) as inbound,
    ):
        yield node, inbound


@asynccontextmanager
async def visitor(tailnet: Localnet, folder: Path, **key: Any) -> AsyncIterator[Device]:
    """The device of somebody else in this process; of alice@example.com unless `key` says otherwise."""
    home = folder / "visitor"
    home.mkdir()
    environ = environ_for(tailnet, home) | {"USER": "visitor"} | ({"TS_AUTHKEY": tailnet.key(**key)} if key else {})
    async with node_in(environ) as node:
        yield await node.device(unheard)


async def made(forwards: InboundForwards, local_port: int, port: int = PORT) -> InboundForward:
    forward, new = await within(forwards.create(port, local_port, unheard))
    assert new
    return forward


async def visit(device: Device, forward: InboundForward) -> Streams:
    address = (await device.dialer.resolve(forward.name))[0]
    return await asyncio.open_connection(sock=await within(device.dialer.connect(address, forward.port)))


async def echoed(streams: Streams, data: bytes = b"hello") -> bool:
    reader, writer = streams
    writer.write(data)
    return await within(reader.readexactly(len(data))) == data


async def is_cut_off(streams: Streams, seconds: float = BOUND) -> bool:
    """Whether the connection ends without a byte. The node's TCP may show a reset as an end."""
    try:
        return await within(streams[0].read(), seconds) == b""
    except ConnectionError:
        return True
    finally:
        streams[1].close()


# ---- who may connect -------------------------------------------------------------------------------------------------


async def test_a_device_of_the_same_owner_reaches_the_program_and_is_listed(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program
) -> None:
    async with Agent.started(environ | ON) as agent, visitor(tailnet, tmp_path) as device:
        arguments = {"direction": "from_tailnet", "port": PORT, "local_port": program.port}
        result = await port_forward(agent, action="create", **arguments)
        name = (await agent.status())["magic_dns_name"]
        assert (result["id"], result["target"]) == ("i1", f"{name}:{PORT}")
        assert result["local"] == f"127.0.0.1:{program.port}"
        assert "Who may send messages to this agent can connect" in result["note"]
        assert "come from 127.0.0.1" in result["note"]

        address = (await device.dialer.resolve(name))[0]
        streams = await asyncio.open_connection(sock=await within(device.dialer.connect(address, PORT)))
        assert await echoed(streams, b"hello")
        assert program.clients == ["127.0.0.1"]
        (row,) = (await port_forward(agent, action="list"))["forwards"]
        assert (row["direction"], row["connections"], row["connections_total"]) == ("from_tailnet", 1, 1)
        (peer,) = row["peers"]
        me = await device.me()
        assert me is not None
        assert (peer["name"], peer["owner"]) == (me.node.name, "alice@example.com")
        assert (peer["sent_bytes"], peer["received_bytes"]) == (5, 5)
        assert peer["since"].endswith("Z")
        assert row["refused_total"] == 0

        again = await port_forward(agent, action="create", **arguments)
        assert again["id"] == "i1"
        assert again["note"].startswith("There was this forward already.")
        closed = await port_forward(agent, action="close", id="i1")
        assert closed["note"] == f"Closed; {name}:{PORT} does not lead to this machine any more."
        assert await is_cut_off(streams)
        assert (await port_forward(agent, action="list"))["forwards"] == []


async def port_forward(agent: Agent, **arguments: Any) -> Json:
    structured = (await agent.succeed("tailscale_port_forward", **arguments)).structured
    assert structured is not None
    return structured


async def test_a_device_of_another_owner_is_refused_before_a_byte_and_shown(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program
) -> None:
    async with Agent.started(environ | ON) as agent, visitor(tailnet, tmp_path, user="bob@example.com") as device:
        result = await port_forward(
            agent, action="create", direction="from_tailnet", port=PORT, local_port=program.port
        )
        address = (await device.dialer.resolve(result["target"].partition(":")[0]))[0]
        for _ in range(2):
            sock = await within(device.dialer.connect(address, PORT))
            assert await is_cut_off(await asyncio.open_connection(sock=sock))
        (row,) = (await port_forward(agent, action="list"))["forwards"]
        assert (row["connections_total"], row["refused_total"], row["peers"]) == (0, 2, [])
        assert "of bob@example.com may not send messages to this agent" in row["last_refusal"]
        assert "TS_ALLOW_FROM=bob@example.com" in row["last_refusal"]
        assert program.clients == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; and only Linux tells a close from a half-close")
async def test_a_refused_visitor_that_holds_on_costs_this_process_nothing(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program
) -> None:
    async with visitor(tailnet, tmp_path, user="bob@example.com") as device, showing(environ) as (_, inbound):
        forward = await made(inbound, program.port)
        held = []

        async def refused() -> None:
            held.append(await visit(device, forward))
            assert await within(held[-1][0].read()) == b""

        await refused()
        before = descriptors()
        for _ in range(50):
            await refused()
        # Of each, the visitor, who is in this process too, holds one in Python and one in Go.
        await until(lambda: descriptors() - before <= 2 * 50)
        for _, writer in held:
            writer.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no iterator of its own is to be counted


async def test_a_tagged_device_is_not_its_owner_and_a_shared_tag_opens(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program
) -> None:
    async with visitor(tailnet, tmp_path, tags=["tag:ci"]) as device:
        async with showing(environ) as (_, inbound):
            forward = await made(inbound, program.port)
            assert await is_cut_off(await visit(device, forward))
            assert forward.refusals.peers[0].peer.tags == ("tag:ci",)
        key = tailnet.key(tags=["tag:ci", "tag:web"])
        async with showing(environ, TS_AUTHKEY=key) as (_, inbound):
            forward = await made(inbound, program.port)
            streams = await visit(device, forward)
            assert await echoed(streams)
            assert forward.visits[0].peer.tags == ("tag:ci",)
            streams[1].close()


async def test_whom_the_user_names_may_connect(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program
) -> None:
    async with (
        visitor(tailnet, tmp_path, user="bob@example.com") as device,
        showing(environ, TS_ALLOW_FROM="bob@example.com") as (_, inbound),
    ):
        forward = await made(inbound, program.port)
        streams = await visit(device, forward)
        assert await echoed(streams)
        assert forward.visits[0].peer.login == "bob@example.com"
        streams[1].close()


async def test_a_grant_opens_and_taken_back_it_ends_what_it_opened(
    own_tailnet: Localnet,
    own_environ: dict[str, str],
    tmp_path: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert inbound_module.DECIDE_AGAIN_SECONDS <= 5
    monkeypatch.setattr(inbound_module, "DECIDE_AGAIN_SECONDS", 0.05)
    async with (
        visitor(own_tailnet, tmp_path, user="bob@example.com") as device,
        showing(own_environ) as (node, inbound),
    ):
        forward = await made(inbound, program.port)
        me = await device.me()
        assert me is not None
        grant = {"src": [me.node.name.partition(".")[0]], "dst": [forward.name.partition(".")[0]], "app": GRANT}
        own_tailnet.admin("PUT", "/policy", {"grants": [grant]})
        here = await node.device(unheard)
        with anyio.fail_after(BOUND):
            while True:  # a change of the policy alone raises no event
                who = await here.whois(me.node.addresses[0].partition("/")[0])
                if who is not None and who.capabilities:
                    break
        streams = await visit(device, forward)
        assert await echoed(streams)
        own_tailnet.admin("PUT", "/policy", {})
        assert await is_cut_off(streams)
        await until(lambda: forward.connections == 0)
        assert "may not send messages to this agent" in str(forward.last_error)


# ---- what is refused -------------------------------------------------------------------------------------------------


async def test_it_is_off_unless_the_user_has_turned_it_on(environ: dict[str, str]) -> None:
    async with node_in(environ) as node, Forwards.opened(node) as outbound:
        async with InboundForwards.opened(node, outbound) as inbound:
            with pytest.raises(InboundOff, match="set TS_ALLOW_INBOUND_FORWARD=1"):
                await inbound.create(PORT, 3000, unheard)
        assert node.hostname is None  # it has not even joined


async def test_ports_that_cannot_be_shown_are_refused(environ: dict[str, str]) -> None:
    async with (
        node_in(environ | ON) as node,
        Forwards.opened(node) as outbound,
        InboundForwards.opened(node, outbound) as inbound,
    ):
        lent, _ = await outbound.create("web", 80, 0, unheard)
        with pytest.raises(PortUnfit, match="Port 9321 of this node is the one on which agents talk"):
            await inbound.create(9321, 3000, unheard)
        with pytest.raises(PortUnfit, match=r"is the local end of the forward f1: .* with this node's identity"):
            await inbound.create(PORT, lent.local_port, unheard)
        first = await made(inbound, 3000)
        assert await inbound.create(PORT, 3000, unheard) == (first, False)
        with pytest.raises(PortUnfit, match=rf"Port {PORT} of this node goes to 127.0.0.1:3000 already"):
            await inbound.create(PORT, 3001, unheard)
        assert inbound.all() == [first]


async def test_a_local_end_that_was_made_later_is_not_shown_either(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path
) -> None:
    async with (
        node_in(environ | ON) as node,
        Forwards.opened(node) as outbound,
        InboundForwards.opened(node, outbound) as inbound,
        visitor(tailnet, tmp_path) as device,
    ):
        async with Program.started() as program:
            port = program.port
        forward = await made(inbound, port)
        lent, _ = await outbound.create("web", 7, port, unheard)
        assert await is_cut_off(await visit(device, forward))
        assert f"now the local end of the forward {lent.id}" in str(forward.last_error)
        assert lent.total == 0


async def test_there_are_at_most_so_many(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert inbound_module.MAX_FORWARDS == 8
    monkeypatch.setattr(inbound_module, "MAX_FORWARDS", 1)
    async with showing(environ) as (_, inbound):
        first = await made(inbound, 3000)
        with pytest.raises(ForwardsFull, match="There are 1 forwards from the tailnet already"):
            await inbound.create(PORT + 1, 3000, unheard)
        await inbound.close(first)
        await made(inbound, 3000)  # the same port at once: Go has freed it


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"local_port": 3000}, "the action create needs port and local_port, and no host"),
        ({"port": PORT}, "the action create needs port and local_port, and no host"),
        ({"port": PORT, "local_port": 3000, "host": "web"}, "needs port and local_port, and no host"),
        ({"port": 0, "local_port": 3000}, "port: input should be greater than or equal to 1"),
        ({"port": 65536, "local_port": 3000}, "port: input should be less than or equal to 65535"),
        ({"port": PORT, "local_port": 65536}, "local_port: input should be less than or equal to 65535"),
        ({"port": PORT, "local_port": 3000, "direction": "in"}, "input should be 'to_tailnet' or 'from_tailnet'"),
        ({"port": PORT, "local_port": 3000}, 'set TS_ALLOW_INBOUND_FORWARD=1 in the "env" block'),
    ],
)
async def test_arguments_that_make_no_sense_are_refused_with_the_reason(
    shared_agent: Agent, arguments: dict[str, Any], text: str
) -> None:
    call = {"action": "create", "direction": "from_tailnet"} | arguments
    assert text in await shared_agent.fail("tailscale_port_forward", **call)


@pytest.fixture(scope="module")
async def shared_agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


# ---- what goes through, and what breaks ------------------------------------------------------------------------------


async def test_a_visitor_that_has_said_all_still_gets_the_answer(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program
) -> None:
    async with visitor(tailnet, tmp_path) as device, showing(environ) as (_, inbound):
        forward = await made(inbound, program.port)
        reader, writer = await visit(device, forward)
        writer.write(b"x" * 100_000)
        writer.write_eof()
        assert await within(reader.read()) == b"x" * 100_000
        writer.close()
        await until(lambda: forward.connections == 0)
        assert (forward.sent, forward.received, forward.last_error) == (100_000, 100_000, None)
        assert forward.visits == []


async def test_a_program_that_is_down_cuts_the_visitor_off_and_the_list_says_why(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path
) -> None:
    async with visitor(tailnet, tmp_path) as device, showing(environ) as (_, inbound):
        async with Program.started() as program:
            port = program.port
        forward = await made(inbound, port)
        assert await is_cut_off(await visit(device, forward), 5)
        assert f"127.0.0.1:{port} takes no connection: Connection refused." in str(forward.last_error)
        assert forward.connections == 0


async def test_it_is_there_again_on_the_device_that_takes_the_place(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(node_module, "CHECK_SECONDS", 0.0)
    async with visitor(tailnet, tmp_path) as device, showing(environ) as (node, inbound):
        forward = await made(inbound, program.port)
        old = await node.device(unheard)
        before = tailnet.last_event()
        tailnet.admin("DELETE", f"/nodes/{node.hostname}")
        await event(tailnet, "registered", node.hostname, after=before)
        with anyio.fail_after(BOUND):
            new = await node.next_device(old)
            me = await new.me()
            assert me is not None
            while device_of(await device.whois(me.node.addresses[0].partition("/")[0])) != me.node.stable_id:
                pass  # the visitor has not heard of it yet
        await until(lambda: forward.name == me.node.name and forward.listeners)
        streams = await visit(device, forward)
        assert await echoed(streams)
        streams[1].close()


def device_of(who: Any) -> str | None:
    return who.node.stable_id if who else None


async def test_it_ends_with_the_session(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path, program: Program
) -> None:
    async with Agent.started(environ | ON) as agent, visitor(tailnet, tmp_path) as device:
        result = await port_forward(
            agent, action="create", direction="from_tailnet", port=PORT, local_port=program.port
        )
        address = (await device.dialer.resolve(result["target"].partition(":")[0]))[0]
        streams = await asyncio.open_connection(sock=await within(device.dialer.connect(address, PORT)))
        assert await echoed(streams)
        assert await agent.stop(signal.SIGINT) == 0
        await until(lambda: program.open == 0, 2)
        assert "Traceback" not in agent.stderr
        streams[1].close()
