"""Port forwards: programs on this machine reach services of the tailnet, and how it ends when something breaks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from cctailscale.errors import BadName, ForwardsFull, NoSuchName, NotOnTailnet, OwnNode
from cctailscale.tailnet import forward as forward_module
from cctailscale.tailnet import node as node_module
from cctailscale.tailnet.forward import Forward, Forwards
from tests.agent import Agent, Json
from tests.conftest import environ_for
from tests.inprocess import event, node_in, unheard
from tests.localnet import Localnet
from tests.scripted import ScriptedPeer

BOUND = 15.0
MIB = 1 << 20
ECHO, DISCARD, CHARGEN, HTTP = 7, 9, 19, 80
T = TypeVar("T")


async def within(answer: Awaitable[T], seconds: float = BOUND) -> T:
    return await asyncio.wait_for(answer, seconds)


async def opened(forward: Forward | int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = forward if isinstance(forward, int) else forward.local_port
    return await within(asyncio.open_connection("127.0.0.1", port, limit=1 << 20))


async def http_get(forward: Forward | int, path: str = "/") -> bytes:
    """What a program gets that asks for a page and reads to the end."""
    reader, writer = await opened(forward)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: web\r\n\r\n".encode())
    answer = await within(reader.read())
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def ended(reader: asyncio.StreamReader, seconds: float) -> None:
    """Asserts that the connection is reset, whatever may come before."""
    with pytest.raises(ConnectionResetError):  # noqa: PT012
        async with asyncio.timeout(seconds):
            while await reader.read(MIB):
                pass


async def until(condition: Any, seconds: float = BOUND) -> None:
    """Waits for something that no event tells of."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


@pytest.fixture
async def forwards(environ: dict[str, str]) -> AsyncIterator[Forwards]:
    """Forwards through a node in this process, on the tailnet with the peer "web"."""
    async with node_in(environ) as node, Forwards.opened(node) as opened_forwards:
        yield opened_forwards


async def made(forwards: Forwards, host: str, port: int) -> Forward:
    forward, new = await within(forwards.create(host, port, 0, unheard))
    assert new
    return forward


# ---- what goes through -----------------------------------------------------------------------------------------------


