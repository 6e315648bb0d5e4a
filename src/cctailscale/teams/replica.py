"""The team as a member knows it: read once, then kept up by events; what is shown while the lead is offline."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar

import anyio.to_thread
from pydantic import Field

from cctailscale.documents import Time
from cctailscale.errors import TeamRefused
from cctailscale.teams import kept, listing
from cctailscale.teams.gateway import TeamGateway
from cctailscale.teams.model import (
    EXCERPT_CHARS,
    MAX_KNOWN_MEMBERS,
    MAX_TASKS,
    Event,
    Facts,
    Member,
    MemberId,
    MemberRow,
    Refused,
    Task,
    TaskRow,
    Team,
)
from cctailscale.teams.wire import MAX_ROWS, EventPage, Lease, TaskPage, TaskQuery, TeamView

FILE = "team.json"
# All tasks and members there can be, in letters that need the most room.
MAX_BYTES = 32 * 1024 * 1024


class Known(kept.Kept):
    """What is known of a team, and when that was."""

    max_bytes: ClassVar[int] = MAX_BYTES

    team: Facts
    you: MemberId
    lease_seconds: Lease
    as_of: Time
    members: Annotated[tuple[MemberRow, ...], Field(max_length=MAX_KNOWN_MEMBERS)]
    tasks: Annotated[tuple[TaskRow, ...], Field(max_length=MAX_TASKS)]


def load(folder: Path) -> Replica | None:
    """What a session in this folder has last known, for who only looks. Blocks. Raises TeamUnusable."""
    known = kept.load(Known, folder / FILE)
    return None if known is None else Replica(known)


def forget(folder: Path) -> None:
    """Removes what was kept. Blocks. Raises TeamUnusable."""
    kept.remove(folder / FILE)


class Replica:
    """A team as it was at `as_of`, by this machine's clock. `version` is the last event that is in it.

    `changes` counts what was made known to it, by events and by calls.
    """

    def __init__(self, known: Known) -> None:
        self._facts = known.team
        self._you = known.you
        self._lease_seconds = known.lease_seconds
        self._members = {row.id: row for row in known.members}
        self._tasks = {row.id: row for row in known.tasks}
        self.as_of: datetime = known.as_of
        self.changes = 0

    @classmethod
    async def read(cls, gateway: TeamGateway) -> Replica:
        """The whole team as it is now. Raises as TeamGateway.

        It may change while it is read: `version` is that of the beginning, and the events since then put it right.
        """
        view = await gateway.team()
        rows: list[TaskRow] = []
        cursor: str | None = None
        while len(rows) < MAX_TASKS:
            page = await gateway.tasks(TaskQuery(limit=MAX_ROWS, cursor=cursor))
            rows += page.rows
            cursor = page.cursor
            if cursor is None or not page.rows:
                break
        now = datetime.now(UTC)
        facts = Facts(
            id=view.team,
            name=view.name,
            public_key=view.public_key,
            lead=view.lead,
            created=now,  # the lead alone knows it; nothing here shows it
            version=view.version,
            next_member=1,
            next_task=1,
        )
        return cls(
            Known(
                team=facts,
                you=view.you,
                lease_seconds=view.lease_seconds,
                as_of=view.as_of or now,
                members=view.members,
                tasks=tuple(rows[:MAX_TASKS]),
            )
        )

    def is_of(self, team: str, you: str) -> bool:
        """Whether it is of this team, as this member knows it."""
        return (self._facts.id, self._you) == (team, you)

    @property
    def version(self) -> int:
        return self._facts.version

    @property
    def lead(self) -> str:
        """The lead's id as a member."""
        return self._facts.lead

    @property
    def names(self) -> dict[str, str]:
        """The ids of members to their devices' names, of those who are gone as well."""
        return {member_id: row.identity.name for member_id, row in self._members.items()}

    @property
    def present(self) -> dict[str, str]:
        """As `names`, without those who are gone."""
        return {member_id: row.identity.name for member_id, row in self._members.items() if not row.gone}

    def can_be_claimed(self, task_id: str) -> bool:
        row = self._tasks.get(task_id)
        return (
            row is not None
            and row.status == "pending"
            and all(self._tasks[each].status == "completed" for each in self._blockers(row))
        )

    def take(self, page: EventPage, now: datetime) -> None:
        """Makes it what it is after these events. Those that are in it already do no harm."""
        for event in page.events:
            self.apply(event)
        self.as_of = now
        self._lease_seconds = page.lease_seconds

    def apply(self, event: Event) -> None:
        self.changes += 1
        if event.member is not None and (event.member.id in self._members or len(self._members) < MAX_KNOWN_MEMBERS):
            self._members[event.member.id] = event.member
        if event.task is not None and event.kind == "task_deleted":
            self._delete(event.task.id)
        elif event.task is not None:
            self._put(event.task)
        self._facts = self._facts.model_copy(update={"version": max(self.version, event.seq)})

    def put(self, task: Task, *, deleted: bool) -> None:
        """What a call of this session's has made of a task; the event of it comes later, or the lead goes before."""
        self.changes += 1
        if deleted:
            self._delete(task.id)
        else:
            fields = {name: value for name, value in task if name in TaskRow.model_fields}
            texts = {name: fields[name] and fields[name][: 2 * EXCERPT_CHARS] for name in ("description", "result")}
            self._put(TaskRow.model_construct(**fields | texts))

    def _put(self, row: TaskRow) -> None:
        known = self._tasks.get(row.id)
        if known.version <= row.version if known else len(self._tasks) < MAX_TASKS:
            self._tasks[row.id] = row

    def _delete(self, task_id: str) -> None:
        """As the rules do it: whom it blocked, it blocks no more, and is named there no more."""
        self._tasks.pop(task_id, None)
        for row in list(self._tasks.values()):
            if task_id in row.blocked_by:
                left = tuple(each for each in row.blocked_by if each != task_id)
                self._tasks[row.id] = row.model_copy(update={"blocked_by": left})

    # ---- what is shown of it

    def view(self) -> TeamView:
        """Who is in it, and how far it is."""
        shown = listing.view(self._team(), self._you, self._lease_seconds)
        return shown.model_copy(update={"as_of": self.as_of})

    def page(self, query: TaskQuery) -> TaskPage:
        """A page of the list. Raises TeamRefused: there is no such member, or no such page."""
        shown = listing.page(self._team(), query, self._you)
        if isinstance(shown, Refused):
            raise TeamRefused(shown.code, shown.message)
        return shown.model_copy(update={"as_of": self.as_of})

    def _team(self) -> Team:
        return Team(
            self._facts,
            {row.id: Member.model_construct(**dict(row), token="") for row in self._members.values()},
            {row.id: self._task(row) for row in self._tasks.values()},
        )

    def _task(self, row: TaskRow) -> Task:
        fields = dict(row) | {"blocked_by": self._blockers(row)}
        return Task.model_construct(**fields, updated=row.completed or row.claimed or row.created, metadata={})

    def _blockers(self, row: TaskRow) -> tuple[str, ...]:
        """Without one that has come between two pages: it is known with the next event."""
        return tuple(each for each in row.blocked_by if each in self._tasks)

    # ---- on the disk

    async def save(self, folder: Path) -> None:
        """Writes it down for `load`. Raises TeamUnusable."""
        await anyio.to_thread.run_sync(kept.write, folder / FILE, self._known())

    def _known(self) -> Known:
        return Known(
            team=self._facts,
            you=self._you,
            lease_seconds=self._lease_seconds,
            as_of=self.as_of,
            members=tuple(self._members.values()),
            tasks=tuple(self._tasks.values()),
        )
