"""How calls grow with the tailnet and with the agents on it; what is worse than linear is named by its missed goal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.agents import broadcast, crowd, knows, listed
from bench.figures import Goal, Subject
from bench.lab import PEER, Lab, joined, preloaded
from tests.agent import Agent

PEERS = (10, 100, 1000, 5000)
AGENTS = (1, 10, 25, 50, 100)
AGENTS_A_PROCESS = 10
CALLS = 7
# A list of devices serves all who ask within a second.
APART_SECONDS = 1.05
# An exponent of 1 is linear; the rest is how well a median of few calls tells it.
LINEAR = Goal(1.15)
# Below it a call costs what every call costs, and its growth says nothing.
NOTICEABLE_MS = 5.0
ABOUT_PEERS: dict[str, dict[str, Any]] = {
    "tailscale_status": {},
    "tailscale_devices": {},
    "tailscale_whois": {"address": PEER},
    "tailscale_dns_lookup": {"name": PEER},
    "tailscale_connect_test": {"host": PEER, "port": 80},
    "tailscale_fetch": {"url": f"http://{PEER}/"},
    "tailscale_acl_check": {"port": 80},
}


async def measure_peers(lab: Lab, rounds: int) -> Subject:  # noqa: ARG001 - the sizes are the rounds
    subject = Subject(
        "peers",
        f"tools/call to its result at the client, {CALLS} times each, with so many peers more on the tailnet, by a "
        f"session of its own each time, in turns {APART_SECONDS:g} s apart, so that each list of devices is made anew. "
        "The first call joins. The exponent is that of the growth from one size to the next, where it can be noticed: "
        "1 is linear. The process has loaded its modules before the first call.",
    )
    grown: dict[str, dict[int, list[float]]] = {}
    for count in PEERS:
        lab.tailnet.admin("POST", "/fake-peers", {"count": count})
        try:
            async with lab.agent() as agent:
                await preloaded(agent)
                began = time.perf_counter()
                await joined(agent)
                grown.setdefault("first call", {})[count] = [(time.perf_counter() - began) * 1000]
                for _ in range(CALLS):
                    await asyncio.sleep(APART_SECONDS)  # not a wait for something: the pause is what is asked for
                    for tool, words in ABOUT_PEERS.items():
                        grown.setdefault(tool, {}).setdefault(count, []).append(await _called(agent, tool, words))
                await agent.stop()
        finally:
            lab.tailnet.admin("DELETE", "/fake-peers")
    add_growth(subject, "peers", grown, {("tailscale_devices", PEERS[-1]): Goal(500)})
    return subject


async def measure_agents(lab: Lab, rounds: int) -> Subject:  # noqa: ARG001 - the sizes are the rounds
    subject = Subject(
        "crowd",
        f"As `agents`, {CALLS} times each, with so many agents, up to {AGENTS_A_PROCESS} in a process without MCP.",
    )
    grown: dict[str, dict[int, list[float]]] = {}
    ways: dict[str, Callable[[Agent, int], Awaitable[float]]] = {
        "tailscale_agents": listed,
        "broadcast to all": broadcast,
    }
    async with contextlib.AsyncExitStack() as stack, lab.agent() as agent:
        await joined(agent)
        present = 0
        for count in AGENTS:
            while present < count:
                more = min(AGENTS_A_PROCESS, count - present)
                await stack.enter_async_context(crowd(lab, [more]))
                present += more
            await knows(agent, count)
            await listed(agent, count)
            for name, way in ways.items():
                grown.setdefault(name, {})[count] = [await way(agent, count) for _ in range(CALLS)]
        await agent.stop()
    add_growth(subject, "agents", grown)
    return subject


def add_growth(
    subject: Subject,
    of: str,
    grown: dict[str, dict[int, list[float]]],
    goals: dict[tuple[str, int], Goal] | None = None,
) -> None:
    """A row for each call and size, and the worst exponent of each call."""
    for name, sizes in grown.items():
        for size, samples in sizes.items():
            subject.add(f"{name}, {size} {of}", "ms", samples, (goals or {}).get((name, size)))
    for name, sizes in grown.items():
        worst = steepest({size: statistics.median(samples) for size, samples in sizes.items()})
        subject.add(f"{name}: steepest growth", "exponent", [worst], LINEAR)


def steepest(milliseconds: dict[int, float]) -> float:
    """The greatest exponent from one size to the next; 0 if no growth can be noticed."""
    points = sorted(milliseconds.items())
    return max(
        (
            math.log(later / earlier) / math.log(more / fewer)
            for (fewer, earlier), (more, later) in itertools.pairwise(points)
            if later - earlier >= NOTICEABLE_MS
        ),
        default=0.0,
    )


async def _called(agent: Agent, tool: str, words: dict[str, Any]) -> float:
    began = time.perf_counter()
    await agent.succeed(tool, **words)
    return (time.perf_counter() - began) * 1000
