"""What a refusal says of a task: how it stands, and what became of a claim. Pure.

Names, and reasons that members gave, are data: one printable line each.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cctailscale.errors import plain
from cctailscale.teams.listing import called
from cctailscale.teams.model import Task, Team

# Of the tasks that one waits for, or that wait for it. The rest is counted.
MAX_SHOWN_TASKS = 5


def standing(team: Team, task: Task, actor: str | None) -> str:
    """How the task stands, and what became of the claim that the actor had on it."""
    if task.status == "completed":
        now = f"{task.id} was completed by {_who(team, task.completed_by, actor)} at {_when(task.completed)}."
    elif task.owner == actor:
        now = f"You have had {task.id} since {_when(task.claimed)}."
    elif task.owner:
        now = f"{called(team, task.owner)} has had {task.id} since {_when(task.claimed)}."
    elif waits_for := team.waits_for(task):
        now = f"{task.id} is pending and waits for {several(team, waits_for)}."
    else:
        now = f"{task.id} is pending and nobody has it."
    return " ".join(filter(None, (now, _lost(team, task, actor))))


def several(team: Team, tasks: Sequence[str]) -> str:
    """Tasks with how they stand: "task-1 (in progress, ada (member-2)) and 3 more"."""
    shown = [f"{task} ({_state(team, team.tasks[task])})" for task in tasks[:MAX_SHOWN_TASKS]]
    if len(tasks) > MAX_SHOWN_TASKS:
        shown.append(f"{len(tasks) - MAX_SHOWN_TASKS} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _state(team: Team, task: Task) -> str:
    if task.status == "in_progress":
        return f"in progress, {called(team, task.owner)}"
    return task.status


def _lost(team: Team, task: Task, actor: str | None) -> str:
    """Why the actor has not the claim any more that it once had, "" if nobody took it."""
    last = next((entry for entry in reversed(task.history) if actor and entry.owner == actor), None)
    if last is None or last.by == actor or last.what not in ("claim lost", "released"):
        return ""
    by = f" by {called(team, last.by)}" if last.by else ""
    why = f": {plain(last.reason)}" if last.reason else ""
    return f"Your claim was {last.what.removeprefix('claim ')}{by} at {_when(last.at)}{why.removesuffix('.')}."


def _who(team: Team, member_id: str | None, actor: str | None) -> str:
    return "you" if member_id == actor else called(team, member_id)


def _when(time: datetime | None) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else "a time that is not known"
