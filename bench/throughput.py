"""256 MiB either way without MCP: through the node in Python, and through the others."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable

from bench import socks
from bench.driver import Driver
from bench.figures import Goal, Subject, rates, ratios
from bench.lab import GO, PEER, TAILSCALED, Lab
from bench.process import MIB
from bench.rivals import Tailscaled
from bench.turns import Way, flat, in_turns

MOVED_BYTES = 256 * MIB
MAX_ROUNDS = 4
AIOHTTP = "node, aiohttp"
SOCKET = "node, plain socket"
SOCKS = "helper's SOCKS port"
URL = f"http://{PEER}/bytes?n={MOVED_BYTES}"
UPLOAD = f"http://{PEER}/upload"


async def measure(lab: Lab, rounds: int) -> Subject:
    count = min(rounds, MAX_ROUNDS)
    subject = Subject(
        "throughput",
        f"{MOVED_BYTES // MIB} MiB from the same peer and to it, {count} times in turns, connection included. The node "
        "is that of cc-tailscale in a Python process without MCP (the tool sends no more than 10 MiB). Helper: a plain "
        "socket in Python through its SOCKS port. Bare tsnet: within the Go program.",
    )
    with lab.helper() as helper, lab.tailscaled() as tailscaled, tempfile.NamedTemporaryFile() as file:
        file.truncate(MOVED_BYTES)
        async with Driver.joined(lab.environ()) as driver:
            down: dict[str, Way] = {
                AIOHTTP: _one(lambda: driver.move("http", MOVED_BYTES)),
                SOCKET: _one(lambda: driver.move("raw", MOVED_BYTES)),
                SOCKS: _one(lambda: asyncio.to_thread(socks.download, helper.line, PEER, MOVED_BYTES)),
                TAILSCALED: _one(lambda: asyncio.to_thread(_curl, tailscaled, "--output", os.devnull, URL)),
                GO: _one(lambda: asyncio.to_thread(lambda: float(helper.floor(URL)["seconds"]))),
            }
            up: dict[str, Way] = {
                SOCKET: _one(lambda: driver.move("upload", MOVED_BYTES)),
                SOCKS: _one(lambda: asyncio.to_thread(socks.upload, helper.line, PEER, MOVED_BYTES)),
                TAILSCALED: _one(lambda: asyncio.to_thread(_curl, tailscaled, "--upload-file", file.name, UPLOAD)),
                GO: _one(lambda: asyncio.to_thread(lambda: float(helper.floor(UPLOAD, upload=MOVED_BYTES)["seconds"]))),
            }
            await _compare(subject, "download", down, count)
            await _compare(subject, "upload", up, count)
    return subject


async def _compare(subject: Subject, what: str, ways: dict[str, Way], rounds: int) -> None:
    seconds = {name: flat(batches) for name, batches in (await in_turns(ways, rounds)).items()}
    for name, passed in seconds.items():
        subject.add(f"{what}: {name}", "MiB/s", rates(MOVED_BYTES, passed))
    for name in (AIOHTTP, SOCKET):
        if name in seconds:
            quotients = ratios(seconds[GO], seconds[name])
            subject.add(f"{what}: {name} / {GO}, by round", "x", quotients, Goal(0.9, "at least"))


def _one(way: Callable[[], Awaitable[float]]) -> Way:
    async def measured() -> list[float]:
        return [await way()]

    return measured


def _curl(tailscaled: Tailscaled, *arguments: str) -> float:
    """Seconds by curl's own clock. What the peer answers to an upload comes before them, and ends with a line."""
    return float(tailscaled.curl("--write-out", "\n%{time_total}", *arguments).splitlines()[-1])
