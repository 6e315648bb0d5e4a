"""A team that is led in the test's own process, on a store in memory, by a lead whose clocks are the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cctailscale.errors import TeamUnusable
from cctailscale.teams.commands import Create
from cctailscale.teams.keys import LeadKey
from cctailscale.teams.lead import Lead
from cctailscale.teams.model import Change, Event, Identity, Team
from cctailscale.teams.rules import founded
from cctailscale.teams.sqlite import SqliteStore
from cctailscale.teams.store import Answered, TeamStore
from cctailscale.teams.wire import Joined, JoinRequest, TaskQuery

KEY = LeadKey.new()
LEAD_NODE = "n1"
NONCE = "5a" * 32
LEASE = 90.0
LEAD = "member-1"
CREATE = Create(subject="Fix the build")


def device(number: int, hostname: str = "", owner: str = "alice@example.com") -> Identity:
    """The device that WhoIs calls `n{number}`."""
    return Identity(node_id=f"n{number}", name=f"{hostname or f'host{number}'}.tail.ts.net", login=owner)


class Store:
    """A store that does what the test wants where it is asked for more than is in memory."""

    def __init__(self, kept: TeamStore) -> None:
        self._kept = kept
        self.fails = ""  # why it cannot be written to
        self.commits: list[Change] = []
        self.seen_times: dict[str, datetime] = {}

    async def before_commit(self) -> None:
        """To be replaced: what happens on the way."""

    async def after_commit(self) -> None:
        """As above, before the lead hears of it."""

    def _check(self) -> None:
        if self.fails:
            raise TeamUnusable(Path("/secret/place/team.db"), self.fails, "Make room.")

    async def load(self) -> Team:
        return await self._kept.load()

    async def commit(self, change: Change, answered: Answered | None = None) -> None:
        await self.before_commit()
        self._check()
        await self._kept.commit(change, answered)
        self.commits.append(change)
        await self.after_commit()
        self._check()

    async def answered(self, member: str, id: str) -> Answered | None:  # noqa: A002 - the Protocol's
        return await self._kept.answered(member, id)

    async def events(self, after: int, limit: int) -> Sequence[Event] | None:
        return await self._kept.events(after, limit)

    async def seen(self, times: Mapping[str, datetime]) -> None:
        self._check()
        await self._kept.seen(times)
        self.seen_times.update(times)


@asynccontextmanager
async def stored() -> AsyncIterator[Store]:
    """A team that has only just been founded."""
    async with SqliteStore.opened(None) as store:
        team = founded("team-of-alice", "Build", KEY.public, device(1, "lead"), datetime.now(UTC))
        await store.commit(Change(base=0, facts=team.facts, events=(), members=team.members))
        yield Store(store)


@asynccontextmanager
async def leading(lease: float = LEASE, **options: Any) -> AsyncIterator[tuple[Lead, Store]]:
    async with stored() as store, Lead.opened(store, KEY, lease, **options) as lead:
        yield lead, store


async def joined(lead: Lead, number: int = 2, token: str | None = None, **who: str) -> Joined:
    """What the lead says to the device `n{number}`, which joins."""
    return await lead.join(device(number, **who), JoinRequest(nonce=NONCE, token=token), LEAD_NODE)


async def made(lead: Lead, count: int = 1) -> None:
    """Tasks of the lead's."""
    for number in range(count):
        assert (await lead.command(LEAD, f"create-{number}", CREATE)).task


def owners(lead: Lead) -> dict[str, str | None]:
    """Who has which task."""
    return {row.id: row.owner for row in lead.tasks(TaskQuery(limit=200), LEAD).rows}
