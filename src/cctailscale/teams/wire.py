"""What members and leads say to each other under /v1/team, as types (docs/agent-protocol.md).

Each request names the team by its id, since a lead may have had another one before. Who asks is known by WhoIs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from cctailscale.config import TEAM_LEASE_SECONDS
from cctailscale.documents import Document, Id, Line, Time
from cctailscale.teams.commands import TaskCommand
from cctailscale.teams.model import Event, MemberId, MemberRow, Status, Task, TaskRow, TeamName

# Random, chosen by whoever wants a proof; 32 bytes in hex.
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]

# Two hundred members with long names, or two hundred rows with long texts.
MAX_LIST_BYTES = 512 * 1024
MAX_ROWS = 200
# Of those of a page, which its bytes allow too if they are of the usual length: all that happens in a second.
MAX_EVENTS = 1000
# Of a long poll. Below what a connection may be silent for (agents/connection.NEXT_REQUEST_SECONDS).
MAX_WAIT_SECONDS = 30.0
# The longest that a lead can be set to; JSON's parser takes an infinity as well, which cannot be written again.
MAX_LEASE_SECONDS = TEAM_LEASE_SECONDS[1]
Lease = Annotated[float, Field(gt=0, le=MAX_LEASE_SECONDS)]


class JoinRequest(Document):
    """POST /v1/team/join. `token`: of a membership that this node had with another device, or has."""

    nonce: Nonce
    token: Token | None = None


class Joined(Document):
    """Its answer. `signature` proves that the lead has the key (keys.py)."""

    team: Id
    name: TeamName
    public_key: PublicKey
    signature: Signature
    member: MemberId
    token: Token
    lease_seconds: Lease
    version: int  # events after this one are news


class ProofRequest(Document):
    """POST /v1/team/proof: is this the lead of that team?"""

    team: Id
    nonce: Nonce


class Proof(Document):
    signature: Signature


class LeaveRequest(Document):
    """POST /v1/team/leave."""

    team: Id


class CommandRequest(Document):
    """POST /v1/team/command. `id` is the member's own: the same one again is a retry."""

    team: Id
    id: Id
    command: TaskCommand


class No(Document):
    """A command that was refused by the rules; `task` is as it is now."""

    code: str
    message: Annotated[Line, Field(max_length=1000)]
    task: Task | None = None


class Answer(Document):
    """Its answer: `task` as it is now, or was when it was deleted; or `refused`."""

    max_bytes: ClassVar[int] = MAX_LIST_BYTES

    task: Task | None = None
    refused: No | None = None
    version: int


class Counts(Document):
    """How many tasks there are. `unblocked`: pending, and may be claimed."""

    pending: int
    unblocked: int
    in_progress: int
    completed: int


class TeamView(Document):
    """GET /v1/team?team=ID. `members` without those who are gone.

    `as_of`: the lead is offline, and this is what was known of the team then (replica.py). No lead sets it.
    """

    max_bytes: ClassVar[int] = MAX_LIST_BYTES

    team: Id
    name: TeamName
    public_key: PublicKey
    lead: MemberId
    you: MemberId
    lease_seconds: Annotated[float, Field(ge=0, le=MAX_LEASE_SECONDS)]  # 0: not known
    version: int
    counts: Counts
    members: Annotated[tuple[MemberRow, ...], Field(max_length=1000)]
    as_of: Time | None = None


class OfTeam(Document):
    """What GET /v1/team is asked with."""

    team: Id


class TaskQuery(Document):
    """GET /v1/team/tasks?team=ID and these. `cursor`: of the page before.

    `owner`: a member's id or name, or "me"; also of those that it has completed.
    """

    status: Status | None = None
    owner: str | None = None
    unblocked_only: bool = False
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 50
    cursor: str | None = None


class TasksOfTeam(OfTeam, TaskQuery):
    """What GET /v1/team/tasks is asked with."""


class TaskPage(Document):
    """In progress, then what can be claimed in the order of claiming, then what is blocked, then what is completed.

    `total`: of all that match. `changed`: how many of them have changed since the first page; no later page has them,
    since an earlier one may. `members`: id to name of everybody whom a row names, but who left too long ago.
    `as_of`: as in TeamView.
    """

    max_bytes: ClassVar[int] = MAX_LIST_BYTES

    rows: Annotated[tuple[TaskRow, ...], Field(max_length=MAX_ROWS)]
    total: int
    changed: int = 0
    cursor: str | None = None
    members: dict[MemberId, Line]
    version: int
    as_of: Time | None = None


class EventsOfTeam(OfTeam):
    """What GET /v1/team/events is asked with: what is past `after` is waited for, for `wait` seconds at most."""

    after: Annotated[int, Field(ge=0)]
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS)] = 0.0


class EventPage(Document):
    """GET /v1/team/events?team=ID&after=N&wait=SECONDS: the first events past N, once there are some, or none in time.

    `version` is what to ask past next. `reset`: some of the events are not kept any more, or N has not been yet; the
    lists have to be read anew.
    """

    max_bytes: ClassVar[int] = MAX_LIST_BYTES

    events: Annotated[tuple[Event, ...], Field(max_length=MAX_EVENTS)]
    version: int
    reset: bool = False
    lease_seconds: Lease
