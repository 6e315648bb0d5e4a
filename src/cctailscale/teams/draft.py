"""A change of a team while a command puts it together, and the refusal that ends it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from cctailscale.errors import plain
from cctailscale.teams import listing
from cctailscale.teams.model import (
    MAX_HISTORY,
    MAX_REASON_CHARS,
    Change,
    Deed,
    Entry,
    Event,
    EventKind,
    Member,
    RefusalCode,
    Refused,
    Task,
    Team,
)


class RuledOut(Exception):  # noqa: N818 - not an error that anybody sees
    """The rules say no: `refused` is what `rules.decide` answers."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


def refuse(code: RefusalCode, message: str, task: Task | None = None) -> NoReturn:
    raise RuledOut(Refused(code, message, task))


@dataclass(frozen=True, slots=True)
class _Told:
    """An event before it is known what the team will be."""

    kind: EventKind
    by: str | None
    task: str | None
    member: str | None
    reason: str | None


@dataclass(slots=True)
class Draft:
    """What becomes of `team` by what `actor` asks at the time `now`. `team` is as it was before, all along."""

    team: Team
    actor: str | None
    now: datetime
    _told: list[_Told] = field(default_factory=list)
    _tasks: dict[str, Task | None] = field(default_factory=dict)
    _members: dict[str, Member | None] = field(default_factory=dict)
    _facts: dict[str, Any] = field(default_factory=dict)

    @property
    def asking(self) -> Member:
        """The actor, who is a member."""
        assert self.actor is not None
        return self.team.members[self.actor]

    def tell(
        self,
        kind: EventKind,
        *,
        task: str | None = None,
        member: str | None = None,
        reason: str | None = None,
    ) -> None:
        """An event by the actor. `task` and `member` are shown as they are after the change."""
        self._told.append(_Told(kind, self.actor, task, member, reason))

    def entry(self, what: Deed, *, owner: str | None = None, reason: str | None = None) -> Entry:
        """A line of history by the actor, of now."""
        why = plain(reason, MAX_REASON_CHARS) if reason else None
        return Entry(at=self.now, by=self.actor, owner=owner, what=what, reason=why)

    def add(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._facts["next_task"] = self.team.facts.next_task + 1

    def alter(self, task: Task, entry: Entry, **fields: Any) -> None:  # noqa: ANN401 - those of Task
        """Gives the task these fields, its next version and a line of history, of which the first is always kept."""
        history = (*task.history, entry)
        if len(history) > MAX_HISTORY:
            history = (history[0], *history[1 - MAX_HISTORY :])
        self._tasks[task.id] = task.model_copy(
            update={**fields, "history": history, "version": task.version + 1, "updated": self.now}
        )

    def delete(self, task: Task) -> None:
        self._tasks[task.id] = None

    def put(self, member: Member) -> None:
        self._members[member.id] = member

    def forget(self, member: Member) -> None:
        self._members[member.id] = None

    def set_facts(self, **fields: Any) -> None:  # noqa: ANN401 - those of Facts
        self._facts.update(fields)

    def done(self, *, about: str | None = None, member: str | None = None) -> Change:
        """The change; `about` (a task) and `member` are what the command's answer is about."""
        team = self.team
        version = team.facts.version + len(self._told)
        facts = team.facts.model_copy(update={**self._facts, "version": version})
        tasks = {key: task and task.model_copy(update={"changed": version}) for key, task in self._tasks.items()}
        after = team.after(Change(team.facts.version, facts, (), self._members, tasks))
        return Change(
            base=team.facts.version,
            facts=facts,
            events=tuple(self._event(after, seq, told) for seq, told in enumerate(self._told, team.facts.version + 1)),
            members=self._members,
            tasks=tasks,
            task=(after.tasks.get(about) or team.tasks.get(about)) if about else None,
            member=after.members[member] if member else None,
        )

    def _event(self, after: Team, seq: int, told: _Told) -> Event:
        shown = after if told.task in after.tasks else self.team  # a task that was deleted, as it was
        return Event(
            seq=seq,
            at=self.now,
            kind=told.kind,
            by=told.by,
            task=listing.row(shown, shown.tasks[told.task]) if told.task else None,
            member=listing.member_row(after.members[told.member]) if told.member else None,
            reason=plain(told.reason, MAX_REASON_CHARS) if told.reason else None,
        )
