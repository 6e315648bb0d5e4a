"""A team as it is shown: rows, pages of the list of tasks, and whom a name means. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from pydantic_core import to_json

from cctailscale.documents import Document
from cctailscale.errors import plain
from cctailscale.naming import folded
from cctailscale.results import fitting
from cctailscale.teams.model import EXCERPT_CHARS, Member, MemberRow, Refused, Task, TaskRow, Team
from cctailscale.teams.wire import Counts, TaskPage, TaskQuery, TeamView

# Of a page's rows or events, so that a page fits into wire.MAX_LIST_BYTES with the members' names.
MAX_ROWS_BYTES = 320 * 1024
# Of the members whom a name may mean, in a refusal.
MAX_CANDIDATES = 5
# An owner's name for whoever asks.
ME = "me"

# The team's version at the first page, and the last row's place in the order; numbers that Python reads in no time.
_CURSOR = re.compile(r"([0-9]{1,15})\.([0-3])\.(-?[0-9]{1,5})\.([0-9]{1,10})")

D = TypeVar("D", bound=Document)
_Place = tuple[int, int, int]


def row(team: Team, task: Task) -> TaskRow:
    """The task as a list or an event shows it."""
    return TaskRow(
        id=task.id,
        subject=task.subject,
        description=_excerpt(task.description),
        active_form=task.active_form,
        status=task.status,
        owner=task.owner,
        priority=task.priority,
        blocked_by=task.blocked_by,
        waits_for=team.waits_for(task),
        blocks=team.blocks.get(task.id, ()),
        created_by=task.created_by,
        result=None if task.result is None else _excerpt(task.result),
        created=task.created,
        claimed=task.claimed,
        completed=task.completed,
        completed_by=task.completed_by,
        version=task.version,
    )


def member_row(member: Member) -> MemberRow:
    """The member as others see it: without its token."""
    return MemberRow(
        id=member.id,
        identity=member.identity,
        role=member.role,
        joined=member.joined,
        last_seen=member.last_seen,
        gone=member.gone,
    )


def called(team: Team, member_id: str | None) -> str:
    """A member's name and id, fit to be shown; the id alone of one that the team has forgotten."""
    if member_id is None:
        return "nobody"
    member = team.members.get(member_id)
    name = plain(member.identity.name) if member else ""
    return f"{name} ({member_id})" if name else member_id


def resolve(team: Team, name: str) -> Member | Refused:
    """The member that an id, a full or a short name means, in upper or lower case.

    Those who are gone are meant only if nobody is present who could be. Refused if it is nobody, or more than one.
    """
    if name in team.members:
        return team.members[name]
    wanted = folded(name.removesuffix("."))
    full = [member for member in team.members.values() if folded(member.identity.name) == wanted]
    found = _present_first(full) or _present_first(
        [member for member in team.members.values() if folded(member.identity.name).partition(".")[0] == wanted]
    )
    if len(found) == 1:
        return found[0]
    if not found:
        return Refused("no_such_member", f'Nobody in the team is called "{plain(name)}".')
    shown = ", ".join(called(team, member.id) for member in found[:MAX_CANDIDATES])
    more = f" and {len(found) - MAX_CANDIDATES} more" if len(found) > MAX_CANDIDATES else ""
    return Refused("no_such_member", f'"{plain(name)}" may be {shown}{more}: give the id.')


def page(team: Team, query: TaskQuery, you: str) -> TaskPage | Refused:
    """The tasks that match, past the cursor; fewer than `limit` if their texts are long. `you` is who asks.

    A cursor is the place of the last row, so that it holds whatever becomes of that row. A task that has changed since
    the first page may have moved on from an earlier page to a later one: it is left out, and counted.
    """
    owner = None if query.owner is None else _owner(team, query.owner, you)
    if isinstance(owner, Refused):
        return owner
    since = None if query.cursor is None else _CURSOR.fullmatch(query.cursor)
    if query.cursor is not None and since is None:
        return Refused("no_such_page", "The cursor is not one that a page of this list had.")
    as_of = int(since[1]) if since else team.facts.version
    last = (int(since[2]), int(since[3]), int(since[4])) if since else None

    matching = [(_place(team, task), task) for task in team.tasks.values() if _matches(team, task, query, owner)]
    left = sorted(
        (placed for placed in matching if last is None or (placed[0] > last and placed[1].changed <= as_of)),
        key=lambda placed: placed[0],
    )
    rows = paged(row(team, task) for _, task in left[: query.limit])
    return TaskPage(
        rows=rows,
        total=len(matching),
        changed=sum(task.changed > as_of for _, task in matching),
        cursor=_cursor(as_of, left[len(rows) - 1][0]) if len(rows) < len(left) else None,
        members=_names(team, rows),
        version=team.facts.version,
    )


def paged(rows: Iterable[D]) -> tuple[D, ...]:
    """The first rows or events that fit on a page, one at least: the largest is far smaller than a page."""
    rows = tuple(rows)
    if len(to_json(rows)) <= MAX_ROWS_BYTES:  # all in one is several times faster, and as a rule they fit
        return rows
    return tuple(fitting(rows, lambda each: len(each.model_dump_json().encode()), MAX_ROWS_BYTES))


def view(team: Team, you: str, lease_seconds: float) -> TeamView:
    """Who is in it, and how far it is, for the member `you`."""
    facts, tasks = team.facts, team.tasks.values()
    status = [task.status for task in tasks]
    return TeamView(
        team=facts.id,
        name=facts.name,
        public_key=facts.public_key,
        lead=facts.lead,
        you=you,
        lease_seconds=lease_seconds,
        version=facts.version,
        counts=Counts(
            pending=status.count("pending"),
            unblocked=sum(team.claimable(task) for task in tasks),
            in_progress=status.count("in_progress"),
            completed=status.count("completed"),
        ),
        members=tuple(member_row(member) for member in team.members.values() if not member.gone),
    )


def _excerpt(text: str) -> str:
    """One line of at most EXCERPT_CHARS characters."""
    line = " ".join(text[: 2 * EXCERPT_CHARS].split())  # twice, for the spaces that go
    return line if len(line) <= EXCERPT_CHARS and len(text) <= 2 * EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"


def _present_first(members: list[Member]) -> list[Member]:
    return [member for member in members if not member.gone] or members


def _owner(team: Team, name: str, you: str) -> str | Refused:
    found = resolve(team, name)
    if isinstance(found, Member):
        return found.id
    return you if name == ME else found


def _matches(team: Team, task: Task, query: TaskQuery, owner: str | None) -> bool:
    return (
        (query.status is None or task.status == query.status)
        and (owner is None or owner in (task.owner, task.completed_by))
        and (not query.unblocked_only or team.claimable(task))
    )


def _place(team: Team, task: Task) -> _Place:
    """Where it stands in the list."""
    group = {"in_progress": 0, "pending": 1, "completed": 3}[task.status]
    if group == 1 and not team.claimable(task):
        group = 2
    return (group, *task.turn)


def _cursor(as_of: int, place: _Place) -> str:
    return ".".join(map(str, (as_of, *place)))


def _names(team: Team, rows: Iterable[TaskRow]) -> dict[str, str]:
    named = {member for each in rows for member in (each.owner, each.created_by, each.completed_by) if member}
    return {member: team.members[member].identity.name for member in sorted(named) if member in team.members}
