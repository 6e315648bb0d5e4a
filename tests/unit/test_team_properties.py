"""What holds of a team after any sequence of commands by any of its members, and of others."""

from __future__ import annotations

from datetime import timedelta
from graphlib import TopologicalSorter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cctailscale.teams import listing
from cctailscale.teams.commands import (
    Claim,
    Command,
    Complete,
    Create,
    Delete,
    Disband,
    Join,
    Lapse,
    Leave,
    Release,
    Remove,
    Return,
    TaskCommand,
    Update,
)
from cctailscale.teams.model import Change, Event, Facts, Identity, Member, Refused, Task, TaskRow, Team
from cctailscale.teams.rules import decide, founded
from cctailscale.teams.wire import TaskPage, TaskQuery
from tests.asked import KEY, LEAD, START, device, token

# Few of each, so that they meet.
members = st.sampled_from([LEAD, "member-2", "member-3", "member-4"])
tasks = st.integers(1, 6).map("task-{}".format)
blockers = st.lists(tasks, max_size=2).map(tuple)
names = st.sampled_from(["ada", "bob", "ci"])
versions = st.one_of(st.none(), st.integers(1, 4))
priorities = st.integers(-1, 1)

commands: st.SearchStrategy[TaskCommand] = st.one_of(
    st.builds(Create, subject=st.just("Build"), blocked_by=blockers, priority=priorities),
    st.just(Claim()),
    st.builds(Claim, task=tasks),
    st.builds(Claim, task=tasks, owner=members),
    st.builds(Claim, task=tasks, version=versions),
    st.builds(Complete, task=tasks, result=st.sampled_from([None, "Done."])),
    st.builds(Complete, task=tasks, version=versions),
    st.builds(Release, task=tasks, version=versions),
    st.builds(Update, task=tasks, blocked_by=blockers),
    st.builds(
        Update,
        task=tasks,
        subject=st.sampled_from([None, "Build", "Test"]),
        priority=st.one_of(st.none(), priorities),
        blocked_by=st.one_of(st.none(), blockers),
        version=versions,
    ),
    st.builds(Delete, task=tasks, force=st.booleans(), version=versions),
)
# Whoever has the task that a command is about, or this one.
workers = st.one_of(st.none(), members)
queries = st.builds(
    TaskQuery,
    status=st.sampled_from([None, None, "pending", "in_progress", "completed"]),
    unblocked_only=st.booleans(),
    limit=st.integers(1, 3),
)


def identity(name: str, replaced: bool) -> Identity:
    """The second device of the same owner, or the first. One has tags."""
    owner: dict[str, Any] = {"login": None, "tags": ("tag:ci",)} if name == "ci" else {}
    return device(f"{name}-2" if replaced else name, **owner)


