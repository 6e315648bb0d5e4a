"""What the node knows by itself: devices, whois and DNS through the tools, on a small tailnet and on a large one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial

from bench.figures import Goal, Subject
from bench.lab import GO, PEER, Lab
from tests.agent import Agent, Result

CALLS_A_ROUND = 20
WARM_UP_CALLS = 10
# The list of devices serves all who ask within a second; this is longer, and each such call asks the node anew.
APART_SECONDS = 1.1
CALLS_APART_A_ROUND = 2
MANY = 2000
# Of the text that the model sees, what a token has of it.
CHARACTERS_A_TOKEN = 4
ABOUT_A_PEER: dict[str, dict[str, str]] = {"whois": {"address": PEER}, "dns_lookup": {"name": PEER}}


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "lookup",
        "tools/call to its result at the client, one at a time. Small: this node and its peer. Large: "
        f"{MANY} peers more, the first page of 50 devices. Lists of devices are asked for {APART_SECONDS:g} s apart, "
        f"so that each is made anew. A token is {CHARACTERS_A_TOKEN} characters of what the model sees.",
    )
    about_a_peer: dict[str, list[float]] = {tool: [] for tool in ABOUT_A_PEER}
    compared = await _compared(lab, rounds)
    async with lab.joined_agent() as agent:
        for number in range(WARM_UP_CALLS + rounds * CALLS_A_ROUND):
            for tool, samples in about_a_peer.items():
                passed, _ = await _called(agent, tool, **ABOUT_A_PEER[tool])
                if number >= WARM_UP_CALLS:
                    samples.append(passed)
        small = await _lists(agent, rounds)
    for tool, samples in about_a_peer.items():
        subject.add(f"small: {tool}", "ms", samples, Goal(5))
    lab.tailnet.admin("POST", "/fake-peers", {"count": MANY})
    try:
        async with lab.joined_agent() as agent:
            large = await _lists(agent, rounds)
    finally:
        lab.tailnet.admin("DELETE", "/fake-peers")
    if any(result.structured is None or result.structured["total"] <= MANY for _, result in large):
        raise RuntimeError("a list has not all devices")
    for name, tools in compared.items():
        for tool, samples in tools.items():
            subject.add(f"small: {tool}, {name}", "ms", samples)
    subject.add("small: devices", "ms", [passed for passed, _ in small], Goal(5))
    subject.add("large: devices", "ms", [passed for passed, _ in large], Goal(250))
    subject.add("large: devices", "tokens", [tokens(result) for _, result in large], Goal(8000, of="worst"))
    return subject


async def _compared(lab: Lab, rounds: int) -> dict[str, dict[str, list[float]]]:
    """The same questions to both MCP servers, in turns, and to the control API of the bare tsnet program."""
    async with lab.everybody() as joined:
        ways: dict[tuple[str, str], Callable[[], Awaitable[object]]] = {
            (tool, name): partial(agent.succeed, f"tailscale_{tool}", **words)
            for tool, words in (("status", {}), ("whois", {"address": lab.peer_address}))
            for name, agent in joined.servers.items()
        }
        ways["status", GO] = partial(asyncio.to_thread, joined.helper.ask, "/status")
        ways["whois", GO] = partial(asyncio.to_thread, joined.helper.ask, "/whois", addr=lab.peer_address)
        compared: dict[str, dict[str, list[float]]] = {}
        for number in range(WARM_UP_CALLS + rounds * CALLS_A_ROUND):
            for (tool, name), ask in ways.items():
                began = time.perf_counter()
                await ask()
                if number >= WARM_UP_CALLS:
                    compared.setdefault(name, {}).setdefault(tool, []).append((time.perf_counter() - began) * 1000)
    return compared


async def _lists(agent: Agent, rounds: int) -> list[tuple[float, Result]]:
    """Lists of devices and the milliseconds that each took; the first one only warms up."""
    lists = []
    for _ in range(1 + rounds * CALLS_APART_A_ROUND):
        await asyncio.sleep(APART_SECONDS)  # not a wait for something: the pause is what is asked for
        lists.append(await _called(agent, "devices"))
    return lists[1:]


async def _called(agent: Agent, tool: str, **arguments: str) -> tuple[float, Result]:
    began = time.perf_counter()
    result = await agent.succeed(f"tailscale_{tool}", **arguments)
    return (time.perf_counter() - began) * 1000, result


def tokens(result: Result) -> float:
    return len(json.dumps(result.structured, separators=(",", ":"), ensure_ascii=False)) / CHARACTERS_A_TOKEN
