"""A member's way to its team: one Protocol, whether the team is kept here, by another agent, or by neither."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from cctailscale.errors import BadDocument, TeamRefused, plain
from cctailscale.teams.commands import TaskCommand
from cctailscale.teams.model import EXCERPT_CHARS, Task
from cctailscale.teams.wire import Answer, EventPage, TaskPage, TaskQuery, TeamView


def task_of(answer: Answer) -> Task:
    """The task that a command was about. Raises TeamRefused: the rules said no; BadDocument: it says neither.

    A refusal's own words say how the task stands; who has seen another version of it is shown the whole of it.
    """
    no = answer.refused
    if no is not None:
        raise TeamRefused(no.code, no.message, _shown(no.task) if no.task and no.code == "stale" else None)
    if answer.task is None:
        raise BadDocument("answer", "has neither a task nor a refusal")
    return answer.task


def _shown(task: Task) -> str:
    """A task in an error: what stands in a line of it, so that its status and version are never cut off."""
    cut = {name: plain(text, EXCERPT_CHARS) for name in ("description", "result") if (text := getattr(task, name))}
    return task.model_copy(update=cut).model_dump_json(exclude={"history", "metadata"}, exclude_defaults=True)


class TeamGateway(Protocol):
    """Every call raises TeamRefused, TeamUnusable, TeamEnded, and LeadOffline, for which it takes 5 s at most.

    `events` waits for longer.
    """

    async def team(self) -> TeamView:
        """Who is in it, and how far it is."""
        ...

    async def names(self, members: Collection[str]) -> Mapping[str, str]:
        """By id, the names of these members' devices, and perhaps of others; without those who are gone."""
        ...

    async def tasks(self, query: TaskQuery) -> TaskPage:
        """A page of the list."""
        ...

    async def command(self, id: str, command: TaskCommand) -> Task:  # noqa: A002 - the field's name
        """Has a command carried out, at most once for each `id`, and gives the task that it is about.

        Raises TeamRefused: the rules say no, and nothing was changed.
        """
        ...

    async def events(self, after: int, seconds: float) -> EventPage:
        """The events past `after`, as soon as there are some; none after `seconds`. It counts as being heard of."""
        ...

    async def leave(self) -> None:
        """Ends this membership. Not for a lead, who disbands."""
        ...
