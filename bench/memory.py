"""Memory of this one process: idle, joined, while a gibibyte comes in, and ten seconds later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.driver import Driver
from bench.figures import Goal, Subject
from bench.lab import PEER, Lab, joined, left, preloaded
from bench.process import MIB, memory, reset_peak, settled
from tests.agent import Agent

GIB = 1024 * MIB
FETCH_BYTES = 400_000  # the most that the tool gives
FETCHES_AT_ONCE = 4
LATER_SECONDS = 10.0
MAX_ROUNDS = 3


async def measure(lab: Lab, rounds: int) -> Subject:
    count = min(rounds, MAX_ROUNDS)
    subject = Subject(
        "memory",
        f"RSS and PSS (smaps_rollup), and the peak of the RSS (VmHWM). 1 GiB came as {GIB // FETCH_BYTES + 1} fetches "
        f"of {FETCH_BYTES // 1000} kB of text through the tool, {FETCHES_AT_ONCE} at once; as one download through the "
        "node in a Python process without MCP. The differences are to the same "
        "process after joining.",
    )
    samples: dict[str, list[float]] = {}
    for _ in range(count):
        await _server(lab, samples)
        await _node(lab, samples)
    goals = {
        "cc-tailscale, joined: RSS": Goal(130),
        "cc-tailscale, peak during 1 GiB": Goal(300, of="worst"),
        "cc-tailscale, 10 s after 1 GiB": Goal(40),
        "node alone, peak during 1 GiB": Goal(300, of="worst"),
        "node alone, 10 s after 1 GiB": Goal(40),
    }
    for name, values in samples.items():
        unit = "MiB more" if "1 GiB" in name else "MiB"
        subject.add(name, unit, values, goals.get(name))
    return subject


async def _server(lab: Lab, samples: dict[str, list[float]]) -> None:
    async with lab.agent() as agent:
        await preloaded(agent)
        _note(samples, "cc-tailscale, before joining", agent.pid)
        await joined(agent)
        await settled(agent.pid)
        _note(samples, "cc-tailscale, joined", agent.pid)
        await _loaded(samples, "cc-tailscale", agent.pid, lambda: _fetch_a_gibibyte(agent))
        await left(agent)


async def _node(lab: Lab, samples: dict[str, list[float]]) -> None:
    async with Driver.joined(lab.environ()) as driver:
        await settled(driver.pid)
        _note(samples, "node alone, joined", driver.pid)
        await _loaded(samples, "node alone", driver.pid, lambda: driver.move("http", GIB))


def _note(samples: dict[str, list[float]], name: str, pid: int) -> None:
    now = memory(pid)
    samples.setdefault(f"{name}: RSS", []).append(now.rss)
    samples.setdefault(f"{name}: PSS", []).append(now.pss)


async def _loaded(samples: dict[str, list[float]], name: str, pid: int, load: Callable[[], Awaitable[object]]) -> None:
    """Notes the growth of the RSS at its peak while `load` runs, and a while later."""
    before = memory(pid).rss
    reset_peak(pid)
    await load()
    peak = memory(pid).peak
    await asyncio.sleep(LATER_SECONDS)  # not a wait for something: the moment is what is asked for
    samples.setdefault(f"{name}, peak during 1 GiB", []).append(peak - before)
    samples.setdefault(f"{name}, 10 s after 1 GiB", []).append(memory(pid).rss - before)


async def _fetch_a_gibibyte(agent: Agent) -> None:
    left_to_fetch = GIB

    async def fetch_until_done() -> None:
        nonlocal left_to_fetch
        while left_to_fetch > 0:
            left_to_fetch -= FETCH_BYTES
            url = f"http://{PEER}/bytes?n={FETCH_BYTES}&type=text/plain"
            await agent.succeed("tailscale_fetch", url=url, max_bytes=FETCH_BYTES)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(FETCHES_AT_ONCE):
            tasks.create_task(fetch_until_done())