async def test_a_program_reaches_a_service_by_its_local_port_and_the_service_sees_this_device(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with Agent.started(environ) as agent:
        result = await port_forward(agent, action="create", host="web", port=HTTP)
        assert result["id"] == "f1"
        host, _, port = result["local"].partition(":")
        assert host == "127.0.0.1"
        assert "Any local user can connect to it" in result["note"]
        name = (await agent.status())["magic_dns_name"]
        assert f"You are {name} (alice@example.com)".encode() in await http_get(int(port))
        (row,) = (await port_forward(agent, action="list"))["forwards"]
        assert row["target"] == f"web.{tailnet.magic_dns_suffix}:80"
        assert (row["local"], row["connections_total"], row["last_error"]) == (result["local"], 1, None)
        assert row["sent_bytes"] == len("GET / HTTP/1.0\r\nHost: web\r\n\r\n")
        assert row["received_bytes"] > 100
        assert 0 <= row["age_ms"] < 60_000
        assert abs(time.time() - datetime.fromisoformat(row["created"]).timestamp()) < 60


async def port_forward(agent: Agent, **arguments: Any) -> Json:
    structured = (await agent.succeed("tailscale_port_forward", **arguments)).structured
    assert structured is not None
    return structured


async def test_every_byte_arrives_in_order_both_ways(forwards: Forwards) -> None:
    forward = await made(forwards, "web", HTTP)
    pattern = bytes(i % 251 for i in range(251)) * 33_500
    assert await http_get(forward, f"/bytes?n={8 * MIB}") == pattern[: 8 * MIB]
    body = os.urandom(8 * MIB)
    reader, writer = await opened(forward)
    writer.write(f"POST /upload HTTP/1.0\r\nHost: web\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await within(reader.read())
    writer.close()
    assert hashlib.sha256(body).hexdigest().encode() in answer
    await until(lambda: forward.connections == 0)
    assert forward.received > 8 * MIB
    assert forward.sent > 8 * MIB


async def test_a_program_that_has_said_all_still_gets_the_answer(forwards: Forwards) -> None:
    forward = await made(forwards, "web", ECHO)
    reader, writer = await opened(forward)
    writer.write(b"x" * 100_000)
    writer.write_eof()
    assert await within(reader.read()) == b"x" * 100_000
    writer.close()
    await until(lambda: forward.connections == 0)
    assert forward.last_error is None


async def test_a_service_that_has_said_all_still_hears_the_program(
    tailnet: Localnet, forwards: Forwards, tmp_path: Path
) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"my last word")
        writer.write_eof()
        heard.set_result(await reader.read())

    async with ScriptedPeer.joined(tailnet, "talker", tmp_path / "talker") as peer:
        await peer.serve(2000, service)
        forward = await made(forwards, "talker", 2000)
        reader, writer = await opened(forward)
        assert await within(reader.read()) == b"my last word"
        writer.write(b"and mine")
        writer.write_eof()
        assert await within(heard) == b"and mine"
        writer.close()
        await until(lambda: forward.connections == 0)
        assert forward.last_error is None


async def test_two_hundred_connections_at_once_are_all_served(forwards: Forwards) -> None:
    forward = await made(forwards, "web", ECHO)
    threads = threading.active_count()
    streams = await asyncio.gather(*(opened(forward) for _ in range(200)))

    async def talk(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = f"number {number}".encode() * 100
        writer.write(text)
        assert await within(reader.readexactly(len(text)), 30) == text

    await asyncio.gather(*(talk(number, *stream) for number, stream in enumerate(streams)))
    assert forward.connections == 200
    assert threading.active_count() < threads + 20  # none for each connection
    for reader, writer in streams:
        writer.write_eof()
        assert await within(reader.read()) == b""
        writer.close()
    await until(lambda: forward.connections == 0)
    assert (forward.total, forward.turned_away, forward.last_error) == (200, 0, None)


async def test_a_reader_that_stalls_stops_the_peer_and_memory_does_not_grow(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with Agent.started(environ) as agent:
        local = (await port_forward(agent, action="create", host="web", port=CHARGEN))["local"]
        before = resident(agent.pid)
        with socket.create_connection(("127.0.0.1", int(local.partition(":")[2]))):
            received, last = 1, 0
            with anyio.fail_after(BOUND):
                while received != last:
                    await anyio.sleep(0.5)
                    last = received
                    (row,) = (await port_forward(agent, action="list"))["forwards"]
                    received = row["received_bytes"]
            assert 0 < received < 32 * MIB  # what the buffers on the way hold; unbounded it would be hundreds by now
            assert resident(agent.pid) - before < 96 * MIB


def resident(pid: int) -> int:
    """A process's memory in bytes (proc_pid_status(5), VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmRSS")


# ---- one forward for one target --------------------------------------------------------------------------------------


async def test_the_same_target_in_any_form_gives_the_first_forward(tailnet: Localnet, forwards: Forwards) -> None:
    forward = await made(forwards, "web", HTTP)
    addresses = tailnet.node("web")["addresses"]
    names = ["web", "WEB", "web.", f"web.{tailnet.magic_dns_suffix}", f"web.{tailnet.magic_dns_suffix}.", *addresses]
    for name in names:
        assert await forwards.create(name, HTTP, 0, unheard) == (forward, False), name
    assert len(addresses) == 2
    assert await made(forwards, "web", 8080) is not forward


async def test_creates_of_one_target_at_the_same_time_make_one_forward(forwards: Forwards) -> None:
    results = await asyncio.gather(*(forwards.create("web", HTTP, 0, unheard) for _ in range(5)))
    assert len({forward.id for forward, _ in results}) == 1
    assert [new for _, new in results].count(True) == 1


async def test_a_local_port_can_be_chosen_and_is_free_again_after_the_close(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with Agent.started(environ) as agent:
        for _ in range(2):
            result = await port_forward(agent, action="create", host="web", port=HTTP, local_port=port)
            assert result["local"] == f"127.0.0.1:{port}"
            again = await port_forward(agent, action="create", host="web", port=HTTP, local_port=port + 1)
            assert again["id"] == result["id"]
            assert f"For the local port {port + 1}, close it first." in again["note"]
            assert b"Hello from web" in await http_get(port)
            closed = await port_forward(agent, action="close", id=result["id"])
            assert (closed["id"], closed["local"]) == (result["id"], f"127.0.0.1:{port}")
            with pytest.raises(ConnectionRefusedError):
                await opened(port)
        assert (await port_forward(agent, action="list"))["forwards"] == []


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("nobody", NoSuchName),
        ("a" * 300, BadName),
        ("the web", BadName),
        ("", BadName),
        ("http://web", BadName),
        ("100.64.0.0/10", BadName),
        ("8.8.8.8", NotOnTailnet),
        ("127.0.0.1", NotOnTailnet),
        ("::1", NotOnTailnet),
        ("169.254.169.254", NotOnTailnet),
        ("100.100.100.100", NotOnTailnet),
        ("localhost", NoSuchName),
    ],
)
async def test_a_host_that_is_not_on_the_tailnet_gets_no_listener(
    forwards: Forwards, host: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await within(forwards.create(host, HTTP, 0, unheard))
    assert forwards.all() == []


async def test_this_node_is_refused_under_each_of_its_names(environ: dict[str, str]) -> None:
    async with node_in(environ) as node, Forwards.opened(node) as forwards:
        device = await node.device(unheard)
        me = (await device.api.status(peers=False)).me
        assert me is not None
        for name in (me.name, f"{me.name}.", me.name.partition(".")[0], *me.tailscale_ips):
            for port in (HTTP, 9321):
                with pytest.raises(OwnNode, match="would lend this node's identity"):
                    await forwards.create(name, port, 0, unheard)
        assert forwards.all() == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"action": "create", "host": "web"}, "The action create needs host and port."),
        ({"action": "create", "port": 80}, "The action create needs host and port."),
        ({"action": "close"}, "The action close needs id."),
        ({"action": "close", "id": "f7"}, "No forward has the id f7. There is none."),
        ({"action": "open"}, "action: input should be 'create', 'list' or 'close'"),
        ({"action": "create", "host": "web", "port": 0}, "port: input should be greater than or equal to 1"),
        ({"action": "create", "host": "web", "port": 65536}, "port: input should be less than or equal to 65535"),
        (
            {"action": "create", "host": "web", "port": 80, "local_port": 65536},
            "local_port: input should be less than or equal to 65535",
        ),
        ({"action": "create", "host": "web", "port": 80, "bind": "0.0.0.0"}, "bind: is not a parameter of it"),
    ],
)
async def test_arguments_that_make_no_sense_are_refused_with_the_reason(
    shared_agent: Agent, arguments: dict[str, Any], text: str
) -> None:
    assert text in await shared_agent.fail("tailscale_port_forward", **arguments)


@pytest.fixture(scope="module")
async def shared_agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


async def test_a_local_port_in_use_is_named_and_nothing_is_left(shared_agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = await shared_agent.fail("tailscale_port_forward", action="create", host="web", port=81, local_port=port)
    assert f"The local port {port} cannot be used: Address already in use." in text
    assert (await port_forward(shared_agent, action="list"))["forwards"] == []


async def test_there_are_at_most_so_many_forwards(forwards: Forwards, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forward_module.MAX_FORWARDS == 32
    monkeypatch.setattr(forward_module, "MAX_FORWARDS", 2)
    await made(forwards, "web", 1)
    second = await made(forwards, "web", 2)
    with pytest.raises(ForwardsFull, match="There are 2 forwards to the tailnet already"):
        await forwards.create("web", 3, 0, unheard)
    await forwards.close(second.id)
    await made(forwards, "web", 3)


async def test_a_connection_too_many_is_closed_at_once_and_counted(
    forwards: Forwards, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forward_module.MAX_CONNECTIONS == 256
    monkeypatch.setattr(forward_module, "MAX_CONNECTIONS", 2)
    forward = await made(forwards, "web", ECHO)
    kept = [await opened(forward) for _ in range(2)]
    reader, writer = await opened(forward)
    await ended(reader, 5)
    writer.close()
    assert (forward.turned_away, forward.connections) == (1, 2)
    kept[0][1].write(b"x")
    assert await within(kept[0][0].readexactly(1)) == b"x"
    for _, open_writer in kept:
        open_writer.close()
    await until(lambda: forward.connections == 0)
    assert await within(anyio.to_thread.run_sync(lambda: probe(forward.local_port))) == b"x"


def probe(port: int) -> bytes:
    """One byte to an echo and back."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(b"x")
        return sock.recv(1)


# ---- what breaks -----------------------------------------------------------------------------------------------------


async def test_a_port_on_which_nothing_listens_resets_the_program_and_the_list_says_why(forwards: Forwards) -> None:
    forward = await made(forwards, "web", 81)
    reader, writer = await opened(forward)
    await ended(reader, 5)
    writer.close()
    assert forward.last_error is not None
    assert "refused the connection" in forward.last_error
    assert forward.connections == 0


async def test_a_service_that_breaks_off_resets_the_program(
    tailnet: Localnet, forwards: Forwards, tmp_path: Path
) -> None:
    full = asyncio.Event()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await within(full.wait())  # so much unread makes a reset of the close

    async with ScriptedPeer.joined(tailnet, "rude", tmp_path / "rude") as peer:
        await peer.serve(2000, service)
        forward = await made(forwards, "rude", 2000)
        reader, writer = await opened(forward)
        sending = asyncio.create_task(send_without_end(writer))
        sent = -1
        while sent != forward.sent or not sent:
            sent = forward.sent
            await anyio.sleep(0.3)
        full.set()
        await ended(reader, 5)
        with pytest.raises(ConnectionError):
            await within(sending)
        await until(lambda: forward.connections == 0)
        assert forward.last_error in ("Connection reset by peer", "Broken pipe")


async def send_without_end(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def test_a_program_that_breaks_off_ends_the_service_s_connection_within_two_seconds(
    tailnet: Localnet, forwards: Forwards, tmp_path: Path
) -> None:
    over = asyncio.Event()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await send_without_end(writer)
        finally:
            over.set()

    async with ScriptedPeer.joined(tailnet, "giver", tmp_path / "giver") as peer:
        await peer.serve(2000, service)
        forward = await made(forwards, "giver", 2000)
        reader, writer = await opened(forward)
        await within(reader.readexactly(MIB))
        writer.transport.abort()
        await within(over.wait(), 2)
        await until(lambda: forward.connections == 0)


@pytest.mark.parametrize("port", [CHARGEN, DISCARD])
async def test_a_peer_that_is_killed_in_the_midst_resets_the_program_within_two_seconds(
    own_tailnet: Localnet, own_environ: dict[str, str], port: int
) -> None:
    with own_tailnet.peer("doomed") as doomed:
        async with node_in(own_environ) as node, Forwards.opened(node) as forwards:
            forward = await made(forwards, "doomed", port)
            reader, writer = await opened(forward)
            moving = asyncio.create_task(send_without_end(writer) if port == DISCARD else reader.read(-1))
            await until(lambda: forward.sent + forward.received > MIB)
            os.kill(doomed["pid"], signal.SIGKILL)
            with pytest.raises(ConnectionResetError):
                await within(moving, 2)
            writer.close()
            assert forward.last_error == "the peer has vanished: control has lost it, and it answers no ping"


async def test_closing_a_forward_resets_its_connections(forwards: Forwards) -> None:
    forward = await made(forwards, "web", CHARGEN)
    reader, writer = await opened(forward)
    await within(reader.readexactly(1000))
    assert await within(forwards.close(forward.id)) is forward
    await ended(reader, 2)
    writer.close()
    assert forwards.all() == []


async def test_forwards_end_with_the_session(environ: dict[str, str]) -> None:
    async with Agent.started(environ) as agent:
        local = (await port_forward(agent, action="create", host="web", port=CHARGEN))["local"]
        port = int(local.partition(":")[2])
        reader, writer = await opened(port)
        await within(reader.readexactly(1000))
        assert await agent.stop(signal.SIGINT) == 0
        await ended(reader, 2)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await opened(port)
        assert "Traceback" not in agent.stderr


async def test_a_forward_goes_on_when_its_device_was_deleted_and_nobody_calls_a_tool(
    tailnet: Localnet, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node_module.LOOK_SECONDS + node_module.CHECK_SECONDS < 25  # of the 30 s that are allowed
    monkeypatch.setattr(node_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(node_module, "CHECK_SECONDS", 0.0)
    async with node_in(environ) as node, Forwards.opened(node) as forwards:
        forward = await made(forwards, "web", HTTP)
        old = await node.device(unheard)
        assert b"Hello from web" in await http_get(forward)
        before = tailnet.last_event()
        tailnet.admin("DELETE", f"/nodes/{node.hostname}")
        await event(tailnet, "registered", node.hostname, after=before)
        with anyio.fail_after(BOUND):
            while await node.device(unheard) is old:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert b"Hello from web" in await http_get(forward)


async def test_a_name_that_has_moved_is_followed(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    with own_tailnet.peer("one"), own_tailnet.peer("two"):
        async with node_in(own_environ) as node, Forwards.opened(node) as forwards:
            name = f"service.{own_tailnet.magic_dns_suffix}"
            await moved(own_tailnet, forwards, name, "one")
            forward = await made(forwards, name, HTTP)
            assert b"Hello from one" in await http_get(forward)
            await moved(own_tailnet, forwards, name, "two")
            assert b"Hello from two" in await http_get(forward)


async def moved(tailnet: Localnet, forwards: Forwards, name: str, to: str) -> None:
    """Has the tailnet's DNS call the device `to` by `name`, and waits until the node knows."""
    address = next(a for a in tailnet.node(to)["addresses"] if ":" not in a)
    tailnet.admin("PUT", "/dns", {"extra_records": [{"name": name, "type": "A", "value": address}]})
    device = await forwards._node.device(unheard)
    with anyio.fail_after(BOUND):
        while True:
            try:
                if [str(found) for found in await device.dialer.resolve(name)] == [address]:
                    return
            except NoSuchName:
                pass
            await anyio.sleep(0.01)
