"""The team as a member knows it: what its lead would list, whatever has happened since it was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.errors import TeamRefused, TeamUnusable
from cctailscale.teams import listing, replica
from cctailscale.teams.commands import Claim, Complete, Create, Delete, TaskCommand
from cctailscale.teams.model import MAX_TASKS, Refused
from cctailscale.teams.replica import Replica
from cctailscale.teams.wire import EventPage, TaskPage, TaskQuery, TeamView
from tests.asked import Asked
from tests.unit.test_team_properties import commands, members, queries

YOU = "member-2"
NOW = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)
works = st.lists(st.tuples(commands, members), max_size=25)


class Kept:
    """A TeamGateway onto a team of the test's, which may go on with each look at it."""

    def __init__(self, asked: Asked, meanwhile: list[tuple[TaskCommand, str]]) -> None:
        self.asked = asked
        self.meanwhile = meanwhile

    async def team(self) -> TeamView:
        return listing.view(self.asked.team, YOU, 90.0)

    async def names(self, members: Collection[str]) -> Mapping[str, str]:
        raise NotImplementedError

    async def tasks(self, query: TaskQuery) -> TaskPage:
        page = listing.page(self.asked.team, query.model_copy(update={"limit": 2}), YOU)
        assert not isinstance(page, Refused)
        for command, by in self.meanwhile[:2]:
            self.asked.ask(command, by)
        del self.meanwhile[:2]
        return page

    async def command(self, id: str, command: TaskCommand) -> None:  # noqa: A002 - the Protocol's
        raise NotImplementedError

    async def events(self, after: int, seconds: float) -> EventPage:
        raise NotImplementedError

    async def leave(self) -> None:
        raise NotImplementedError


def known(asked: Asked, *meanwhile: tuple[TaskCommand, str]) -> Replica:
    return anyio.run(Replica.read, Kept(asked, list(meanwhile)))


def events(asked: Asked, after: int) -> EventPage:
    past = tuple(event for event in asked.log if event.seq > after)
    return EventPage(events=past[:200], version=asked.team.facts.version, lease_seconds=90.0)


def listed(asked: Asked, query: TaskQuery) -> TaskPage:
    page = listing.page(asked.team, query, YOU)
    assert not isinstance(page, Refused)
    return page


@given(before=works, meanwhile=works, after=works, again=st.integers(0, 10), query=queries)
def test_it_lists_what_the_lead_would_list(
    before: list[tuple[TaskCommand, str]],
    meanwhile: list[tuple[TaskCommand, str]],
    after: list[tuple[TaskCommand, str]],
    again: int,
    query: TaskQuery,
) -> None:
    """Also if it was read while much happened, and is told of events that it knew of."""
    asked = Asked("ada", "bob")
    for command, by in before:
        asked.ask(command, by)
    team = known(asked, *meanwhile)
    read = team.version
    for command, by in after:
        asked.ask(command, by)
    team.take(events(asked, max(0, read - again)), NOW)
    assert team.page(query).model_copy(update={"as_of": None}) == listed(asked, query)
    view = listing.view(asked.team, YOU, 90.0)
    assert team.view().model_copy(update={"as_of": None}) == view
    assert team.view().as_of == team.page(query).as_of == NOW


@given(before=works, query=queries)
async def test_it_is_the_same_from_the_disk(
    tmp_path_factory: pytest.TempPathFactory, before: list[tuple[TaskCommand, str]], query: TaskQuery
) -> None:
    folder = tmp_path_factory.mktemp("session")
    asked = Asked("ada", "bob")
    for command, by in before:
        asked.ask(command, by)
    team = await Replica.read(Kept(asked, []))
    await team.save(folder)
    found = replica.load(folder)
    assert found is not None
    assert (found.version, found.as_of) == (team.version, team.as_of)
    assert found.page(query) == team.page(query)
    assert found.view() == team.view()


def test_what_this_session_did_is_in_it_before_the_event_comes() -> None:
    asked = Asked("ada")
    asked.ask(Create(subject="One"), "ada")
    asked.ask(Create(subject="Two", description="long " * 1000), "ada")
    team = known(asked)
    team.put(asked.task(Claim(task="task-2"), "ada"), deleted=False)
    assert [(row.id, row.owner) for row in team.page(TaskQuery(owner="me")).rows] == [("task-2", YOU)]
    assert team.page(TaskQuery()).rows == listed(asked, TaskQuery()).rows
    team.put(asked.task(Complete(task="task-2", result="long " * 1000), "ada"), deleted=False)
    assert team.page(TaskQuery()).rows == listed(asked, TaskQuery()).rows
    team.put(asked.task(Delete(task="task-1"), "ada"), deleted=True)
    assert [row.id for row in team.page(TaskQuery()).rows] == ["task-2"]


def test_what_the_lead_refuses_it_refuses() -> None:
    team = known(Asked("ada"))
    with pytest.raises(TeamRefused, match="nobody"):
        team.page(TaskQuery(owner="nobody"))
    with pytest.raises(TeamRefused, match="cursor"):
        team.page(TaskQuery(cursor="mine"))


def test_a_lead_that_names_no_end_of_tasks_fills_no_memory() -> None:
    asked = Asked("ada")
    asked.ask(Create(subject="One"), "ada")
    (created,) = (event for event in asked.log if event.task)
    team = known(asked)
    assert created.task is not None
    for number in range(1, MAX_TASKS + 10):
        task = created.task.model_copy(update={"id": f"task-{number}"})
        team.apply(created.model_copy(update={"task": task}))
    assert team.page(TaskQuery()).total == MAX_TASKS


def test_a_file_that_cannot_be_used_is_said_and_left_alone(tmp_path: Path) -> None:
    assert replica.load(tmp_path) is None
    (tmp_path / replica.FILE).write_bytes(b"{")
    with pytest.raises(TeamUnusable, match="damaged"):
        replica.load(tmp_path)
    assert (tmp_path / replica.FILE).read_bytes() == b"{"
