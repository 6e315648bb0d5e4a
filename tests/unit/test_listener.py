"""The listener, with the test in Go's place: it sends connections over a socket pair as tailscale.h says."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from cctailscale.errors import NodeFailed
from cctailscale.tailnet import listener as listening
from cctailscale.tailnet.binding import NodeHandle
from cctailscale.tailnet.listener import Listener


class End(socket.socket):
    """A listener's end; Go closes its own once this one is shut down."""

    sends: socket.socket

    def shutdown(self, how: int) -> None:
        super().shutdown(how)
        if self.sends.fileno() != -1:
            self.sends.shutdown(socket.SHUT_WR)


class Go:
    """The other end of a listener's socket."""

    def __init__(self) -> None:
        self.sends, listener = socket.socketpair()
        self.listener = End(fileno=listener.detach())
        self.listener.sends = self.sends

    async def listen(self, port: int) -> socket.socket:
        assert port == 9321
        return self.listener

    def connects(self, peer: str, frame: bytes | None = None) -> socket.socket:
        """A connection arrives; gives the peer's end of it."""
        theirs, ours = socket.socketpair()
        with ours:
            socket.send_fds(self.sends, [peer.encode().ljust(64, b"\0") if frame is None else frame], [ours.fileno()])
        theirs.settimeout(5)
        return theirs


class Served:
    """The connections that were served, each until its peer ends it."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self._arrived = anyio.Event()

    async def __call__(self, connection: socket.socket, peer: str) -> None:
        self.peers.append(peer)
        self._arrived.set()
        self._arrived = anyio.Event()
        connection.send(peer.encode())  # which no other connection's peer may see
        await anyio.wait_readable(connection)

    async def count(self, count: int) -> None:
        with anyio.fail_after(5):
            while len(self.peers) < count:
                await self._arrived.wait()


@pytest.fixture
async def go() -> AsyncIterator[Go]:
    go = Go()
    with go.sends:
        yield go


@asynccontextmanager
async def serving(go: Go, served: listening.Serve) -> AsyncIterator[Listener]:
    async with Listener.opened(cast("NodeHandle", go), 9321) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, served)
        yield listener
        tasks.cancel_scope.cancel()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no iterator of its own is to be counted


async def test_each_connection_comes_with_its_peer_and_is_not_inherited(go: Go) -> None:
    flags = []

    async def serve(connection: socket.socket, peer: str) -> None:
        flags.append((fcntl.fcntl(connection, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, connection.getblocking()))
        await served(connection, peer)

    served = Served()
    async with serving(go, serve):
        ends = {peer: go.connects(peer) for peer in ("100.64.0.1:1", "[fd7a:115c:a1e0::1]:2", "100.64.0.2:3")}
        await served.count(3)
        for peer, end in ends.items():
            with end:
                assert end.recv(100).decode() == peer
    assert flags == [(fcntl.FD_CLOEXEC, False)] * 3


async def test_beyond_its_share_an_address_is_turned_away_and_others_are_not(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_PER_ADDRESS", 2)
    served = Served()
    async with serving(go, served) as listener:
        ends = [go.connects(f"100.64.0.1:{port}") for port in (1, 2, 3)]
        ends.append(go.connects("100.64.0.2:1"))
        await served.count(3)
        assert served.peers == ["100.64.0.1:1", "100.64.0.1:2", "100.64.0.2:1"]
        assert ends[2].recv(100) == b""
        assert listener.turned_away == 1
        ends[0].close()  # makes room
        await anyio.wait_all_tasks_blocked()
        ends.append(go.connects("100.64.0.1:4"))
        await served.count(4)
        assert served.peers[-1] == "100.64.0.1:4"
        for end in ends:
            end.close()


async def test_beyond_the_limit_of_all_a_connection_is_closed_at_once(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 2)
    served = Served()
    async with serving(go, served) as listener:
        ends = [go.connects(f"100.64.0.{host}:1") for host in (1, 2, 3)]
        await served.count(2)
        assert await anyio.to_thread.run_sync(ends[2].recv, 100) == b""
        assert listener.turned_away == 1
        for end in ends:
            end.close()


async def test_an_error_in_one_connection_ends_that_one_alone(go: Go, caplog: pytest.LogCaptureFixture) -> None:
    async def serve(connection: socket.socket, peer: str) -> None:
        if peer.endswith(":1"):
            raise ZeroDivisionError
        await served(connection, peer)

    served = Served()
    async with serving(go, serve):
        with go.connects("100.64.0.1:1") as broken, go.connects("100.64.0.1:2"):
            await served.count(1)
            assert broken.recv(100) == b""
            assert served.peers == ["100.64.0.1:2"]
    assert "a connection from 100.64.0.1 failed" in caplog.text


async def test_when_the_node_closes_the_serving_ends_and_all_connections_with_it(go: Go) -> None:
    served = Served()
    async with Listener.opened(cast("NodeHandle", go), 9321) as listener:
        end = go.connects("100.64.0.1:1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, served)
            await served.count(1)
            go.sends.close()  # and the block ends because the serving does
        with end:
            assert end.recv(100) == b"100.64.0.1:1"
            assert end.recv(100) == b""


async def test_a_cancelled_listener_leaves_no_descriptor_whenever_it_is_cancelled() -> None:
    before = descriptors()
    for steps in range(12):
        go = Go()
        ends = [go.connects(f"100.64.0.1:{port}") for port in range(1, 5)]
        async with serving(go, Served()):
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
        assert go.listener.fileno() == -1
        for end in (*ends, go.sends):
            end.close()
        assert descriptors() == before


async def test_a_connection_in_pieces_is_a_defect_and_leaks_nothing(go: Go) -> None:
    before = descriptors()
    async with Listener.opened(cast("NodeHandle", go), 9321) as listener:
        with go.connects("", frame=b"100.64.0.1:1"), pytest.raises(ExceptionGroup) as failed:
            await listener.serve(Served())
    assert failed.group_contains(NodeFailed, match="arrived in pieces")
    go.listener.close()
    assert descriptors() == before - 1


async def test_without_a_free_descriptor_a_connection_is_lost_and_the_next_is_not(
    go: Go, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    served = Served()
    async with serving(go, served):
        lost, kept = go.connects("100.64.0.1:1"), go.connects("100.64.0.1:2")
        with caplog.at_level(logging.WARNING):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                with anyio.fail_after(5):
                    while not caplog.text:
                        await anyio.lowlevel.checkpoint()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await served.count(1)
        assert served.peers == ["100.64.0.1:2"]
        assert "too many files open" in caplog.text
        assert lost.recv(100) == b""
        lost.close()
        kept.close()
