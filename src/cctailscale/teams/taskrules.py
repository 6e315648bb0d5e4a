"""The rules for tasks: one function a command. Each puts its change together, or refuses by RuledOut. Pure.

Whoever calls has made sure that the actor is a member who is present.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from cctailscale.teams.commands import Claim, Complete, Create, Delete, Metadata, Release, Update
from cctailscale.teams.draft import Draft, RuledOut, refuse
from cctailscale.teams.listing import called, resolve
from cctailscale.teams.model import (
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_TASKS,
    Change,
    Member,
    Refused,
    Task,
    Team,
)
from cctailscale.teams.sentences import MAX_SHOWN_TASKS, several, standing

_COMPARED = ("subject", "description", "active_form", "priority")


def create(draft: Draft, command: Create) -> Change:
    team = draft.team
    if len(team.tasks) >= MAX_TASKS:
        done = sum(task.status == "completed" for task in team.tasks.values())
        refuse("too_many", f"The team has {MAX_TASKS} tasks, which is as many as there can be; {done} are completed.")
    task_id = f"task-{team.facts.next_task}"
    metadata: Metadata = {key: value for key, value in command.metadata.items() if value is not None}
    _check_metadata(metadata)
    draft.add(
        Task(
            id=task_id,
            subject=command.subject,
            description=command.description,
            active_form=command.active_form,
            priority=command.priority,
            blocked_by=_blockers(team, task_id, command.blocked_by),
            created_by=draft.asking.id,
            metadata=metadata,
            created=draft.now,
            updated=draft.now,
            history=(draft.entry("created"),),
        )
    )
    draft.tell("task_created", task=task_id)
    return draft.done(about=task_id)


def claim(draft: Draft, command: Claim) -> Change:
    """For the actor, or by the lead for another. Who has it already gets it without a change."""
    team, actor = draft.team, draft.asking
    owner = actor if command.owner is None else _assigned(draft, command.owner)
    task = _next(team) if command.task is None else _seen(draft, command.task, command.version)
    if task.status == "in_progress" and task.owner == owner.id:
        return draft.done(about=task.id)
    if task.status != "pending":
        refuse("completed" if task.status == "completed" else "taken", standing(team, task, actor.id), task)
    if team.waits_for(task):
        refuse("blocked", standing(team, task, actor.id), task)
    assigned = owner.id != actor.id
    draft.alter(
        task,
        draft.entry("assigned" if assigned else "claimed", owner=owner.id),
        status="in_progress",
        owner=owner.id,
        claimed=draft.now,
    )
    draft.tell("task_assigned" if assigned else "task_claimed", task=task.id, member=owner.id)
    return draft.done(about=task.id)


def complete(draft: Draft, command: Complete) -> Change:
    """By its owner or the lead, who may complete what nobody has claimed as well."""
    task = _seen(draft, command.task, command.version)
    _open_to(draft, task)
    draft.alter(
        task,
        draft.entry("completed", owner=task.owner),
        status="completed",
        owner=None,
        result=task.result if command.result is None else command.result,
        completed=draft.now,
        completed_by=draft.actor,
    )
    draft.tell("task_completed", task=task.id, member=task.owner)
    _tell_unblocked(draft, task)
    _tell_all_done(draft, task)
    return draft.done(about=task.id)


def release(draft: Draft, command: Release) -> Change:
    task = _seen(draft, command.task, command.version)
    if task.status == "pending":
        refuse("unclaimed", standing(draft.team, task, draft.actor), task)
    _open_to(draft, task)
    draft.alter(
        task,
        draft.entry("released", owner=task.owner, reason=command.reason or None),
        status="pending",
        owner=None,
        claimed=None,
    )
    draft.tell("task_released", task=task.id, member=task.owner, reason=command.reason)
    return draft.done(about=task.id)


def update(draft: Draft, command: Update) -> Change:
    """By any member. What asks for nothing that is not so already changes nothing; a completed one can only be read."""
    team, task = draft.team, _seen(draft, command.task, command.version)
    wanted: dict[str, Any] = {name: getattr(command, name) for name in _COMPARED}
    if command.blocked_by is not None:
        wanted["blocked_by"] = _blockers(team, task.id, command.blocked_by)
    if command.metadata is not None:
        merged = {**task.metadata, **command.metadata}
        wanted["metadata"] = {key: value for key, value in merged.items() if value is not None}
    new = {name: value for name, value in wanted.items() if value is not None and value != getattr(task, name)}
    if not new:
        return draft.done(about=task.id)
    if task.status == "completed":
        refuse("completed", standing(team, task, draft.actor), task)
    _check_metadata(new.get("metadata", {}))
    draft.alter(task, draft.entry("updated"), **new)
    draft.tell("task_updated", task=task.id, member=task.owner)
    blocked_by = new.get("blocked_by", task.blocked_by)
    if team.waits_for(task) and all(team.tasks[blocker].status == "completed" for blocker in blocked_by):
        draft.tell("task_unblocked", task=task.id, member=task.owner)
    return draft.done(about=task.id)


def delete(draft: Draft, command: Delete) -> Change:
    """By its creator or the lead. It is taken out of blocked_by of all that name it."""
    team, task = draft.team, _seen(draft, command.task, command.version)
    if draft.actor not in (task.created_by, team.facts.lead):
        creator = called(team, task.created_by)
        refuse("not_yours", f"{task.id} was created by {creator}; only they or the lead can delete it.", task)
    blocked = [team.tasks[other] for other in team.blocks.get(task.id, ())]
    waiting = [each.id for each in blocked if task.id in team.waits_for(each) and each.status != "completed"]
    if waiting and not command.force:
        refuse("blocking", f"{task.id} is waited for by {several(team, waiting)}.", task)
    draft.delete(task)
    draft.tell("task_deleted", task=task.id, member=task.owner)
    for each in blocked:
        left = tuple(blocker for blocker in each.blocked_by if blocker != task.id)
        draft.alter(each, draft.entry("updated", reason=f"{task.id} was deleted"), blocked_by=left)
        freed = team.waits_for(each) == (task.id,) and each.status != "completed"
        draft.tell("task_unblocked" if freed else "task_updated", task=each.id, member=each.owner)
    if len(team.tasks) > 1:
        _tell_all_done(draft, task)
    return draft.done(about=task.id)


def lose_claims(draft: Draft, reasons: Mapping[str, str]) -> None:
    """Gives back what these members (id to reason) have claimed."""
    for task in draft.team.tasks.values():
        reason = reasons.get(task.owner or "")
        if reason is not None:
            draft.alter(
                task,
                draft.entry("claim lost", owner=task.owner, reason=reason),
                status="pending",
                owner=None,
                claimed=None,
            )
            draft.tell("claim_lost", task=task.id, member=task.owner, reason=reason)


def _assigned(draft: Draft, name: str) -> Member:
    """The member whom the lead claims for."""
    if draft.actor != draft.team.facts.lead:
        refuse("lead_only", "Only the lead can claim a task for somebody.")
    found = resolve(draft.team, name)
    if isinstance(found, Refused):
        raise RuledOut(found)
    if found.gone:
        refuse("no_such_member", f"{called(draft.team, found.id)} is not in the team any more.")
    return found


def _next(team: Team) -> Task:
    claimable = [task for task in team.tasks.values() if team.claimable(task)]
    if not team.tasks:
        refuse("nothing_to_claim", "The team has no tasks yet.")
    if not claimable:
        status = [task.status for task in team.tasks.values()]
        refuse(
            "nothing_to_claim",
            f"No task can be claimed. In progress: {status.count('in_progress')}, waiting for others: "
            f"{status.count('pending')}, completed: {status.count('completed')}.",
        )
    return min(claimable, key=lambda task: task.turn)


def _seen(draft: Draft, task_id: str, version: int | None) -> Task:
    """The task, at the version at which the actor has seen it."""
    team = draft.team
    task = team.tasks.get(task_id)
    if task is None:
        was = int(task_id.rpartition("-")[2]) < team.facts.next_task
        refuse("not_found", f"{task_id} {'was deleted' if was else 'has never been created'}.")
    if version is not None and version != task.version:
        now = standing(team, task, draft.actor)
        refuse("stale", f"{task_id} has version {task.version} by now, not {version}. {now}", task)
    return task


def _open_to(draft: Draft, task: Task) -> None:
    """Refuses unless the task is not completed, and the actor is its owner or the lead."""
    team = draft.team
    if task.status == "completed":
        refuse("completed", standing(team, task, draft.actor), task)
    if draft.actor not in (task.owner, team.facts.lead):
        refuse("not_yours" if task.owner else "unclaimed", standing(team, task, draft.actor), task)


def _blockers(team: Team, task_id: str, given: Iterable[str]) -> tuple[str, ...]:
    """Each once, of those that there are, and without a cycle."""
    blockers = tuple(dict.fromkeys(given))
    if task_id in blockers:
        refuse("cycle", f"{task_id} cannot wait for itself.", team.tasks.get(task_id))
    missing = [blocker for blocker in blockers if blocker not in team.tasks]
    if missing:
        refuse("not_found", f"{', '.join(missing)} cannot be waited for: there is no such task.")
    if path := _path(team, blockers, task_id):
        shown = path if len(path) <= MAX_SHOWN_TASKS else (*path[: MAX_SHOWN_TASKS - 1], "others", path[-1])
        chain = ", which waits for ".join(shown)
        refuse("cycle", f"{task_id} cannot wait for {chain}.", team.tasks[task_id])
    return blockers


def _path(team: Team, start: Iterable[str], end: str) -> tuple[str, ...]:
    """The way along blocked_by from one of the first tasks to the last; () if there is none."""
    before: dict[str, str | None] = dict.fromkeys(start)
    ahead = list(before)
    for task_id in ahead:  # which grows meanwhile
        if task_id == end:
            return tuple(_back(before, end))[::-1]
        for blocker in team.tasks[task_id].blocked_by:
            if blocker not in before:
                before[blocker] = task_id
                ahead.append(blocker)
    return ()


def _back(before: Mapping[str, str | None], end: str) -> Iterator[str]:
    at: str | None = end
    while at is not None:
        yield at
        at = before[at]


def _tell_unblocked(draft: Draft, task: Task) -> None:
    """The tasks that waited for this one alone, which is completed with this change."""
    for blocked_id in draft.team.blocks.get(task.id, ()):
        blocked = draft.team.tasks[blocked_id]
        if blocked.status != "completed" and draft.team.waits_for(blocked) == (task.id,):
            draft.tell("task_unblocked", task=blocked_id, member=blocked.owner)


def _tell_all_done(draft: Draft, task: Task) -> None:
    """If this one, which is completed or deleted with this change, was the last that was not completed."""
    others = (each for each in draft.team.tasks.values() if each.id != task.id)
    if task.status != "completed" and all(other.status == "completed" for other in others):
        draft.tell("all_done")


def _check_metadata(metadata: Metadata) -> None:
    """Refuses what is too large or too deep."""
    if _too_deep(metadata):
        refuse("too_large", f"The metadata is nested more than {MAX_METADATA_DEPTH} deep.")
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_METADATA_BYTES:
        refuse("too_large", f"The metadata has {size} bytes of JSON; {MAX_METADATA_BYTES} are allowed.")


def _too_deep(value: JsonValue) -> bool:
    """Looked at level by level, since what is deep ends a recursion in an error."""
    level: list[JsonValue] = [value]
    for _ in range(MAX_METADATA_DEPTH):
        inner = [each for each in level if isinstance(each, dict | list)]
        level = [item for each in inner for item in (each.values() if isinstance(each, dict) else each)]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)
