"""A member's way to a team that is kept in the test's own process, without a lead, a store or a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from cctailscale.errors import LeadOffline, TeamRefused
from cctailscale.teams import listing
from cctailscale.teams.commands import Complete, TaskCommand
from cctailscale.teams.gateway import task_of
from cctailscale.teams.model import Refused, Task
from cctailscale.teams.telling import names_of
from cctailscale.teams.wire import Answer, EventPage, No, TaskPage, TaskQuery, TeamView
from tests.asked import Asked

LEASE = 90.0


class Gateway:
    """A member's way to a team that is kept in the test. `as_of`: its lead is offline since then."""

    def __init__(self, asked: Asked, you: str) -> None:
        self.asked = asked
        self.you = you
        self.as_of: datetime | None = None
        self.queries: list[TaskQuery] = []

    async def team(self) -> TeamView:
        return listing.view(self.asked.team, self.you, LEASE).model_copy(update={"as_of": self.as_of})

    async def names(self, members: Collection[str]) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's
        return names_of(await self.team())

    async def tasks(self, query: TaskQuery) -> TaskPage:
        self.queries.append(query)
        page = listing.page(self.asked.team, query, self.you)
        if isinstance(page, Refused):
            raise TeamRefused(page.code, page.message)
        return page.model_copy(update={"as_of": self.as_of})

    async def command(self, id: str, command: TaskCommand) -> Task:  # noqa: A002 - the field's name
        assert len(id) >= 16
        if self.as_of is not None:
            raise LeadOffline("cc-lead.tail1234.ts.net", self.as_of, kept=isinstance(command, Complete))
        answer = self.asked.ask(command, self.you)
        refused = None
        if isinstance(answer, Refused):
            refused = No(code=answer.code, message=answer.message, task=answer.task)
        task = None if isinstance(answer, Refused) else answer.task
        return task_of(Answer(task=task, refused=refused, version=self.asked.team.facts.version))

    async def events(self, after: int, seconds: float) -> EventPage:
        raise NotImplementedError

    async def leave(self) -> None:
        raise NotImplementedError
