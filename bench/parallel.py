"""Many fetches at once: how many a second, and how long each takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bench.fetch import KIB, path
from bench.figures import Subject, ratios
from bench.lab import GO, OURS, PEER, TYPESCRIPT, Lab
from bench.turns import Way, flat, in_turns
from tests.agent import Agent

AT_ONCE = (1, 4, 16, 64)
FETCHES_A_ROUND = 256
URL = f"http://{PEER}{path(KIB)}"


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "parallel",
        f"{FETCHES_A_ROUND} GETs of 1 KiB from the same peer, so many at once, in turns: how many were done a second. "
        "The two MCP servers: tools/call to results at the client, over one stdio. Bare tsnet: within the Go program.",
    )
    async with lab.everybody() as joined:
        for at_once in AT_ONCE:
            ways: dict[str, Way] = {name: _calls(agent, at_once) for name, agent in joined.servers.items()}
            ways[GO] = _floor(lambda n=at_once: joined.helper.floor(URL, FETCHES_A_ROUND, n)["seconds"])  # type: ignore[misc]
            samples = await in_turns(ways, rounds)
            for name, batches in samples.items():
                subject.add(f"{at_once} at once: {name}", "1/s", flat(batches))
            if TYPESCRIPT in samples:
                quotients = ratios(flat(samples[OURS]), flat(samples[TYPESCRIPT]))
                subject.add(f"{at_once} at once: {OURS} / {TYPESCRIPT}, by round", "x", quotients)
    return subject


def _calls(agent: Agent, at_once: int) -> Way:
    async def measured() -> list[float]:
        left = FETCHES_A_ROUND

        async def fetch_until_done() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await agent.succeed("tailscale_fetch", url=URL)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(fetch_until_done())
        return [FETCHES_A_ROUND / (time.perf_counter() - began)]

    return measured


def _floor(seconds: Callable[[], float]) -> Way:
    async def measured() -> list[float]:
        return [FETCHES_A_ROUND / await asyncio.to_thread(seconds)]

    return measured
