"""The agents' server on a socket pair, where a node cannot be made to behave like that: a device played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.agents import connection
from cctailscale.agents.connection import answer
from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Policy
from cctailscale.agents.server import AgentServer, Endpoint
from cctailscale.agents.wire import AgentCard, Refusal
from cctailscale.errors import NodeClosed, TimedOut
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.models import KnownNode, User, WhoIs

PEER = "100.64.0.2:49152"
HEAD = b"Host: agent\r\nContent-Type: application/json\r\n"


def who(hostname: str, number: int) -> WhoIs:
    node = KnownNode(stable_id=f"n{number}", full_name=f"{hostname}.tail.ts.net.", addresses=[f"100.64.0.{number}/32"])
    return WhoIs(node=node, user_profile=User(login_name="alice@example.com"))


class FakeDevice:
    """Says of everybody what the test wants."""

    def __init__(self) -> None:
        self.own: WhoIs | None = who("agent", 1)
        self.peer: WhoIs | None = who("friend", 2)
        self.error: Exception | None = None

    async def me(self, max_age: float = 0.0) -> WhoIs | None:  # noqa: ARG002 - the form of Device.me
        return self.own

    async def whois(self, address: str) -> WhoIs | None:
        assert address == PEER
        if self.error is not None:
            raise self.error
        return self.peer


@asynccontextmanager
async def serving(device: FakeDevice, folder: Path, policy: Policy | None = None) -> AsyncIterator[Any]:
    """A server, and a function that asks it something on a connection of its own and gives all that comes back."""
    card = AgentCard(name="agent", version="0", protocol=1, since=datetime.now(UTC))
    async with (
        Inbox.opened(folder / "inbox.db") as inbox,
        AgentServer.opened(inbox, policy or Policy(), lambda: card) as server,
    ):

        async def ask(*parts: bytes) -> bytes:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            loop, got = asyncio.get_running_loop(), b""
            with ours, theirs, anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(server.serve, cast("Device", device), ours, PEER)
                    with contextlib.suppress(ConnectionError):
                        for part in parts:
                            await loop.sock_sendall(theirs, part)
                            await anyio.lowlevel.checkpoint()
                    with contextlib.suppress(ConnectionError):  # it may end before it has read everything
                        while data := await loop.sock_recv(theirs, 65536):
                            got += data
            return got

        ask.server = server  # type: ignore[attr-defined]
        yield ask


def refusal(got: bytes) -> tuple[int, str]:
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), Refusal.from_json(body).error


GET = b"GET /v1/agent HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n"


async def test_a_peer_that_whois_does_not_know_is_nobody_even_where_everybody_may(tmp_path: Path) -> None:
    device = FakeDevice()
    async with serving(device, tmp_path, Policy(("*",))) as ask:
        assert b" 200 OK" in await ask(GET)
        device.peer = None
        assert refusal(await ask(GET)) == (403, "refused")
        (refused,) = ask.server.refusals.peers
        assert (refused.peer.node_id, refused.peer.name) == ("", PEER)


@pytest.mark.parametrize("error", [NodeClosed(), TimedOut("the node", 5)], ids=["closed", "slow"])
async def test_without_an_answer_to_who_that_is_nobody_gets_in(tmp_path: Path, error: Exception) -> None:
    device = FakeDevice()
    device.error = error
    async with serving(device, tmp_path, Policy(("*",))) as ask:
        assert refusal(await ask(GET)) == (503, "not_running")


async def test_a_node_that_has_no_address_is_not_on_the_tailnet(tmp_path: Path) -> None:
    device = FakeDevice()
    device.own = None
    async with serving(device, tmp_path) as ask:
        assert refusal(await ask(GET)) == (503, "not_running")


async def test_a_defect_shows_in_the_log_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = FakeDevice()
    device.error = ZeroDivisionError("the secret of the defect")
    async with serving(device, tmp_path) as ask:
        got = await ask(GET)
    assert refusal(got) == (500, "defect")
    assert b"secret" not in got
    assert "the secret of the defect" in caplog.text


async def test_an_endpoint_can_be_added_and_sees_who_asks_and_what(tmp_path: Path) -> None:
    calls = []

    async def handle(call: Any) -> Any:
        calls.append(call)
        return answer(b"{}")

    async with serving(FakeDevice(), tmp_path) as ask:
        ask.server.endpoints.append(Endpoint("POST", r"/v1/team/tasks/([0-9]+)", "team", handle))
        post = b"POST /v1/team/tasks/12?x=y HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n" + HEAD + b"\r\n[]"
        assert b" 200 OK" in await ask(post)
    (call,) = calls
    assert (call.me.name, call.peer.name) == ("agent.tail.ts.net", "friend.tail.ts.net")
    assert (call.body, call.parts, call.query) == (b"[]", ("12",), "x=y")


async def test_an_endpoint_that_waits_does_so_no_longer_than_somebody_is_there(tmp_path: Path) -> None:
    ended = anyio.Event()
    begun = anyio.Event()

    async def handle(_: Any) -> Any:
        try:
            begun.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with serving(FakeDevice(), tmp_path) as ask, anyio.create_task_group() as tasks:
        ask.server.endpoints.append(Endpoint("GET", "/v1/news", "team", handle, waits=True))
        tasks.start_soon(ask, GET.replace(b"/v1/agent", b"/v1/news"))
        await begun.wait()
        tasks.cancel_scope.cancel()
    assert ended.is_set()


async def test_a_cancelled_connection_ends(tmp_path: Path) -> None:
    async with serving(FakeDevice(), tmp_path) as ask:
        for steps in range(8):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with theirs:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask.server.serve, FakeDevice(), ours, PEER)
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                await anyio.lowlevel.checkpoint()
                assert ours.fileno() == -1
                theirs.settimeout(5)
                assert theirs.recv(10) == b""


TOKENS = [
    b"GET /v1/agent HTTP/1.1\r\n" + HEAD, b"POST /v1/messages HTTP/1.1\r\n" + HEAD, HEAD,
    b"GET ", b"POST ", b"/v1/agent", b"/v1/messages", b"/v2/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: agent\r\n",
    b"Content-Length: 2\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b'Content-Type: \xff;;charset="\r\n', b"Content-Type: application/json; charset=\0\r\n", b"Host: [\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Origin: x\r\n",
    b"Content-Encoding: br\r\n", b"\r\n", b"\r\n\r\n", b"{}", b"0\r\n\r\n", b"2\r\n{}\r\n", b"\0", b"\n", b"?", b"%",
    b"http://[/", b"//", b"*",
]  # fmt: skip


@pytest.fixture(scope="module")
def hasty() -> Iterator[None]:
    """A connection on which nothing comes of what was sent ends at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "REQUEST_SECONDS", 0.02)
        patch.setattr(connection, "NEXT_REQUEST_SECONDS", 0.02)
        patch.setattr(connection, "LINGER_SECONDS", 0.02)
        yield


@given(st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=20)), max_size=20))
def test_whatever_comes_is_answered_in_form_or_not_at_all(
    hasty: None, tmp_path_factory: pytest.TempPathFactory, sent: list[bytes]
) -> None:
    errors: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = errors.append  # type: ignore[method-assign]

    async def run() -> None:
        async with serving(FakeDevice(), tmp_path_factory.mktemp("inbox")) as ask:
            got = await ask(*sent)
        assert got == b"" or got.startswith(b"HTTP/1.")
        assert b" 500 " not in got
        assert b"aiohttp" not in got

    logging.getLogger().addHandler(handler)
    try:
        anyio.run(run)
    finally:
        logging.getLogger().removeHandler(handler)
    assert not errors
