"""A large download: through the node with and without aiohttp, and through a bare tsnet program's SOCKS port."""

from __future__ import annotations

import asyncio

from bench import socks
from bench.driver import Driver
from bench.figures import Goal, Subject, rates, ratios
from bench.lab import PEER, Lab
from bench.process import MIB

DOWNLOAD_BYTES = 256 * MIB
MAX_ROUNDS = 4


async def measure(lab: Lab, rounds: int) -> Subject:
    count = min(rounds, MAX_ROUNDS)
    subject = Subject(
        "throughput",
        f"Download of {DOWNLOAD_BYTES // MIB} MiB from the same peer, {count} times in turns, connection included. The "
        "node is that of cc-tailscale in a Python process without MCP (the tool caps an answer at 400 kB).",
    )
    http: list[float] = []
    raw: list[float] = []
    helper_raw: list[float] = []
    with lab.helper() as (helper, _):
        async with Driver.joined(lab.environ()) as driver:
            for _ in range(count):
                http.append(await driver.download("http", DOWNLOAD_BYTES))
                helper_raw.append(await asyncio.to_thread(socks.download, helper, PEER, DOWNLOAD_BYTES))
                raw.append(await driver.download("raw", DOWNLOAD_BYTES))
    http, helper_raw, raw = (rates(DOWNLOAD_BYTES, seconds) for seconds in (http, helper_raw, raw))
    subject.add("node, aiohttp", "MiB/s", http)
    subject.add("node, plain socket", "MiB/s", raw)
    subject.add("helper, plain socket", "MiB/s", helper_raw)
    subject.add("node, aiohttp / helper, by round", "x", ratios(http, helper_raw))
    subject.add("node, plain socket / helper, by round", "x", ratios(raw, helper_raw), Goal(0.9, "at least"))
    return subject
