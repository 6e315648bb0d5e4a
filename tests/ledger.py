"""What a lead's files say of its team, once it has gone through something."""

from __future__ import annotations

from pathlib import Path

from cctailscale.teams import sqlite
from cctailscale.teams.model import Event, Team


def database(environ: dict[str, str]) -> Path:
    """The file of the one team that is led with this state root."""
    (path,) = Path(environ["TS_STATE_DIR"]).glob("teams/*/team.db")
    return path


def sound(environ: dict[str, str]) -> Team:
    """The team, of which no task was lost and none ever had two owners: what its events add up to is what it is."""
    with sqlite.reading(database(environ)) as file:
        team, events = file.team(), file._rows.events(0, 1_000_000)
    assert events is not None
    assert [event.seq for event in events] == list(range(1, team.facts.version + 1))
    owners: dict[str, str | None] = {}
    for event in events:
        if event.task is not None:
            _follow(owners, event)
    assert {task.id: task.owner for task in team.tasks.values()} == owners
    assert len(owners) == team.facts.next_task - 1, "a task was lost"
    for task in team.tasks.values():
        assert (task.status == "in_progress") == (task.owner is not None)
    return team


def _follow(owners: dict[str, str | None], event: Event) -> None:
    """Takes a task's event in, which has to fit what was before."""
    assert event.task is not None
    task, member = event.task.id, event.member.id if event.member else None
    match event.kind:
        case "task_created":
            assert task not in owners
            owners[task] = None
        case "task_claimed" | "task_assigned":
            assert owners[task] is None, f"{task} was claimed twice"
            owners[task] = member
        case "task_completed" | "task_released" | "claim_lost":
            assert owners[task] == member, f"{task} was not {member}'s"
            owners[task] = None
    assert event.task.owner == owners[task]
