"""The lead's own way to the team that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cctailscale.teams.gateway import task_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cctailscale.teams.commands import TaskCommand
    from cctailscale.teams.lead import Lead
    from cctailscale.teams.model import Task
    from cctailscale.teams.wire import EventPage, TaskPage, TaskQuery, TeamView


class LocalGateway:
    """A TeamGateway for the lead. Every call raises TeamRefused, TeamUnusable, and NoTeam once the lead is closed."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead

    @property
    def _me(self) -> str:
        return self._lead.facts.lead

    async def team(self) -> TeamView:
        return self._lead.team(self._me)

    async def names(self, members: Collection[str]) -> Mapping[str, str]:  # noqa: ARG002 - of all, which costs no more
        return self._lead.names()

    async def tasks(self, query: TaskQuery) -> TaskPage:
        return self._lead.tasks(query, self._me)

    async def command(self, id: str, command: TaskCommand) -> Task:  # noqa: A002 - the field's name
        return task_of(await self._lead.command(self._me, id, command))

    async def events(self, after: int, seconds: float) -> EventPage:
        return await self._lead.events(after, seconds)

    async def leave(self) -> None:
        await self._lead.leave(self._me)
