"""Messages between two agents, and fifty agents on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bench.driver import Driver
from bench.figures import Goal, Subject
from bench.lab import Lab, joined, left
from bench.process import LOOK_SECONDS
from tests.agent import Agent

# With the two that only warm up, as many as one sender may send at once (agents/rate.py).
WARM_UP_MESSAGES = 2
MESSAGES_A_ROUND = 12
WAITS_A_ROUND = 6
IN_A_ROW = 1000  # what an inbox holds unread
WAIT_SECONDS = 30
# Fifty with the one that asks, who has a process of its own.
CROWD = (10, 10, 10, 10, 9)
FOUND_SECONDS = 30.0


async def measure_messages(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "messages",
        "One message: from tools/call at the sender's client to the commit in the other agent's inbox, and to the "
        "result; two cc-tailscale processes, a new sender each round. Waiting check: from the commit to the result at "
        f"the receiver's client. In a row: {IN_A_ROW} messages from one sender, each after the receipt of the one "
        "before, between two processes without MCP whose limit on messages is lifted.",
    )
    sent: list[tuple[float, float]] = []
    waits: list[float] = []
    async with lab.agent() as receiver:
        to = await _name(receiver)
        for _ in range(rounds):
            async with lab.agent() as sender:
                await joined(sender)
                sent += [await _send(sender, to) for _ in range(WARM_UP_MESSAGES + MESSAGES_A_ROUND)][WARM_UP_MESSAGES:]
                await receiver.succeed("tailscale_check_messages", limit=100)
                waits += [await _waited(sender, receiver, to) for _ in range(WAITS_A_ROUND)]
                await left(sender)
        await left(receiver)
    rates, strays = await _in_a_row(lab, rounds)
    subject.add("one message, tool call to inbox", "ms", [inbox for inbox, _ in sent], Goal(5))
    subject.add("one message, tool call to result", "ms", [result for _, result in sent])
    subject.add("waiting check, arrival to result", "ms", waits, Goal(20, of="worst"))
    subject.add(f"{IN_A_ROW} in a row", "1/s", rates, Goal(400, "at least", "worst"))
    subject.add("lost, twice or out of order", "", strays, Goal(0, of="worst"))
    return subject


async def measure_agents(lab: Lab, rounds: int) -> Subject:
    count = sum(CROWD)
    subject = Subject(
        "agents",
        f"{count + 1} agents on this machine: {count} in {len(CROWD)} processes without MCP, and a cc-tailscale "
        f"process that asks. tools/call to its result at the client; a broadcast is for all {count}, who have it by "
        "then. The first call finds the paths to all and opens every connection.",
    )
    first: list[float] = []
    lists: list[float] = []
    broadcasts: list[float] = []
    async with crowd(lab, CROWD), lab.agent() as agent:
        await joined(agent)
        await knows(agent, count)
        first.append(await listed(agent, count))
        for _ in range(rounds):
            lists.append(await listed(agent, count))
            broadcasts.append(await broadcast(agent, count))
        await left(agent)
    subject.add("tailscale_agents, for the first time", "ms", first, Goal(500, of="worst"))
    subject.add("tailscale_agents", "ms", lists, Goal(500, of="worst"))
    subject.add("broadcast to all", "ms", broadcasts, Goal(1000, of="worst"))
    return subject


async def _name(agent: Agent) -> str:
    await joined(agent)
    name: str = (await agent.status())["magic_dns_name"]
    return name


async def _send(sender: Agent, to: str) -> tuple[float, float]:
    """Milliseconds to the commit, by the clock that both processes have, and to the result."""
    began = datetime.now(UTC)
    sent = await _structured(
        sender, "tailscale_send_message", {"to": to, "subject": "Build", "body": "Is main green at your end?"}
    )
    return _milliseconds(began, _delivered(sent)), _milliseconds(began, datetime.now(UTC))


def _delivered(sent: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(sent["recipients"][0]["delivered"])


def _milliseconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds() * 1000


async def _waited(sender: Agent, receiver: Agent, to: str) -> float:
    number, answer = receiver.begin(
        "tools/call", {"name": "tailscale_check_messages", "arguments": {"wait_seconds": WAIT_SECONDS}}
    )
    await receiver.progressed(number, "Waiting for a message")
    sent = asyncio.create_task(
        _structured(sender, "tailscale_send_message", {"to": to, "subject": "Now", "body": "You waited for this."})
    )
    await asyncio.wait_for(answer, WAIT_SECONDS)
    returned = datetime.now(UTC)
    return _milliseconds(_delivered(await sent), returned)


async def _in_a_row(lab: Lab, rounds: int) -> tuple[list[float], list[float]]:
    """Messages a second, and how many were not where they should be, by round."""
    rates: list[float] = []
    strays: list[float] = []
    program = ("bench.talking", "1")
    async with Driver.joined(lab.environ(), program) as receiver, Driver.joined(lab.environ(), program) as sender:
        (to,) = receiver.ready["addresses"]
        await sender.ask({"do": "send", "to": to, "count": WARM_UP_MESSAGES})
        await receiver.ask({"do": "take"})
        for _ in range(rounds):
            sent = await sender.ask({"do": "send", "to": to, "count": IN_A_ROW})
            taken = (await receiver.ask({"do": "take"}))["ids"]
            rates.append(IN_A_ROW / sent["seconds"])
            strays.append(out_of_place(sent["ids"], taken))
    return rates, strays


def out_of_place(sent: Sequence[str], taken: Sequence[str]) -> int:
    """How many places hold another message than was sent there, or none, or one too many."""
    return sum(one != other for one, other in zip(sent, taken, strict=False)) + abs(len(sent) - len(taken))


@contextlib.asynccontextmanager
async def crowd(lab: Lab, sizes: Sequence[int]) -> AsyncIterator[None]:
    """So many agents in each of so many processes."""
    async with contextlib.AsyncExitStack() as stack:
        for size in sizes:
            await stack.enter_async_context(Driver.joined(lab.environ(), ("bench.talking", str(size))))
        yield


async def knows(agent: Agent, count: int) -> None:
    """Returns once the agent's netmap has them all; no connection is made for that, and no event tells of it."""
    async with asyncio.timeout(FOUND_SECONDS):
        total = 0
        while total <= count:
            await asyncio.sleep(LOOK_SECONDS)
            total = (await _structured(agent, "tailscale_devices", {"filter": "cc-", "online_only": True}))["total"]


async def listed(agent: Agent, count: int) -> float:
    """Milliseconds of a call that finds them all."""
    began = time.perf_counter()
    found = await _structured(agent, "tailscale_agents", {})
    passed = (time.perf_counter() - began) * 1000
    if found["total"] != count:
        raise RuntimeError(f"{found['total']} of {count} answer: {found['silent']}")
    return passed


async def broadcast(agent: Agent, count: int) -> float:
    """Milliseconds of a message that all of them get."""
    began = time.perf_counter()
    sent = await _structured(agent, "tailscale_send_message", {"to": "*", "subject": "Build", "body": "Main is green."})
    passed = (time.perf_counter() - began) * 1000
    if sent["delivered_count"] != count:
        raise RuntimeError(f"{sent['delivered_count']} of {count} have it: {sent}")
    return passed


async def _structured(agent: Agent, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    structured = (await agent.succeed(tool, **arguments)).structured
    assert structured is not None
    return structured
