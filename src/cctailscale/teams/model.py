"""What a team is: its members, its tasks, what may be asked of it and what is told of it. Values only.

`rules.decide` makes a `Change` of a team and a command; `Team.after` makes the next team of a change. A team is never
altered in place. The words for tasks are Claude Code's own: pending, in_progress, completed, owner, blocked_by.

Members and tasks are called by ids of the team ("member-3", "task-12") that are never used again. Who a member is, by
WhoIs, is its `identity`, which changes when its device is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, JsonValue, StringConstraints

from cctailscale.documents import MAX_NAME_CHARS, Document, Id, Line, Text, Time

V = TypeVar("V")

# A list that an agent can still work with, and that its lead can hold in memory.
MAX_TASKS = 2_000
MAX_MEMBERS = 200
# With those who are gone: five for each place. Who has left longest ago is forgotten first; who was removed is kept, or
# it could join again.
MAX_KNOWN_MEMBERS = 1_000
MAX_NAME_OF_TEAM_CHARS = 64
MAX_SUBJECT_CHARS = 200
# A command has to fit into a document of 64 KiB, whatever its letters.
MAX_DESCRIPTION_CHARS = 10_000
MAX_RESULT_CHARS = 10_000
MAX_REASON_CHARS = 500
MAX_BLOCKERS = 100
MAX_METADATA_BYTES = 4 * 1024
# Far less than what a JSON parser or writer takes, far more than anybody reads.
MAX_METADATA_DEPTH = 16
MAX_PRIORITY = 1_000
# Of one task. What is older stands in the team's log of events.
MAX_HISTORY = 50
# Two texts and a history, all of letters that need the most room.
MAX_TASK_BYTES = 256 * 1024
# Of a description or a result in a list.
EXCERPT_CHARS = 200

Status = Literal["pending", "in_progress", "completed"]
Role = Literal["lead", "member"]
MemberId = Annotated[str, StringConstraints(pattern=r"^member-[1-9][0-9]{0,8}$")]
TaskId = Annotated[str, StringConstraints(pattern=r"^task-[1-9][0-9]{0,8}$")]
TeamName = Annotated[Line, Field(min_length=1, max_length=MAX_NAME_OF_TEAM_CHARS)]
Subject = Annotated[Line, Field(min_length=1, max_length=MAX_SUBJECT_CHARS)]
Description = Annotated[Text, Field(max_length=MAX_DESCRIPTION_CHARS)]
Result = Annotated[Text, Field(max_length=MAX_RESULT_CHARS)]
Priority = Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]
Blockers = Annotated[tuple[TaskId, ...], Field(max_length=MAX_BLOCKERS)]
Reason = Annotated[Line, Field(max_length=MAX_REASON_CHARS)]

EventKind = Literal[
    "member_joined",
    "member_returned",  # with a new device, or it joined once more
    "member_left",
    "member_removed",
    "lead_returned",
    "task_created",
    "task_claimed",
    "task_assigned",  # claimed by the lead for its owner
    "task_completed",
    "task_released",  # by its owner or the lead
    "claim_lost",  # the owner was not heard of, or has left
    "task_updated",
    "task_unblocked",
    "task_deleted",
    "all_done",  # no task is left that is not completed
    "disbanded",
]
Deed = Literal["created", "claimed", "assigned", "completed", "released", "claim lost", "updated"]
RefusalCode = Literal[
    "not_member",
    "removed",
    "not_found",
    "taken",  # somebody else has it
    "blocked",
    "completed",
    "not_yours",
    "lead_only",
    "unclaimed",  # nobody has it
    "blocking",  # others wait for it
    "cycle",
    "stale",
    "nothing_to_claim",
    "too_many",
    "too_large",
    "no_such_member",
    "no_such_page",
    "id_taken",  # the id of a command was used for another one
    "disbanded",
]


class Identity(Document):
    """Who a member's device is, as WhoIs has it; as `agents.policy.Principal`."""

    node_id: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
    name: Annotated[Line, Field(max_length=MAX_NAME_CHARS)]
    login: Annotated[Line, Field(max_length=MAX_NAME_CHARS)] | None = None
    tags: tuple[Line, ...] = ()


class Member(Document):
    """A member as the lead keeps it. `token` is the SHA-256 of its token in hex; "" for a lead."""

    id: MemberId
    identity: Identity
    role: Role = "member"
    joined: Time
    last_seen: Time
    token: str = ""
    gone: Literal["left", "removed"] | None = None


class Entry(Document):
    """One line of history. `by` is None where nobody did it: a claim lapsed. `owner`: whose claim it is about."""

    at: Time
    by: MemberId | None = None
    owner: MemberId | None = None
    what: Deed
    reason: Reason | None = None


