"""Twenty members race for the tasks of one team; its list when it is full; how soon a waiting member knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bench.crew import Crew, astray, structured
from bench.driver import Driver
from bench.figures import Goal, Row, Subject
from bench.lab import Lab
from bench.lookup import tokens
from cctailscale.teams.model import MAX_TASKS
from tests.agent import Agent, Result

MEMBERS = 20
TASKS = 500
# Each adds as many tasks to the same team, and leaves room for the last ones, which can be claimed.
MAX_ROUNDS = MAX_TASKS // TASKS - 1
LISTS_A_ROUND = 5
EVENTS_A_ROUND = 5
# An assigned task makes three events, and a lead tells each follower of so many a second (agents/hosting.py).
EVENTS_APART_SECONDS = 1.0
# What the claim that ends a race is told.
NOTHING_LEFT = "No task can be claimed"
WAIT_SECONDS = 30
CLAIMS_A_SECOND = Goal(200, "at least", "worst")
CLAIM_MILLISECONDS = Goal(100, of="worst")
EVENT_MILLISECONDS = Goal(50, of="worst")
FILTERS: dict[str, dict[str, Any]] = {
    "can be claimed": {"unblocked_only": True},
    "completed": {"status": "completed"},
    "mine": {"owner": "me"},
}

# Runs a race, and gives what bench.teaming answers.
Race = Callable[[str], Awaitable[dict[str, Any]]]


@dataclass
class Races:
    """What the rounds of one kind of members have given."""

    claims: list[float] = field(default_factory=list)  # a second
    p99: list[float] = field(default_factory=list)  # of a claim, in milliseconds
    completions: list[float] = field(default_factory=list)  # a second
    strays: list[float] = field(default_factory=list)

    def add_to(self, subject: Subject, how: str) -> None:
        subject.add(f"{how}: claims", "1/s", self.claims, CLAIMS_A_SECOND)
        subject.add(f"{how}: a claim, p99", "ms", self.p99, CLAIM_MILLISECONDS)
        subject.add(f"{how}: completions", "1/s", self.completions)
        subject.add(f"{how}: lost, or claimed twice", "", self.strays, Goal(0, of="worst"))


async def measure(lab: Lab, rounds: int) -> Subject:
    rounds = min(rounds, MAX_ROUNDS)
    subject = Subject(
        "teams",
        f"{MEMBERS} members claim {TASKS} tasks, each the next one as soon as it has one; then they complete them; in "
        "rounds of the same team, whose list grows. The lead is a cc-tailscale process. Protocol: the members are "
        "sessions without MCP in one process. Tools: each is a cc-tailscale process; from tools/call to its result at "
        "the client, on the same CPUs. Who owns what is read in the lead's database. An event: from the lead's "
        "decision, just before the commit, to the member's copy of the list, and to the result of the "
        "tailscale_check_messages that waits for it; after a pause. Lists: of "
        f"{MAX_TASKS} tasks, at a member's client.",
    )
    await _by_protocol(lab, rounds, subject)
    await _by_tools(lab, rounds, subject)
    return subject


async def _by_protocol(lab: Lab, rounds: int, subject: Subject) -> None:
    idle: list[float] = []
    racing: list[float] = []
    async with Crew.led(lab) as crew, crew.driver(lab, MEMBERS) as driver:
        await driver.ask({"do": "join", "lead": crew.name, "count": MEMBERS})

        async def race(what: str) -> dict[str, Any]:
            return await driver.ask({"do": what})

        races = Races()
        for _ in range(rounds):
            since = crew.tasks + 1
            idle += await _delays(crew, driver)
            await _raced(crew, races, race, since)
            racing += await _taken(driver, 1)
    races.add_to(subject, "protocol")
    subject.add("protocol: an event to a waiting member", "ms", idle, EVENT_MILLISECONDS)
    subject.add("protocol: an event, while all race", "ms", racing)


async def _delays(crew: Crew, driver: Driver) -> list[float]:
    """Of single events, to each of the members, who have nothing else to do."""
    await asyncio.sleep(EVENTS_APART_SECONDS)  # what has been is over for everybody
    await _taken(driver, 0)
    for _ in range(EVENTS_A_ROUND):
        await crew.add(1)
        await asyncio.sleep(EVENTS_APART_SECONDS)  # not a wait for something: the pause is what is asked for
    return await _taken(driver, EVENTS_A_ROUND * MEMBERS)


async def _taken(driver: Driver, count: int) -> list[float]:
    found: list[float] = (await driver.ask({"do": "delays", "count": count}))["milliseconds"]
    return found


async def _by_tools(lab: Lab, rounds: int, subject: Subject) -> None:
    events: list[float] = []
    async with Crew.led(lab) as crew, crew.members(lab, MEMBERS) as members:
        races = Races()
        claims: dict[str, list[str]] = {await _name(member): [] for member in members}

        by_name = dict(zip(claims, members, strict=True))
        unheard = iter(by_name.items())

        async def race(what: str) -> dict[str, Any]:
            return await _with_tools(by_name, claims, what)

        for _ in range(rounds):
            await _raced(crew, races, race, crew.tasks + 1)
            # A new member each time: after some messages at once those to one are seconds apart (teams/news.py).
            events += [await _told(crew, *next(unheard)) for _ in range(EVENTS_A_ROUND)]
        await crew.add(MAX_TASKS - crew.tasks)
        lists = {
            name: [await _listed(members[0], given) for _ in range(rounds * LISTS_A_ROUND)]
            for name, given in FILTERS.items()
        }
    races.add_to(subject, "tools")
    subject.add("tools: an event to the waiting check", "ms", events, EVENT_MILLISECONDS)
    for name, answers in lists.items():
        subject.add(f"list: {name}", "ms", [passed for passed, _ in answers], Goal(50))
        subject.add(f"list: {name}", "tokens", [tokens(result) for _, result in answers], Goal(8000, of="worst"))


async def _raced(crew: Crew, races: Races, race: Race, since: int) -> None:
    """One round: tasks that can be claimed, from number `since` on, a race for them, and all completed."""
    await crew.add(TASKS - (crew.tasks % TASKS))
    claimed = await race("claim")
    completed = await race("complete")
    races.claims.append(len(claimed["milliseconds"]) / claimed["seconds"])
    races.p99.append(Row("claims", "ms", claimed["milliseconds"]).percentile(99))
    races.completions.append(len(completed["milliseconds"]) / completed["seconds"])
    races.strays.append(astray(crew.team(), claimed["claims"], since))


async def _with_tools(members: dict[str, Agent], claims: dict[str, list[str]], what: str) -> dict[str, Any]:
    milliseconds: list[float] = []

    async def called(member: Agent, arguments: dict[str, Any]) -> Result:
        began = time.perf_counter()
        result = await member.call("tailscale_task_update", action=what, **arguments)
        if not result.is_error:
            milliseconds.append((time.perf_counter() - began) * 1000)
        elif NOTHING_LEFT not in result.text:
            raise RuntimeError(result.text)
        return result

    async def claim(name: str, member: Agent) -> None:
        claims[name] = []
        while not (result := await called(member, {})).is_error:
            claims[name].append(structured(result)["id"])

    async def complete(name: str, member: Agent) -> None:
        for task in claims[name]:
            await called(member, {"id": task, "result": "Done, and pushed."})

    run = {"claim": claim, "complete": complete}[what]
    began = time.perf_counter()
    await asyncio.gather(*(run(name, member) for name, member in members.items()))
    return {"seconds": time.perf_counter() - began, "milliseconds": milliseconds, "claims": claims}


async def _told(crew: Crew, name: str, member: Agent) -> float:
    """Milliseconds from the time of a claim that the lead makes for the member, until that has been told of it."""
    await crew.add(1)
    # Not a wait for something: the member is to have had no event of late.
    await asyncio.sleep(EVENTS_APART_SECONDS)
    await member.succeed("tailscale_check_messages", limit=100)  # what is there already
    number, told = member.begin(
        "tools/call", {"name": "tailscale_check_messages", "arguments": {"wait_seconds": WAIT_SECONDS}}
    )
    await member.progressed(number, "Waiting for a message")
    assigned = await crew.lead.succeed("tailscale_task_update", action="claim", id=f"task-{crew.tasks}", owner=name)
    claimed = datetime.fromisoformat(structured(assigned)["claimed"])
    await told
    passed = (datetime.now(UTC) - claimed).total_seconds() * 1000
    await crew.lead.succeed("tailscale_task_update", action="complete", id=f"task-{crew.tasks}")
    return passed


async def _name(member: Agent) -> str:
    name: str = (await member.status())["magic_dns_name"]
    return name


async def _listed(member: Agent, arguments: dict[str, Any]) -> tuple[float, Result]:
    began = time.perf_counter()
    result = await member.succeed("tailscale_task_list", **arguments)
    return (time.perf_counter() - began) * 1000, result
