"""Bytes through a port forward, beside the SOCKS port of a bare tsnet program; and how soon a vanished peer is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable

from bench import socks
from bench.figures import Goal, Subject, rates, ratios
from bench.lab import PEER, Lab
from bench.process import MIB
from tests.agent import Agent

MOVED_BYTES = 100 * MIB
PIECE_BYTES = 256 << 10
HTTP, DISCARD, CHARGEN = 80, 9, 19
MAX_ROUNDS = 5
VANISHED_SECONDS = 10.0

Connect = Callable[[int], socket.socket]


async def measure(lab: Lab, rounds: int) -> Subject:
    count = min(rounds, MAX_ROUNDS)
    subject = Subject(
        "forward",
        f"{MOVED_BYTES // MIB} MiB each way to the same peer, {count} times in turns, connection included, by the same "
        "plain socket: down from its page, up to its port 9 until it has closed. Forward: 127.0.0.1 of cc-tailscale. "
        "Helper: its SOCKS port. Vanished: from the SIGKILL of a peer that sends to the reset at the program.",
    )
    seconds: dict[str, list[float]] = {}
    with lab.helper() as helper:
        async with lab.joined_agent() as agent:
            ports = {port: await _forward(agent, PEER, port) for port in (HTTP, DISCARD)}
            ways: dict[str, Connect] = {
                "forward": lambda port: _connect(ports[port]),
                "helper": lambda port: socks.connect(helper.line, PEER, port),
            }
            for number in range(count + 1):
                for name, connect in list(ways.items())[:: 1 if number % 2 else -1]:
                    for what, move in (("down", _down), ("up", _up)):
                        passed = await asyncio.to_thread(move, connect)
                        if number:  # the first round only warms up
                            seconds.setdefault(f"{name}, {what}", []).append(passed)
            vanished = [await _vanish(lab, agent, f"doomed-{number}") for number in range(count)]
    speeds = {name: rates(MOVED_BYTES, samples) for name, samples in seconds.items()}
    for name, samples in sorted(speeds.items()):
        subject.add(name, "MiB/s", samples)
    for what in ("down", "up"):
        quotients = ratios(speeds[f"forward, {what}"], speeds[f"helper, {what}"])
        subject.add(f"forward / helper, {what}, by round", "x", quotients, Goal(0.8, "at least"))
    subject.add("vanished peer", "ms", vanished, Goal(2000, of="worst"))
    return subject


async def _forward(agent: Agent, host: str, port: int) -> int:
    result = await agent.succeed("tailscale_port_forward", action="create", host=host, port=port)
    assert result.structured is not None
    return int(result.structured["local"].rpartition(":")[2])


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), socks.CONNECT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _down(connect: Connect) -> float:
    began = time.perf_counter()
    with connect(HTTP) as sock:
        if socks.get(sock, PEER, f"/bytes?n={MOVED_BYTES}") != MOVED_BYTES:
            raise RuntimeError("another number of bytes came")
    return time.perf_counter() - began


def _up(connect: Connect) -> float:
    piece = bytes(PIECE_BYTES)
    began = time.perf_counter()
    with connect(DISCARD) as sock:
        for _ in range(MOVED_BYTES // PIECE_BYTES):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        if sock.recv(1):
            raise RuntimeError("the peer said something")
    return time.perf_counter() - began


async def _vanish(lab: Lab, agent: Agent, hostname: str) -> float:
    """Milliseconds from the end of a peer in the midst of what it sends to the end of the local connection."""
    with lab.tailnet.peer(hostname) as peer, _connect(await _forward(agent, hostname, CHARGEN)) as sock:
        await asyncio.to_thread(_read, sock, MIB)
        os.kill(peer["pid"], signal.SIGKILL)
        began = time.perf_counter()
        sock.settimeout(VANISHED_SECONDS)
        with contextlib.suppress(ConnectionResetError):
            await asyncio.to_thread(_read, sock, 1 << 62)
            raise RuntimeError("the connection ended as if it were complete")
        return (time.perf_counter() - began) * 1000


def _read(sock: socket.socket, count: int) -> None:
    buffer = bytearray(PIECE_BYTES)
    while count > 0 and (read := sock.recv_into(buffer)):
        count -= read