class Task(Document):
    """One task. `version` counts its changes, from 1; `changed` is the team's version with the last of them.

    `owner` has it in progress; who is done with it is `completed_by`. `blocked_by` keeps the tasks that are completed,
    which block no more.
    """

    max_bytes: ClassVar[int] = MAX_TASK_BYTES

    id: TaskId
    subject: Subject
    description: Description = ""
    active_form: Annotated[Line, Field(max_length=MAX_SUBJECT_CHARS)] = ""
    status: Status = "pending"
    owner: MemberId | None = None
    priority: Priority = 0
    blocked_by: Blockers = ()
    created_by: MemberId
    result: Result | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    created: Time
    updated: Time
    claimed: Time | None = None
    completed: Time | None = None
    completed_by: MemberId | None = None
    history: Annotated[tuple[Entry, ...], Field(max_length=MAX_HISTORY)] = ()
    version: Annotated[int, Field(ge=1)] = 1
    changed: int = 0

    @property
    def number(self) -> int:
        """Its age: tasks are numbered as they are made."""
        return int(self.id.rpartition("-")[2])

    @property
    def turn(self) -> tuple[int, int]:
        """Its place in the order of claiming: by priority, high first, then age."""
        return (-self.priority, self.number)


class TaskRow(Document):
    """A task in a list or an event: texts cut to EXCERPT_CHARS. `waits_for` are blockers that are not completed."""

    id: TaskId
    subject: Subject
    description: str = ""
    active_form: str = ""
    status: Status
    owner: MemberId | None = None
    priority: int = 0
    blocked_by: tuple[TaskId, ...] = ()
    waits_for: tuple[TaskId, ...] = ()
    blocks: tuple[TaskId, ...] = ()
    created_by: MemberId
    result: str | None = None
    created: Time
    claimed: Time | None = None
    completed: Time | None = None
    completed_by: MemberId | None = None
    version: int


class MemberRow(Document):
    """A member as others see it."""

    id: MemberId
    identity: Identity
    role: Role
    joined: Time
    last_seen: Time
    gone: Literal["left", "removed"] | None = None


class Event(Document):
    """What has happened. `seq` is the team's version with it; `member` is whom it is about, `by` who did it."""

    seq: int
    at: Time
    kind: EventKind
    by: MemberId | None = None
    member: MemberRow | None = None
    task: TaskRow | None = None
    reason: Reason | None = None


class Facts(Document):
    """What a team is beside its members and tasks. `version` grows by one with each event."""

    id: Id
    name: TeamName
    public_key: str  # Ed25519, 32 bytes in hex
    lead: MemberId
    created: Time
    version: int
    next_member: int
    next_task: int
    disbanded: bool = False


@dataclass(frozen=True)
class Team:
    """A team at one version. `members` has those who are gone as well."""

    facts: Facts
    members: Mapping[str, Member] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def after(self, change: Change) -> Team:
        """The team once `change`, which was decided on this one, has been made."""
        team = Team(change.facts, _put(self.members, change.members), _put(self.tasks, change.tasks))
        if all(_edges(self.tasks.get(key)) == _edges(task) for key, task in change.tasks.items()):
            team.__dict__["blocks"] = self.blocks  # most commands leave it as it is, and it takes long to make
        return team

    @cached_property
    def blocks(self) -> Mapping[str, tuple[str, ...]]:
        """The inverse of `blocked_by`: a task to those that name it, the completed among them as well."""
        blocks: dict[str, list[str]] = {}
        for task in self.tasks.values():
            for blocker in task.blocked_by:
                blocks.setdefault(blocker, []).append(task.id)
        return {blocker: tuple(blocked) for blocker, blocked in blocks.items()}

    def waits_for(self, task: Task) -> tuple[str, ...]:
        """Which of its blockers are not completed."""
        return tuple(blocker for blocker in task.blocked_by if self.tasks[blocker].status != "completed")

    def claimable(self, task: Task) -> bool:
        return task.status == "pending" and all(
            self.tasks[blocker].status == "completed" for blocker in task.blocked_by
        )

    def of_node(self, node_id: str) -> Member | None:
        """Whose device this is: of several that have had it who is present, else who was removed, else who left."""
        theirs = [member for member in self.members.values() if member.identity.node_id == node_id]
        return min(theirs, key=lambda member: (None, "removed", "left").index(member.gone), default=None)


def _edges(task: Task | None) -> tuple[str, ...]:
    return task.blocked_by if task else ()


def _put(old: Mapping[str, V], changed: Mapping[str, V | None]) -> Mapping[str, V]:
    if not changed:
        return old
    new = dict(old)
    for key, value in changed.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = value
    return new


@dataclass(frozen=True, slots=True)
class Change:
    """What a command makes of the team of version `base`. None in a mapping: it is no more.

    Without events nothing changes and nothing is to be committed: a task was only read, or is already as was asked.
    """

    base: int
    facts: Facts
    events: tuple[Event, ...]
    members: Mapping[str, Member | None] = field(default_factory=dict)
    tasks: Mapping[str, Task | None] = field(default_factory=dict)
    task: Task | None = None  # what the answer is about, as it is now; one that was deleted, as it was
    member: Member | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a command changes nothing: a sentence or two, with names and ids; `task` is as it is now."""

    code: RefusalCode
    message: str
    task: Task | None = None
