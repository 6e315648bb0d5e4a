"""The teams that sessions on this machine are in, for somebody who only looks: nothing is written, nobody is asked.

Of a team that is led here it is the lead's own file; of one that is followed, what its member last knew. All calls
block on the file system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cctailscale import statedir
from cctailscale.agents.unread import FOLDER as INBOXES
from cctailscale.config import Settings
from cctailscale.errors import NoTeamToShow, TeamUnusable
from cctailscale.teams import listing, membership, places, replica, results, sqlite, telling
from cctailscale.teams.model import MAX_TASKS, Refused, Team
from cctailscale.teams.wire import MAX_ROWS, TaskPage, TaskQuery, TeamView

# The lead's own setting, which no file has.
_NO_LEASE = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A team with all its tasks, in the order of the list. `here`: it is led on this machine."""

    team: results.TeamInfo
    tasks: list[results.TaskRow]
    here: bool


@dataclass(frozen=True, slots=True)
class Led:
    """A team whose lead keeps it in `file`."""

    id: str
    name: str
    file: Path

    @property
    def stamp(self) -> tuple[int, ...]:
        """Another one once something was written, and a larger one."""
        return _stamp(self.file, self.file.with_name(f"{self.file.name}-wal"))

    def look(self) -> Seen:
        """Raises TeamUnusable, NoTeamToShow: it was disbanded."""
        if not self.file.exists():
            raise NoTeamToShow(self.file.parent)
        team = sqlite.read(self.file)
        you = team.facts.lead
        return _seen(listing.view(team, you, _NO_LEASE), lambda query: _page(team, query, you), here=True)


@dataclass(frozen=True, slots=True)
class Followed:
    """A team in which a session with `folder` is a member."""

    id: str
    name: str
    folder: Path

    @property
    def stamp(self) -> tuple[int, ...]:
        """As of `Led`."""
        return _stamp(self.folder / replica.FILE)

    def look(self) -> Seen:
        """Raises TeamUnusable, NoTeamToShow: it was left, or nothing of it has been read yet."""
        known = replica.load(self.folder)
        if known is None:
            raise NoTeamToShow(self.folder)
        return _seen(known.view(), known.page, here=False)


Sight = Led | Followed


def sights(settings: Settings) -> list[Sight]:
    """Each team once, the one that something was written of last first. Raises NoTeamToShow, TeamUnusable.

    One that cannot be used is left out if there are others.
    """
    found: dict[str, Sight] = {}
    problems: list[TeamUnusable] = []
    for look in (_led, _followed):
        for sight in look(settings, problems):
            found.setdefault(sight.id, sight)
    if not found:
        raise problems[0] if problems else NoTeamToShow(settings.state_dir)
    return sorted(found.values(), key=lambda sight: sight.stamp, reverse=True)


def _led(settings: Settings, problems: list[TeamUnusable]) -> Iterator[Led]:
    for file in places.databases(settings):
        try:
            facts = sqlite.facts(file)
        except TeamUnusable as error:
            problems.append(error)
        else:
            if facts is not None and not facts.disbanded:
                yield Led(facts.id, facts.name, file)


def _followed(settings: Settings, problems: list[TeamUnusable]) -> Iterator[Followed]:
    root = settings.state_dir / INBOXES
    for record in statedir.records(root):
        if record.control_url != settings.control_url:
            continue
        folder = root / record.hostname
        try:
            part = membership.load(folder)
        except TeamUnusable as error:
            problems.append(error)
        else:
            if part is not None and part.role == "member":
                yield Followed(part.team, part.name, folder)


def _seen(view: TeamView, page: Callable[[TaskQuery], TaskPage], *, here: bool) -> Seen:
    names = telling.names_of(view)
    rows: list[results.TaskRow] = []
    cursor: str | None = None
    while len(rows) < MAX_TASKS:
        found = page(TaskQuery(limit=MAX_ROWS, cursor=cursor))
        rows += [telling.row(row, {**names, **found.members}, view.you) for row in found.rows]
        cursor = found.cursor
        if cursor is None:
            break
    return Seen(telling.team(view), rows, here)


def _page(team: Team, query: TaskQuery, you: str) -> TaskPage:
    page = listing.page(team, query, you)
    assert not isinstance(page, Refused)  # the query names nobody, and its cursor is a page's own
    return page


def _stamp(*files: Path) -> tuple[int, ...]:
    """When one of them was written to last, then their sizes: a clock's step may hold two writes."""
    times, sizes = [0], []
    for file in files:
        with suppress(OSError):  # it may be replaced or removed at any time
            found = file.stat()
            sizes.append(found.st_size)
            if found.st_size:  # SQLite makes an empty log for who only reads
                times.append(found.st_mtime_ns)
    return max(times), *sizes
