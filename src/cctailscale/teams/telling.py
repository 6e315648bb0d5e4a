"""A team and its tasks as the results of tools and commands: names of members in place of their ids.

Texts stay as members wrote them: who shows them sees to what its reader must not obey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cctailscale.teams import model, results, wire

# Of the tasks that one waits for or blocks, which may be all the others.
MAX_IDS = 10

# By id: the MagicDNS names of members.
Names = Mapping[str, str]


def names_of(view: wire.TeamView) -> Names:
    """Those who are in the team."""
    return {member.id: member.identity.name for member in view.members}


def named_in(task: model.Task) -> set[str]:
    """The members whom a task names, its history as well."""
    named = {task.owner, task.completed_by, task.created_by}
    for entry in task.history:
        named |= {entry.by, entry.owner}
    return {member for member in named if member is not None}


def team(view: wire.TeamView) -> results.TeamInfo:
    """The team with all its members: the lead, `you`, then whoever was heard of last."""
    members = sorted(view.members, key=lambda one: one.last_seen, reverse=True)
    members.sort(key=lambda one: (one.id != view.lead, one.id != view.you))
    return results.TeamInfo(
        team=view.name,
        your_role="lead" if view.you == view.lead else "member",
        lead=_name(view.lead, names_of(view)),
        tasks=results.TaskCounts(**view.counts.model_dump()),
        lease_ms=round(view.lease_seconds * 1000) or None,
        members_total=len(members),
        members=[_member(one, view.you) for one in members],
        as_of=view.as_of,
    )


def row(row: model.TaskRow, names: Names, you: str | None) -> results.TaskRow:
    """A task in a list."""
    return results.TaskRow(
        id=row.id,
        subject=row.subject,
        status=row.status,
        owner=_who(row.owner, names),
        yours=_is(row.owner, you),
        claimed=row.claimed,
        completed=row.completed,
        completed_by=_who(row.completed_by, names),
        priority=row.priority or None,
        waits_for=few(row.waits_for),
        blocks=few(row.blocks),
        active_form=row.active_form or None,
        description=row.description or None,
        result=row.result or None,
        created_by=_name(row.created_by, names),
        version=row.version,
    )


def task(one: model.Task, names: Names, you: str | None) -> results.TaskInfo:
    """A whole task."""
    return results.TaskInfo(
        id=one.id,
        subject=one.subject,
        status=one.status,
        owner=_who(one.owner, names),
        yours=_is(one.owner, you),
        claimed=one.claimed,
        completed=one.completed,
        completed_by=_who(one.completed_by, names),
        created=one.created,
        created_by=_name(one.created_by, names),
        priority=one.priority,
        blocked_by=list(one.blocked_by),
        active_form=one.active_form or None,
        description=one.description or None,
        result=one.result or None,
        metadata=one.metadata or None,
        history=[_entry(entry, names) for entry in one.history],
        version=one.version,
    )


def _member(member: model.MemberRow, you: str) -> results.MemberInfo:
    return results.MemberInfo(
        name=member.identity.name,
        owner=member.identity.login,
        tags=list(member.identity.tags),
        role=member.role,
        you=_is(member.id, you),
        joined=member.joined,
        last_seen=None if member.role == "lead" else member.last_seen,
    )


def _entry(entry: model.Entry, names: Names) -> results.HistoryEntry:
    return results.HistoryEntry(
        at=entry.at,
        what=entry.what,
        by=_who(entry.by, names),
        owner=None if entry.owner == entry.by else _who(entry.owner, names),
        reason=entry.reason,
    )


def _name(member: str, names: Names) -> str:
    return names.get(member) or f"{member}, who has left"


def _who(member: str | None, names: Names) -> str | None:
    return None if member is None else _name(member, names)


def _is(member: str | None, you: str | None) -> bool | None:
    return True if member is not None and member == you else None


def few(ids: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    return [*ids[:MAX_IDS], f"and {len(ids) - MAX_IDS} more"] if len(ids) > MAX_IDS else list(ids)
