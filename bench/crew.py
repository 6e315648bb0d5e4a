"""A team with a cc-tailscale process as its lead: its tasks, and who owns them by its database."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.driver import Driver
from bench.lab import Lab, joined, left
from cctailscale.teams.model import Team
from cctailscale.teams.sqlite import read
from tests.agent import Agent, Result

T = TypeVar("T")

TEAMS = {"TS_ENABLE_TEAMS": "1"}
# Calls, or processes that start, at the same time: enough to keep two CPUs busy.
AT_ONCE = 8
SUBJECT = "Replace the deprecated calls in module"
DESCRIPTION = "Branch wip/calls. Replace what the linter marks, run the module's tests, and say what had to change."


class Crew:
    """Made by `led`. `lead` is its process, `name` its device's."""

    def __init__(self, lead: Agent, name: str, state: Path) -> None:
        self.lead = lead
        self.name = name
        self.tasks = 0
        self._state = state

    @classmethod
    @contextlib.asynccontextmanager
    async def led(cls, lab: Lab) -> AsyncIterator[Crew]:
        environ = lab.environ() | TEAMS
        async with lab.agent(environ) as lead:
            await joined(lead)
            name = (await lead.status())["magic_dns_name"]
            await lead.succeed("tailscale_team_create", name="bench")
            yield cls(lead, name, Path(environ["TS_STATE_DIR"]))
            await left(lead)

    @contextlib.asynccontextmanager
    async def members(self, lab: Lab, count: int) -> AsyncIterator[list[Agent]]:
        """Members with a cc-tailscale process each."""
        async with contextlib.AsyncExitStack() as stack:

            async def member() -> Agent:
                agent = await stack.enter_async_context(lab.agent(lab.environ() | TEAMS))
                await joined(agent)
                await agent.succeed("tailscale_team_join", lead_hostname=self.name)
                return agent

            agents = await at_once(member() for _ in range(count))
            yield agents
            await at_once(map(left, agents))

    @contextlib.asynccontextmanager
    async def driver(self, lab: Lab, count: int) -> AsyncIterator[Driver]:
        """A process with sessions that can join; see bench.teaming."""
        async with Driver.joined(lab.environ() | TEAMS, ("bench.teaming", str(count))) as driver:
            yield driver

    async def add(self, count: int) -> None:
        """Adds tasks, which can be claimed."""
        numbers = range(self.tasks + 1, self.tasks + count + 1)
        create = "tailscale_task_create"
        await at_once(self.lead.succeed(create, subject=f"{SUBJECT} {n}", description=DESCRIPTION) for n in numbers)
        self.tasks += count

    def team(self) -> Team:
        """As the lead has committed it."""
        (file,) = self._state.glob("teams/*/team.db")
        return read(file)


def astray(team: Team, claims: Mapping[str, Sequence[str]], since: int) -> int:
    """How many tasks from number `since` on do not have one claim in their history, by the one who was told so.

    `claims`: the ids of tasks by the name of the member that was told to have them.
    """
    told: defaultdict[str, list[str]] = defaultdict(list)
    for name, tasks in claims.items():
        for task in tasks:
            told[task].append(name)
    kept = {
        task.id: [
            team.members[entry.owner].identity.name
            for entry in task.history
            if entry.what == "claimed" and entry.owner is not None
        ]
        for task in team.tasks.values()
        if task.number >= since
    }
    return sum(len(kept.get(task, ())) != 1 or told[task] != kept[task] for task in kept.keys() | told.keys())


async def at_once(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What they give, in their order; AT_ONCE run at the same time."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def limited(call: Awaitable[T]) -> T:
        async with limit:
            return await call

    return await asyncio.gather(*map(limited, calls))


def structured(result: Result) -> dict[str, Any]:
    assert result.structured is not None
    found: dict[str, Any] = result.structured
    return found
