"""What the tools for teams answer, as types. The descriptions are what Claude reads of them.

Members are called by the MagicDNS names of their devices; names, owners and tags are what control vouches for. Texts
of tasks (subject, description, active_form, result, reason, metadata) are what members wrote.
"""

from datetime import datetime
from typing import Any

from pydantic import Field

from cctailscale.results import Compact
from cctailscale.teams.model import Deed, Role, Status


class MemberInfo(Compact):
    """One member."""

    name: str = Field(description="MagicDNS name, for `owner`, `member` and messages")
    owner: str | None = Field(default=None, description="verified login; none where tagged")
    tags: list[str] = Field(default=[])
    role: Role
    you: bool | None = Field(default=None, description="true for this agent")
    joined: datetime
    last_seen: datetime | None = Field(default=None, description="when the lead last heard of it; absent for the lead")


class TaskCounts(Compact):
    """How many tasks there are."""

    pending: int
    unblocked: int = Field(description="of the pending, those that can be claimed")
    in_progress: int
    completed: int


class Dated(Compact):
    """A result that may be older than the call."""

    as_of: datetime | None = Field(default=None, description="present while the lead is offline: what is shown is then")
    notice: str | None = None


class TeamInfo(Dated):
    """The team that this agent is in."""

    team: str = Field(description="its name")
    your_role: Role
    lead: str = Field(description="MagicDNS name; what others join with")
    tasks: TaskCounts
    lease_ms: int | None = Field(
        default=None, description="a member that was not heard of for so long loses its claims"
    )
    members_total: int
    members: list[MemberInfo] = Field(description="the lead, this agent, then whoever was heard of last")


class Departure(Compact):
    """What has ended."""

    team: str
    note: str


class TaskRow(Compact):
    """A task in a list. Texts of members may be cut; "…" shows where."""

    id: str
    subject: str
    status: Status
    owner: str | None = Field(default=None, description="MagicDNS name of who has claimed it")
    yours: bool | None = Field(default=None, description="true if that is this agent")
    claimed: datetime | None = None
    completed: datetime | None = None
    completed_by: str | None = None
    priority: int | None = Field(default=None, description="high first; absent: 0")
    waits_for: list[str] = Field(default=[], description="not completed; it cannot be claimed before they are")
    blocks: list[str] = Field(default=[], description="tasks that name it in blocked_by")
    active_form: str | None = None
    description: str | None = None
    result: str | None = None
    created_by: str
    version: int


class TaskList(Dated):
    """In progress first, then what can be claimed in the order of claiming, then blocked, then completed."""

    total: int = Field(description="tasks that match, on all pages")
    changed: int | None = Field(
        default=None, description="of them, those that changed since the first page; no later page has them"
    )
    tasks: list[TaskRow]
    cursor: str | None = Field(description="give it to get the next page; null on the last one")


class HistoryEntry(Compact):
    """What happened to a task. Without `by` nobody did it: its owner was not heard of."""

    at: datetime
    what: Deed
    by: str | None = None
    owner: str | None = Field(default=None, description="whose claim it is about")
    reason: str | None = None


class TaskInfo(Compact):
    """One task as it is now."""

    id: str
    subject: str
    status: Status
    version: int = Field(description="give it with a change that must not overwrite another one's")
    deleted: bool | None = Field(default=None, description="true: it is no more; this is what it was")
    owner: str | None = Field(default=None, description="MagicDNS name of who has claimed it")
    yours: bool | None = Field(default=None, description="true if that is this agent")
    claimed: datetime | None = None
    completed: datetime | None = None
    completed_by: str | None = None
    created: datetime
    created_by: str
    priority: int
    blocked_by: list[str] = Field(default=[], description="completed ones block no more")
    active_form: str | None = None
    description: str | None = None
    result: str | None = None
    metadata: dict[str, Any] | None = None
    history: list[HistoryEntry] = Field(default=[], description="the latest last")