class AnyTeam(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.team = founded("team-1", "Build", KEY, device("lead"), START)
        self.log: list[Event] = []
        self.pages: list[tuple[TaskQuery, TaskPage, set[str]]] = []

    def ask(self, command: Command, actor: str | None) -> None:
        self.now += timedelta(seconds=1)
        before = self.team
        kept = dump(before)
        answer = decide(before, command, actor, self.now)
        assert dump(before) == kept
        if isinstance(answer, Refused):
            assert answer.message
            assert answer.message.isprintable()
            assert answer.task is None or answer.task == before.tasks[answer.task.id]
            return
        self.team = before.after(answer)
        self.log.extend(answer.events)
        check_change(before, answer, self.team)

    @initialize()
    def begin(self) -> None:
        """With somebody who can do something, and something to do."""
        for name in ("ada", "bob"):
            self.join(name, False)
        for blocked_by in ((), ("task-1",), ("task-2",)):
            self.ask(Create(subject="Build", blocked_by=blocked_by), "member-2")

    @rule(work=st.lists(st.tuples(commands, workers), min_size=4, max_size=8))
    def work(self, work: list[tuple[TaskCommand, str | None]]) -> None:
        """Commands that are about tasks that there are, mostly: others are soon refused."""
        for command, worker in work:
            aimed = self.aimed(command)
            task = None if isinstance(aimed, Create) else self.team.tasks.get(aimed.task or "")
            self.ask(aimed, worker or (task and task.owner) or LEAD)

    def aimed(self, command: TaskCommand) -> TaskCommand:
        there = list(self.team.tasks)
        aims: dict[str, object] = {}
        if there and isinstance(command, Create | Update) and command.blocked_by:
            aims["blocked_by"] = tuple(there[number(blocker) % len(there)] for blocker in command.blocked_by)
        if there and not isinstance(command, Create) and command.task:
            aims["task"] = there[number(command.task) % len(there)]
        return command.model_copy(update=aims)

    @rule(name=names, replaced=st.booleans())
    def join(self, name: str, replaced: bool) -> None:
        self.ask(Join(identity(name, replaced), token(f"{name}-{replaced}")), None)

    @rule(name=names, replaced=st.booleans(), given=st.none() | names, first=st.booleans())
    def come_back(self, name: str, replaced: bool, given: str | None, first: bool) -> None:
        """The lead does so without a token."""
        if given is None:
            self.ask(Return(identity("lead", replaced), None), None)
        else:
            self.ask(Return(identity(name, replaced), token(f"{given}-{first}")), None)

    @rule(member=members)
    def leave(self, member: str) -> None:
        self.ask(Leave(), member)

    @rule(actor=members, member=members)
    def remove(self, actor: str, member: str) -> None:
        self.ask(Remove(member), actor)

    @rule(lapsed=st.lists(members, max_size=3))
    def lapse(self, lapsed: list[str]) -> None:
        self.ask(Lapse(dict.fromkeys(lapsed, "not heard of for 90 s")), None)

    @rule(actor=members, really=st.integers(0, 19))
    def disband(self, actor: str, really: int) -> None:
        if actor != LEAD or really == 0:  # seldom, since nothing can happen afterwards
            self.ask(Disband(), actor)

    @rule(query=queries)
    def first_page(self, query: TaskQuery) -> None:
        self.turn(query, set())

    @rule()
    def next_page(self) -> None:
        if self.pages:
            query, page, seen = self.pages.pop()
            self.turn(query.model_copy(update={"cursor": page.cursor}), seen)

    def turn(self, query: TaskQuery, seen: set[str]) -> None:
        page = listing.page(self.team, query, LEAD)
        assert isinstance(page, TaskPage)
        shown = {row.id for row in page.rows}
        assert len(shown) == len(page.rows) <= query.limit
        assert not shown & seen
        if page.cursor:
            self.pages.append((query, page, seen | shown))

    @invariant()
    def owners_are_members_who_are_there_and_have_it_in_progress(self) -> None:
        for task in self.team.tasks.values():
            assert (task.owner is not None) == (task.status == "in_progress")
            assert (task.completed_by is not None) == (task.status == "completed")
            assert task.owner is None or not self.team.members[task.owner].gone

    @invariant()
    def nothing_waits_for_itself_or_for_what_is_not_there(self) -> None:
        graph = {task.id: task.blocked_by for task in self.team.tasks.values()}
        tuple(TopologicalSorter(graph).static_order())  # which raises CycleError
        assert {blocker for blockers in graph.values() for blocker in blockers} <= graph.keys()

    @invariant()
    def blocks_is_the_inverse_of_blocked_by(self) -> None:
        pairs = {(blocker, task.id) for task in self.team.tasks.values() for blocker in task.blocked_by}
        assert {(blocker, id_) for blocker, ids in self.team.blocks.items() for id_ in ids} == pairs
        assert self.team.blocks == Team(self.team.facts, self.team.members, self.team.tasks).blocks

    @invariant()
    def events_have_each_number_once_and_in_order(self) -> None:
        assert [event.seq for event in self.log] == list(range(1, self.team.facts.version + 1))

    @invariant()
    def no_task_is_lost(self) -> None:
        created = [event.task.id for event in self.log if event.kind == "task_created" and event.task]
        deleted = {event.task.id for event in self.log if event.kind == "task_deleted" and event.task}
        assert len(set(created)) == len(created)
        assert self.team.tasks.keys() == set(created) - deleted

    @invariant()
    def a_device_is_one_member_at_most(self) -> None:
        nodes = [member.identity.node_id for member in self.team.members.values() if not member.gone]
        assert len(set(nodes)) == len(nodes)
        removed = {member.identity.node_id for member in self.team.members.values() if member.gone == "removed"}
        assert removed.isdisjoint(nodes)
        assert self.team.members[LEAD].role == "lead"
        assert not self.team.members[LEAD].gone

    @invariant()
    def all_of_it_survives_json(self) -> None:
        team = self.team
        assert Facts.from_json(team.facts.to_json()) == team.facts
        for member in team.members.values():
            assert Member.from_json(member.to_json()) == member
        for task in team.tasks.values():
            assert Task.from_json(task.to_json()) == task
        for event in self.log[-5:]:
            assert Event.from_json(event.to_json()) == event

    @invariant()
    def a_list_has_each_task_in_its_place(self) -> None:
        page = listing.page(self.team, TaskQuery(limit=200), LEAD)
        assert isinstance(page, TaskPage)
        assert {row.id for row in page.rows} == self.team.tasks.keys()
        places = [place(row) for row in page.rows]
        assert places == sorted(places)


def number(task: str) -> int:
    return int(task.removeprefix("task-"))


def place(row: TaskRow) -> tuple[int, int, int]:
    order = ["in_progress", "pending", "blocked", "completed"]
    blocked = row.status == "pending" and row.waits_for
    return order.index("blocked" if blocked else row.status), -row.priority, number(row.id)


def check_change(before: Team, change: Change, after: Team) -> None:
    assert change.base == before.facts.version
    assert change.facts.version == before.facts.version + len(change.events)
    if not change.events:
        assert dump(before) == dump(after)
    check_claims(before, change, after)
    told = {event.task.id for event in change.events if event.task}
    for id_ in change.tasks.keys() & after.tasks.keys():
        old, new = before.tasks.get(id_), after.tasks[id_]
        assert new.version == (old.version + 1 if old else 1)
        assert new.changed == after.facts.version
        assert id_ in told, "somebody who follows the events would not know of it"
    for event in change.events:
        if event.task and event.task.id in after.tasks:
            assert event.task == listing.row(after, after.tasks[event.task.id])
    check_unblocked(before, change, after)


def check_claims(before: Team, change: Change, after: Team) -> None:
    """A claim is of what was pending and waited for nothing; nobody takes a task from its owner in one step."""
    for event in change.events:
        if event.kind in ("task_claimed", "task_assigned"):
            assert event.task
            assert before.claimable(before.tasks[event.task.id])
    for task in after.tasks.values():
        old = before.tasks.get(task.id)
        assert old is None or None in (old.owner, task.owner) or old.owner == task.owner
        assert old is None or old.status != "completed" or task.status == "completed"


def check_unblocked(before: Team, change: Change, after: Team) -> None:
    """Those that waited and do no more are told of, and no others."""
    freed = {
        task.id
        for task in after.tasks.values()
        if task.status != "completed"
        and task.id in before.tasks
        and before.waits_for(before.tasks[task.id])
        and not after.waits_for(task)
    }
    assert {event.task.id for event in change.events if event.kind == "task_unblocked" and event.task} == freed


def dump(team: Team) -> tuple[Facts, dict[str, Member], dict[str, Task]]:
    return team.facts, dict(team.members), dict(team.tasks)


TestAnyTeam = AnyTeam.TestCase
TestAnyTeam.settings = settings(max_examples=120, stateful_step_count=50)
