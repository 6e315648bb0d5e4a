"""How a team grows: claims with 1 to 50 members, calls with 10 to 2,000 tasks, events with 1 to 200 members."""

from __future__ import annotations

import asyncio
import contextlib
import time

from bench.crew import Crew, structured
from bench.driver import Driver
from bench.figures import Goal, Subject
from bench.lab import Lab
from bench.process import memory
from cctailscale.teams.model import MAX_TASKS

CLAIMANTS = (1, 5, 20, 50)
CLAIMS = 250
TASKS = (10, 100, 500, MAX_TASKS)
CALLS = 10
# The members of some number lie in processes of so many: one of Python's would be the measure else.
SESSIONS = 50
CROWD = 200  # with the lead one more than there may be
MEMBERS = (1, 50, 100, CROWD - 1)
EVENTS = 5
APART_SECONDS = 1.0


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "members",
        f"Claims: members without MCP, at most {SESSIONS} in a process, claim {CLAIMS} tasks. Calls: tools/call to its "
        f"result at the lead's client. Events: {EVENTS} of them, {APART_SECONDS:g} s apart, from the lead's decision "
        "to each member's copy of the list, while every member waits with a request of its own. Memory is the lead's "
        f"PSS. Once, in place of {rounds} rounds.",
    )
    await _claims(lab, subject)
    await _calls(lab, subject)
    await _events(lab, subject)
    return subject


async def _claims(lab: Lab, subject: Subject) -> None:
    async with Crew.led(lab) as crew, crew.driver(lab, SESSIONS) as driver:
        for members in CLAIMANTS:
            await driver.ask({"do": "join", "lead": crew.name, "count": members})
            await crew.add(CLAIMS)
            race = await driver.ask({"do": "claim"})
            await driver.ask({"do": "complete"})
            subject.add(f"{members} members: claims", "1/s", [CLAIMS / race["seconds"]])
            subject.add(f"{members} members: a claim", "ms", race["milliseconds"])


async def _calls(lab: Lab, subject: Subject) -> None:
    async with Crew.led(lab) as crew:
        for tasks in TASKS:
            await crew.add(tasks - crew.tasks)
            lists, claims = [], []
            for _ in range(CALLS):
                began = time.perf_counter()
                await crew.lead.succeed("tailscale_task_list", unblocked_only=True)
                listed = time.perf_counter()
                claimed = await crew.lead.succeed("tailscale_task_update", action="claim")
                claims.append((time.perf_counter() - listed) * 1000)
                lists.append((listed - began) * 1000)
                await crew.lead.succeed("tailscale_task_update", action="release", id=structured(claimed)["id"])
            subject.add(f"{tasks} tasks: a list", "ms", lists)
            subject.add(f"{tasks} tasks: a claim", "ms", claims)


async def _events(lab: Lab, subject: Subject) -> None:
    async with Crew.led(lab) as crew, contextlib.AsyncExitStack() as stack:
        drivers: list[Driver] = []
        joined = 0
        for members in MEMBERS:
            while joined < members:
                if joined == len(drivers) * SESSIONS:
                    drivers.append(await stack.enter_async_context(crew.driver(lab, min(SESSIONS, CROWD - 1 - joined))))
                joined = min(members, len(drivers) * SESSIONS)
                count = joined - (len(drivers) - 1) * SESSIONS
                await drivers[-1].ask({"do": "join", "lead": crew.name, "count": count})
            delays = await _delays(crew, drivers, members)
            subject.add(f"{members} members: an event", "ms", delays, Goal(50) if members == CROWD - 1 else None)
            subject.add(f"{members} members: the lead", "MiB", [memory(crew.lead.pid).pss])


async def _delays(crew: Crew, drivers: list[Driver], members: int) -> list[float]:
    # Neither is a wait for something: the members are to have nothing to do but to wait for events.
    await asyncio.sleep(APART_SECONDS)
    for driver in drivers:
        await driver.ask({"do": "delays", "count": 0})
    for _ in range(EVENTS):
        await crew.add(1)
        await asyncio.sleep(APART_SECONDS)
    found: list[float] = []
    for driver in drivers:
        found += (await driver.ask({"do": "delays", "count": 0}))["milliseconds"]
    if len(found) != EVENTS * members:
        raise RuntimeError(f"{len(found)} events came to {members} members, not {EVENTS} to each")
    return found
