"""A team that grows by itself: from each of its versions follows the same next change, in whatever process."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from cctailscale.teams.model import Change, Entry, Event, Facts, Identity, Member, MemberRow, Task, TaskRow, Team
from cctailscale.teams.sqlite import SqliteStore, facts
from cctailscale.teams.store import Answered

BEGAN = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
LEAD = Member(
    id="member-1",
    identity=Identity(node_id="n1", name="cc-ada-app-1a2b.tail1234.ts.net", login="ada@example.com"),
    role="lead",
    joined=BEGAN,
    last_seen=BEGAN,
)
# As many tasks as are there at a time.
HELD = 50


def founded() -> Change:
    """The change that makes the team."""
    row = MemberRow.model_validate(LEAD.model_dump(include=set(MemberRow.model_fields)))
    facts = Facts(
        id="team-1",
        name="build",
        public_key="00" * 32,
        lead=LEAD.id,
        created=BEGAN,
        version=1,
        next_member=2,
        next_task=1,
    )
    return Change(0, facts, (Event(seq=1, at=BEGAN, kind="member_joined", member=row),), {LEAD.id: LEAD})


def following(team: Team) -> tuple[Change, Answered]:
    """A new task, the one before it changed, the oldest of many deleted; a few bytes, or a few thousand."""
    number = team.facts.next_task
    now = BEGAN + timedelta(seconds=number)
    task = Task(
        id=f"task-{number}",
        subject=f"Task {number}",
        description="ä" * (number * 7919 % 3000),
        created_by=LEAD.id,
        created=now,
        updated=now,
        metadata={"number": number, "of": [None, 1.5, "x"]},
    )
    tasks: dict[str, Task | None] = {task.id: task}
    if before := team.tasks.get(f"task-{number - 1}"):
        entry = Entry(at=now, by=LEAD.id, what="claimed")
        tasks[before.id] = before.model_copy(
            update={"status": "in_progress", "owner": LEAD.id, "claimed": now, "version": 2, "history": (entry,)}
        )
    if f"task-{number - HELD}" in team.tasks:
        tasks[f"task-{number - HELD}"] = None
    seq = team.facts.version
    events = tuple(
        Event(seq=seq + place, at=now, kind="task_deleted" if changed is None else "task_updated", task=row(changed))
        for place, changed in enumerate(tasks.values(), start=1)
    )
    facts = team.facts.model_copy(update={"version": seq + len(events), "next_task": number + 1})
    answered = Answered(LEAD.id, f"command-{number}", hashlib.sha256(task.id.encode()).digest(), task, facts.version)
    return Change(seq, facts, events, tasks=tasks, task=task), answered


def row(task: Task | None) -> TaskRow | None:
    if task is None:
        return None
    return TaskRow.model_validate(
        task.model_dump(include=set(TaskRow.model_fields)) | {"description": task.description[:200]}
    )


def history() -> Iterator[tuple[Team, Change, Answered | None]]:
    """All that ever happens to the team, from its founding on: the team after a change, the change, the answer."""
    change = founded()
    team = Team(change.facts).after(change)
    answered: Answered | None = None
    while True:
        yield team, change, answered
        change, answered = following(team)
        team = team.after(change)


async def lead(path: Path) -> None:
    """Goes on from where the file is, and says each version that was committed."""
    async with SqliteStore.opened(path) as store:
        if facts(path) is None:
            await store.commit(founded())
        team = await store.load()
        while True:
            change, answered = following(team)
            await store.commit(change, answered)
            team = team.after(change)
            sys.stdout.write(f"{team.facts.version}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(lead, Path(sys.argv[1]))
