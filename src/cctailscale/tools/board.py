"""A team and its tasks as Claude may read them: what members wrote made harmless, and no more than it can read."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from cctailscale.errors import plain
from cctailscale.results import fitting
from cctailscale.tailnet.peers import MAX_LIST_CHARS
from cctailscale.teams import model, results, telling, wire
from cctailscale.tools.fence import harmless, line, neutral

# What a result has beside its rows, in characters: two names of devices at most, a notice, a cursor, and fields.
AROUND_CHARS = 1_500
ROOM_CHARS = MAX_LIST_CHARS - AROUND_CHARS
# Of a description or a result in a list: the most with which all rows have room.
EXCERPTS = (model.EXCERPT_CHARS, 100, 50, 0)
# Of one task's history, the latest. An entry has about 100 characters, with a long reason 400.
MAX_ENTRIES = 20


def team(view: wire.TeamView) -> results.TeamInfo:
    """The team, with as many of its members as can be read at once."""
    told = telling.team(view)
    return told.model_copy(
        update={
            "team": line(told.team),
            "lead": plain(told.lead),
            "members": fitting(map(_member, told.members), _size, ROOM_CHARS),
            "notice": _notice(view.as_of),
        }
    )


def task_list(page: wire.TaskPage, you: str | None) -> results.TaskList:
    """A page of tasks, with texts cut so that there is room for all of them.

    Where there is not, it has the first ones alone, and `cursor` does not fit: ask for a page of so many.
    """
    told = [telling.row(row, page.members, you) for row in page.rows]
    for excerpt in EXCERPTS:
        rows = [_row(row, excerpt) for row in told]
        if sum(map(_size, rows)) <= ROOM_CHARS:
            break
    rows = fitting(rows, _size, ROOM_CHARS)
    notice = _notice(page.as_of)
    return results.TaskList(
        total=page.total,
        changed=page.changed or None,
        tasks=rows,
        cursor=page.cursor,
        as_of=page.as_of,
        notice=notice,
    )


def task(one: model.Task, names: telling.Names, you: str | None, *, whole: bool) -> results.TaskInfo:
    """One task; not `whole`: without the long texts, for somebody who has just written them."""
    told = telling.task(one, names, you)
    named = _named(told)
    if not whole:
        return told.model_copy(update=named | {"description": None, "result": None, "metadata": None, "history": []})
    written = {
        "description": neutral(told.description) if told.description else None,
        "result": neutral(told.result) if told.result else None,
        "metadata": harmless(told.metadata),
        "history": [_entry(entry) for entry in told.history[-MAX_ENTRIES:]],
    }
    return told.model_copy(update=named | written)


def _member(member: results.MemberInfo) -> results.MemberInfo:
    tags = [plain(tag) for tag in member.tags]
    return member.model_copy(update={"name": plain(member.name), "owner": _plain(member.owner), "tags": tags})


def _row(row: results.TaskRow, excerpt: int) -> results.TaskRow:
    cut = {"description": _excerpt(row.description, excerpt), "result": _excerpt(row.result, excerpt)}
    return row.model_copy(update=_named(row) | cut)


def _named(one: results.TaskRow | results.TaskInfo) -> dict[str, Any]:
    """What is one line of a task: names and short texts."""
    return {
        "subject": line(one.subject),
        "owner": _plain(one.owner),
        "completed_by": _plain(one.completed_by),
        "created_by": plain(one.created_by),
        "active_form": line(one.active_form) if one.active_form else None,
    }


def _entry(entry: results.HistoryEntry) -> results.HistoryEntry:
    reason = line(entry.reason) if entry.reason else None
    return entry.model_copy(update={"by": _plain(entry.by), "owner": _plain(entry.owner), "reason": reason})


def _plain(name: str | None) -> str | None:
    return None if name is None else plain(name)


def _excerpt(text: str | None, limit: int) -> str | None:
    return line(text, limit) if text and limit else None


def _size(row: BaseModel) -> int:
    """In characters, with the comma behind it. One beyond ASCII counts as its escape, which is nearer to its tokens."""
    return len(row.model_dump_json(ensure_ascii=True)) + 1


def _notice(as_of: datetime | None) -> str | None:
    if as_of is None:
        return None
    return (
        f"The lead is offline: this is what was known of the team at {as_of:%Y-%m-%dT%H:%M:%SZ}, and may have changed "
        "since. Go on with what you claimed; a task that you complete meanwhile is told to the lead when it is back."
    )
