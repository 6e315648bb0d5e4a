"""Two sockets joined, and the watch over them, on this machine's own TCP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cctailscale.errors import LocalApiError, NoSuchForward, PortTaken
from cctailscale.tailnet import forward as forward_module
from cctailscale.tailnet import splice as splice_module
from cctailscale.tailnet import vigil as vigil_module
from cctailscale.tailnet.forward import Forwards
from cctailscale.tailnet.splice import Splice
from cctailscale.tailnet.vigil import Vigil

BOUND = 5.0


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection over loopback, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


class Joined:
    """A running splice between a `program` and a `service`, which the test plays."""

    def __init__(self) -> None:
        self.program, local = connected()
        self.service, remote = connected()
        self.splice = Splice(local, remote)
        self.sockets = (local, remote)
        self.task: asyncio.Task[None] | None = None

    async def send(self, sock: socket.socket, data: bytes) -> None:
        async with asyncio.timeout(BOUND):
            await asyncio.get_running_loop().sock_sendall(sock, data)

    async def receive(self, sock: socket.socket, count: int) -> bytes:
        data = b""
        async with asyncio.timeout(BOUND):
            while len(data) < count:
                part = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
                assert part, f"the connection ended after {len(data)} of {count} bytes"
                data += part
        return data

    async def end(self, sock: socket.socket) -> None:
        """Asserts that nothing more comes but an orderly end."""
        async with asyncio.timeout(BOUND):
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""

    async def is_reset(self, sock: socket.socket, seconds: float = 2.0) -> None:
        """Asserts that it is reset, whatever may come before."""
        with pytest.raises(ConnectionResetError):  # noqa: PT012
            async with asyncio.timeout(seconds):
                while await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
                    pass

    async def over(self) -> None:
        assert self.task is not None
        await asyncio.wait_for(self.task, BOUND)
        assert [sock.fileno() for sock in self.sockets] == [-1, -1]

    async def stuck(self, sender: socket.socket) -> None:
        """Sends until nothing moves any more, since the other end does not read."""
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):  # noqa: PT012
            while True:
                async with asyncio.timeout(0.3):
                    await loop.sock_sendall(sender, bytes(1 << 16))


@asynccontextmanager
async def joined() -> AsyncIterator[Joined]:
    both = Joined()
    both.task = asyncio.create_task(both.splice.run())
    try:
        yield both
    finally:
        both.task.cancel()
        await asyncio.wait([both.task])
        both.program.close()
        both.service.close()


def reset(sock: socket.socket) -> None:
    splice_module.close(sock, orderly=False)


async def test_bytes_go_both_ways_and_are_counted() -> None:
    async with joined() as both:
        await both.send(both.program, b"question")
        assert await both.receive(both.service, 8) == b"question"
        await both.send(both.service, b"the answer")
        assert await both.receive(both.program, 10) == b"the answer"
        assert (both.splice.sent, both.splice.received) == (8, 10)


@pytest.mark.parametrize("first", ["program", "service"])
async def test_the_end_of_one_direction_leaves_the_other_open(first: str) -> None:
    async with joined() as both:
        ends = {"program": both.program, "service": both.service}
        ended = ends.pop(first)
        (other,) = ends.values()
        ended.shutdown(socket.SHUT_WR)
        await both.end(other)
        await both.send(other, b"still here")
        assert await both.receive(ended, 10) == b"still here"
        other.shutdown(socket.SHUT_WR)
        await both.end(ended)
        await both.over()
        assert both.splice.error is None


async def test_what_was_sent_right_before_the_end_arrives_whole() -> None:
    async with joined() as both:
        data = bytes(range(256)) * 4096  # more than a reader that does nothing yet has room for
        sending = asyncio.create_task(both.send(both.service, data))
        await both.receive(both.program, 1)
        both.program.shutdown(socket.SHUT_WR)
        await both.end(both.service)
        rest = asyncio.create_task(both.receive(both.program, len(data) - 1))
        await sending
        both.service.close()
        assert await rest == data[1:]
        await both.end(both.program)
        await both.over()
        assert both.splice.error is None


@pytest.mark.parametrize("first", ["program", "service"])
async def test_a_reset_on_one_side_resets_the_other(first: str) -> None:
    async with joined() as both:
        ends = {"program": both.program, "service": both.service}
        gone = ends.pop(first)
        (other,) = ends.values()
        await both.send(other, b"x")
        await both.receive(gone, 1)
        reset(gone)
        await both.is_reset(other)
        await both.over()
        assert both.splice.error == "Connection reset by peer"


async def test_a_service_that_is_reset_is_noticed_while_the_program_does_not_read() -> None:
    async with joined() as both:
        await both.stuck(both.service)
        reset(both.service)
        async with asyncio.timeout(BOUND):
            while both.splice.error is None:
                both.splice.check(time.monotonic())
                await asyncio.sleep(0.01)
        assert both.splice.error == "Connection reset by peer"
        await both.is_reset(both.program)


async def test_a_reader_that_stalls_stops_the_sender() -> None:
    async with joined() as both:
        await both.stuck(both.service)
        before = both.splice.received
        await both.stuck(both.service)
        assert both.splice.received == before


async def test_cancelled_it_resets_both() -> None:
    async with joined() as both:
        await both.send(both.program, b"x")
        await both.receive(both.service, 1)
        assert both.task is not None
        both.task.cancel()
        await both.is_reset(both.program)
        await both.is_reset(both.service)


async def test_a_connection_on_which_nothing_moves_for_an_hour_is_reset() -> None:
    async with joined() as both:
        await asyncio.sleep(0)
        both.splice.check(both.splice.moved_at + 3599)
        assert both.splice.error is None
        both.splice.check(both.splice.moved_at + 3601)
        assert both.splice.error == "nothing moved for 3600 s"
        await both.is_reset(both.program)


async def test_a_fast_pair_does_not_keep_others_waiting() -> None:
    """Sockets that are always ready: the pump gives way after each piece."""
    steps = 0

    class Ready:
        async def sock_recv(self, *_: Any) -> bytes:
            nonlocal steps
            steps += 1
            return b"" if steps > 1000 else b"x"

        async def sock_sendall(self, *_: Any) -> None: ...

    ends = connected()
    splice = Splice(*ends)
    loop = Ready()
    real = asyncio.get_running_loop

    def running() -> Any:
        return loop

    pump = splice._pump(*ends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splice_module.asyncio, "get_running_loop", running)
        pump.send(None)  # until it gives way for the first time
    assert steps == 1
    pump.close()
    assert real() is asyncio.get_running_loop()
    for sock in ends:
        sock.close()


# ---- the watch -------------------------------------------------------------------------------------------------------


class Peer:
    """What the watch asks of a device. `online` is what control says, `answers` whether the peer answers pings."""

    def __init__(self, online: bool | None = False, answers: bool = False, known: bool = True) -> None:
        self.online, self.answers, self.known = online, answers, known
        self.asked = asyncio.Event()
        self.pings = 0
        self.error: Exception | None = None

    async def whois(self, *_: Any) -> Any:
        self.asked.set()
        if self.error:
            raise self.error
        return SimpleNamespace(node=SimpleNamespace(online=self.online, stable_id="n1")) if self.known else None

    async def ping(self, *_: Any) -> Any:
        self.pings += 1
        return SimpleNamespace(error="") if self.answers else None


class Through:
    """The device through which the peer is reached."""

    def __init__(self, peer: Peer) -> None:
        self.api = peer
        self.whois = peer.whois


@asynccontextmanager
async def watched(peer: Peer) -> AsyncIterator[Joined]:
    vigil = Vigil()
    task = asyncio.create_task(vigil.run())
    async with joined() as both:
        device = cast(Any, Through(peer))
        vigil.watch(both.splice, device, [ip_address("100.64.0.1"), ip_address("fd7a:115c:a1e0::1")])
        try:
            yield both
        finally:
            vigil.forget(both.splice)
            task.cancel()
            await asyncio.wait([task])


async def test_a_connection_whose_peer_has_vanished_is_reset_within_two_seconds() -> None:
    peer = Peer()
    async with watched(peer) as both:
        await both.is_reset(both.program)
        assert both.splice.error == "the peer has vanished: control has lost it, and it answers no ping"
    assert peer.pings == 1  # one device, whatever number of addresses


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param({"online": True}, id="online"),
        pytest.param({"online": None}, id="control does not say"),
        pytest.param({"answers": True}, id="control has lost it, but it answers"),
        pytest.param({"known": False}, id="behind a router"),
        pytest.param({"error": LocalApiError("ping", None, "gone")}, id="LocalAPI does not answer"),
        pytest.param({"error": RuntimeError("Session is closed")}, id="the device is closed"),
    ],
)
async def test_a_silent_connection_goes_on_unless_its_peer_has_vanished(peer: dict[str, Any]) -> None:
    error = peer.pop("error", None)
    api = Peer(**peer)
    api.error = error
    async with watched(api) as both:
        for _ in range(2):
            api.asked.clear()
            await asyncio.wait_for(api.asked.wait(), BOUND)
        await both.send(both.program, b"x")
        assert await both.receive(both.service, 1) == b"x"
        assert both.splice.error is None


async def test_nobody_is_asked_about_a_connection_that_has_been_silent_for_long() -> None:
    peer = Peer()
    async with watched(peer) as both:
        both.splice.moved_at = time.monotonic() - vigil_module.SILENT_FOR_LONG_SECONDS
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.asked.wait(), 1)
        assert both.splice.error is None


# ---- forwards --------------------------------------------------------------------------------------------------------


async def test_closing_what_is_not_there_names_what_is() -> None:
    async with Forwards.opened(cast(Any, None)) as forwards:
        assert forwards.all() == []
        with pytest.raises(NoSuchForward) as refused:
            await forwards.close("f9\n")
    assert str(refused.value) == 'No forward has the id f9. There is none. Take an id from action="list".'


def test_a_local_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken) as refused:
            forward_module._listen(port)
    assert f"The local port {port} cannot be used: Address already in use." in str(refused.value)
