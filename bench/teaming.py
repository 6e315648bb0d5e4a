"""The child of `bench.teams`: a process with members of a team and no MCP.

`python -m bench.teaming COUNT`. Its first line is {"sessions": COUNT}: so many nodes run. It reads commands from stdin,
one JSON object a line, and answers each when all who have joined are done:

- {"do": "join", "lead": NAME, "count": N} with {}: the first N sessions are members then;
- {"do": "claim"}, where each claims the next task until there is none, with {"seconds": S, "milliseconds": [...],
  "claims": {name of a member: ids of its tasks}};
- {"do": "complete"}, where each completes what it has claimed, with the same;
- {"do": "delays", "count": N} with {"milliseconds": [...]} of the events that came since it was asked the last time, N
  at least: from the lead's decision, which is just before its commit, until the member knew of it.

It logs out at the end of its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from bench.driven import LOGOUT_SECONDS
from cctailscale.agents.agent import Agent
from cctailscale.agents.teamwork import Teamwork
from cctailscale.config import load_settings
from cctailscale.errors import TeamRefused
from cctailscale.redact import Redactor
from cctailscale.tailnet.attempt import unheard
from cctailscale.tailnet.node import Node
from cctailscale.teams.commands import Claim, Complete, TaskCommand
from cctailscale.teams.replica import Replica
from cctailscale.teams.wire import EventPage

# Nodes that start, or members that join, at the same time; more would only wait for a CPU.
AT_ONCE = 8
EVENT_SECONDS = 30.0


@dataclass
class Session:
    """One session without its MCP server, and the tasks that it has claimed."""

    name: str
    teamwork: Teamwork
    claims: list[str] = field(default_factory=list)

    async def do(self, command: TaskCommand) -> str:
        """The id of the task that the command was about."""
        gateway = await self.teamwork.gateway()
        return (await gateway.command(secrets.token_urlsafe(12), command)).id

    async def claim_all(self, note: Callable[[float], None]) -> None:
        self.claims.clear()
        with contextlib.suppress(TeamRefused):  # there is nothing to claim any more
            while True:
                began = time.perf_counter()
                self.claims.append(await self.do(Claim()))
                note((time.perf_counter() - began) * 1000)

    async def complete_all(self, note: Callable[[float], None]) -> None:
        for task in self.claims:
            began = time.perf_counter()
            await self.do(Complete(task=task, result="Done, and pushed."))
            note((time.perf_counter() - began) * 1000)


class Delays:
    """In milliseconds, of the events that the replicas of this process have taken."""

    def __init__(self) -> None:
        self._found: list[float] = []
        self._more = anyio.Event()

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Until its end every replica's events are noted here."""
        take = Replica.take

        def taken(self: Replica, page: EventPage, now: datetime) -> None:
            take(self, page, now)
            note((now - event.at).total_seconds() * 1000 for event in page.events)

        note = self._note
        Replica.take = taken  # type: ignore[method-assign]
        try:
            yield
        finally:
            Replica.take = take  # type: ignore[method-assign]

    async def taken(self, count: int) -> list[float]:
        """Those since the last call, as soon as there are `count`."""
        with anyio.fail_after(EVENT_SECONDS):
            while len(self._found) < count:
                self._more = anyio.Event()
                await self._more.wait()
        found, self._found = self._found, []
        return found

    def _note(self, milliseconds: Iterable[float]) -> None:
        self._found += milliseconds
        self._more.set()


async def serve(count: int) -> None:
    # Each session has a copy of the list, and in life a process of its own. Here one full collection would look at all
    # of them, and stop them all for 150 ms.
    gc.disable()
    delays = Delays()
    async with _sessions(count) as sessions:
        answer({"sessions": len(sessions)})
        members = 0
        with delays.noted():
            while line := await asyncio.to_thread(sys.stdin.readline):
                match json.loads(line):
                    case {"do": "join", "lead": lead, "count": wanted}:
                        await _each(partial(each.teamwork.join, lead) for each in sessions[members:wanted])
                        members = wanted
                        answer({})
                    case {"do": "claim"}:
                        answer(await _race(sessions[:members], Session.claim_all))
                    case {"do": "complete"}:
                        answer(await _race(sessions[:members], Session.complete_all))
                    case {"do": "delays", "count": wanted}:
                        answer({"milliseconds": await delays.taken(wanted)})


async def _race(
    members: list[Session], run: Callable[[Session, Callable[[float], None]], Coroutine[Any, Any, None]]
) -> dict[str, Any]:
    milliseconds: list[float] = []
    began = time.perf_counter()
    async with anyio.create_task_group() as racing:
        for member in members:
            racing.start_soon(run, member, milliseconds.append)
    seconds = time.perf_counter() - began
    claims = {member.name: member.claims for member in members}
    return {"seconds": seconds, "milliseconds": milliseconds, "claims": claims}


@contextlib.asynccontextmanager
async def _sessions(count: int) -> AsyncIterator[list[Session]]:
    """Their nodes run. They are logged out at the end."""
    ends = anyio.Event()
    opened: list[Session] = []

    async with anyio.create_task_group() as living:
        await _each(partial(living.start, _live, number, opened, ends) for number in range(count))
        try:
            yield opened
        finally:
            ends.set()


async def _live(
    number: int, opened: list[Session], ends: anyio.Event, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    """One session, put together as `app` does it."""
    state = Path(os.environ["TS_STATE_DIR"]) / str(number)
    loaded = load_settings(dict(os.environ) | {"TS_STATE_DIR": str(state), "CLAUDE_CODE_SESSION_ID": str(number)})
    async with (
        Node.opened(loaded, Redactor(*loaded.settings.secrets())) as node,
        Agent.opened(node) as agent,
        Teamwork.opened(node, agent) as teamwork,
    ):
        me = await (await node.device(unheard)).me()
        assert me is not None
        opened.append(Session(me.node.name, teamwork))
        task_status.started()
        await ends.wait()
        await node.stop(LOGOUT_SECONDS)


async def _each(calls: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Makes the calls, AT_ONCE at the same time."""
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def limited(call: Callable[[], Awaitable[object]]) -> None:
        async with limit:
            await call()

    async with anyio.create_task_group() as calling:
        for call in calls:
            calling.start_soon(limited, call)


def answer(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
