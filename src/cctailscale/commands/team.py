"""`cc-tailscale team`: a team of a session on this machine, for people; on a terminal it goes on until Ctrl-C."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import anyio
import anyio.to_thread
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cctailscale.commands.calls import Tools
from cctailscale.commands.glance import Seen, Sight, sights
from cctailscale.commands.render import said, short_names
from cctailscale.commands.screen import Screen, apart
from cctailscale.config import Settings
from cctailscale.errors import NoTeamToShow
from cctailscale.teams.results import TaskRow

# No event tells that another process has written to its file.
LOOK_SECONDS = 1.0
# A blank line and a title.
TITLE_LINES = 2
# A name, or what a task waits for, beside the rest.
MAX_CELL_COLUMNS = 32
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: rows of a table below a title."""

    title: str
    rows: Sequence[tuple[str, ...]]
    left_out: int = 0


async def watched(arguments: argparse.Namespace, screen: Screen, tools: Tools) -> int:
    """0; on a terminal, and without --json, the page changes with the team until a signal ends the command."""
    settings = tools.parts.loaded.check()
    sight = await anyio.to_thread.run_sync(_chosen, settings, getattr(arguments, "name", None), screen)
    seen = await anyio.to_thread.run_sync(sight.look)
    if arguments.json:
        tasks = [row.model_dump(mode="json") for row in seen.tasks]
        await apart(screen.result_json, {"team": seen.team.model_dump(mode="json"), "tasks": tasks})
    elif screen.is_terminal:
        await _live(screen, sight, seen)
    else:
        await apart(screen.result, *page(seen, screen, datetime.now(UTC)))
    return 0


def _chosen(settings: Settings, name: str | None, screen: Screen) -> Sight:
    """The team of that name, or the one that something was written of last. Blocks. Raises as `sights`."""
    found = sights(settings)
    called = [sight for sight in found if name in (None, sight.name)]
    if not called:
        raise NoTeamToShow(settings.state_dir, name, [sight.name for sight in found])
    if others := [sight.name for sight in found if sight is not called[0]]:
        screen.note(f"Other teams here, for cc-tailscale team NAME: {', '.join(others)}", "dim")
    return called[0]


async def _live(screen: Screen, sight: Sight, seen: Seen) -> None:
    stamp = sight.stamp
    async with screen.live() as show:
        while True:
            await show(Group(*page(seen, screen, datetime.now(UTC), lines=screen.lines)))
            await anyio.sleep(LOOK_SECONDS)
            if stamp != (stamp := sight.stamp):
                seen = await anyio.to_thread.run_sync(sight.look)


def page(seen: Seen, screen: Screen, now: datetime, *, lines: int | None = None) -> Iterator[RenderableType]:
    """The team as it is, in at most so many lines where they are enough for the titles."""
    team, tasks = seen.team, seen.team.tasks
    where = "on this machine" if seen.here else f"as a member here knew it at {said(team.as_of)}"
    waiting = tasks.pending - tasks.unblocked
    counts = (
        f"{tasks.in_progress} in progress, {tasks.unblocked} to claim, {waiting} waiting, {tasks.completed} completed"
    )
    heading = (
        screen.text(team.team, "bold"),
        screen.text(f"led by {team.lead}, {where}", "dim"),
        screen.text(counts),
    )
    yield from heading
    for section in fitted(sections(seen, now), None if lines is None else lines - screen.taken(*heading)):
        yield Text("")
        yield Text(section.title, "bold")
        yield _table(section, screen)
        if section.left_out:
            yield Text(f"and {section.left_out} more", "dim")


def sections(seen: Seen, now: datetime) -> list[Section]:
    """Who there is, and the tasks by status; none without rows."""
    members = seen.team.members
    full = [member.name for member in members]
    short = dict(zip(full, short_names(full), strict=True))
    claimed: dict[str, list[TaskRow]] = {}
    for task in seen.tasks:
        if task.owner is not None:
            claimed.setdefault(task.owner, []).append(task)

    def called(name: str | None) -> str:
        return short.get(name or "", name or "")

    def of(*status: str, blocked: bool | None = None) -> list[TaskRow]:
        return [t for t in seen.tasks if t.status in status and (blocked is None or bool(t.waits_for) == blocked)]

    done = sorted(of("completed"), key=lambda task: task.completed or now, reverse=True)
    made = [
        Section(
            "Members",
            [
                (
                    called(member.name),
                    member.owner or ", ".join(member.tags),
                    "lead" if member.role == "lead" else f"heard of {_ago(member.last_seen, now)}",
                    ", ".join(task.id for task in claimed.get(member.name, ())),
                )
                for member in members
            ],
        ),
        Section(
            "In progress",
            [
                (task.id, called(task.owner), f"for {_span(task.claimed, now)}", task.active_form or task.subject)
                for task in of("in_progress")
            ],
        ),
        Section(
            "To claim",
            [
                (task.id, f"priority {task.priority}" if task.priority else "", task.subject)
                for task in of("pending", blocked=False)
            ],
        ),
        Section(
            "Waiting",
            [(task.id, f"for {', '.join(task.waits_for)}", task.subject) for task in of("pending", blocked=True)],
        ),
        Section(
            "Completed",
            [(task.id, called(task.completed_by), _ago(task.completed, now), task.subject) for task in done],
        ),
    ]
    return [section for section in made if section.rows]


def fitted(found: Sequence[Section], lines: int | None) -> list[Section]:
    """The sections, each with the rows that it has room for; what one does not need, the next ones have."""
    if lines is None:
        return list(found)
    fit: list[Section] = []
    left = lines
    for number, section in enumerate(found):
        room = left // (len(found) - number) - TITLE_LINES
        kept = len(section.rows)
        if kept > room:
            kept = max(room - 1, 1)  # a line tells how many there are besides
        fit.append(replace(section, rows=section.rows[:kept], left_out=len(section.rows) - kept))
        left -= TITLE_LINES + kept + bool(fit[-1].left_out)
    return fit


def _table(section: Section, screen: Screen) -> RenderableType:
    """A line for each row; on a terminal the last column is what is cut."""
    columns = len(section.rows[0])
    grid = Table.grid(padding=(0, 2), expand=screen.is_terminal)
    for number in range(1, columns + 1):
        is_last = number == columns
        grid.add_column(
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_last and screen.is_terminal else None,
            max_width=None if is_last else MAX_CELL_COLUMNS,
        )
    for row in section.rows:
        grid.add_row(*(screen.text(cell) for cell in row))
    return grid


def _ago(then: datetime | None, now: datetime) -> str:
    return f"{_span(then, now)} ago"


def _span(then: datetime | None, now: datetime) -> str:
    """How long it is: "12 min". The lead's clock may be ahead of this one."""
    seconds = max((now - (then or now)).total_seconds(), 0)
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
