"""Where the teams that this machine leads lie: ``{TS_STATE_DIR}/teams/{team id}``, each with its file and its key.

They are directories of `statedir`'s own kind, with its lock and its record: one process leads a team at a time. Whose
one is, is said by the team's name alone, so that any later session may go on with it; each control server has its own
teams, since nodes' ids and logins mean something to it alone. One that nobody leads stays for 30 days.

All calls but `sweep` block on the file system.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread

from cctailscale import statedir
from cctailscale.config import Settings
from cctailscale.errors import LedElsewhere, NoSuchTeam, StateDirError, TeamUnusable
from cctailscale.teams import sqlite
from cctailscale.teams.keys import SEED_BYTES, LeadKey

log = logging.getLogger(__name__)

# No session's directory is called so: those end in a hyphen and four hex digits.
FOLDER = "teams"
DATABASE = "team.db"
KEY = "key"
KEPT_DAYS = 30
_KEPT_SECONDS = KEPT_DAYS * 24 * 60 * 60
# Of a team's id, which statedir gives two more: nobody guesses it, and no two are alike.
_ID_BYTES = 14

_WITHOUT_KEY = "Put a copy of it in its place; without it members cannot know their lead, so create the team anew."


class Place:
    """The directory of one team, which this process has until `close` or `remove`; also a context manager that closes.

    `id` is the team's, `database` its file, `key` its key.
    """

    def __init__(self, directory: statedir.SessionDir, key: LeadKey) -> None:
        self.id = directory.hostname
        self.database = directory.path / DATABASE
        self.key = key
        self._directory = directory

    def __repr__(self) -> str:
        return f"<Place of {self.id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lets the directory go, and its 30 days begin. Never raises; may be called twice."""
        with self._directory:
            try:
                self._directory.mark_used()
            except StateDirError as error:
                log.info("%s", error)

    def remove(self) -> None:
        """Removes the directory with all that is in it: the team was disbanded. Raises TeamUnusable."""
        with _as_team_unusable():
            self._directory.remove()


def create(settings: Settings, name: str) -> Place:
    """A place for a new team: its key is there, its file is not. Raises TeamUnusable."""
    root = statedir.below(settings.state_dir, FOLDER)
    with _as_team_unusable(), contextlib.ExitStack() as undone:
        directory = statedir.claim(
            root,
            identity=_identity(name),
            base=f"team-{secrets.token_hex(_ID_BYTES)}",
            control_url=settings.control_url,
            ephemeral=True,  # which is what may be swept
        )
        undone.callback(directory.remove)
        key = LeadKey.new()
        _write_key(directory.path / KEY, key)
        undone.pop_all()
    return Place(directory, key)


def find(settings: Settings, name: str) -> Place:
    """The place of the team of that name; of several, of the one that was led last.

    Raises NoSuchTeam, TeamUnusable, LedElsewhere: another process leads it.
    """
    for record in _records(settings):
        if record.session == _identity(name) and (place := _taken_up(settings, record, name)):
            return place
    raise NoSuchTeam(name, f"none of this name was led from here in the last {KEPT_DAYS} days")


def open_by_id(settings: Settings, team: str, name: str) -> Place:
    """The place of the team with the id `team`. `name` is for errors; raises what `find` raises."""
    for record in _records(settings):
        if record.hostname == team and (place := _taken_up(settings, record, name)):
            return place
    raise NoSuchTeam(name, "what was kept of it is gone")


def databases(settings: Settings) -> list[Path]:
    """The files of all teams that are kept here, of the one that was led last first. Raises TeamUnusable."""
    return [settings.state_dir / FOLDER / record.hostname / DATABASE for record in _records(settings)]


async def sweep(settings: Settings) -> None:
    """Removes the teams that nobody has led for 30 days. Never raises; what stays, a later start finds."""
    expired = time.time() - _KEPT_SECONDS
    try:
        await anyio.to_thread.run_sync(statedir.sweep_unused, settings.state_dir / FOLDER, expired)
    except (StateDirError, OSError) as error:
        log.info("old teams stay for now: %s", error)


def _records(settings: Settings) -> list[statedir.Record]:
    with _as_team_unusable():
        found = statedir.records(settings.state_dir / FOLDER)
    return [record for record in found if record.control_url == settings.control_url]


def _taken_up(settings: Settings, record: statedir.Record, name: str) -> Place | None:
    """The place of a record; None if there is nothing to go on with, which is then removed."""
    root = settings.state_dir / FOLDER
    with _as_team_unusable(), contextlib.ExitStack() as undone:
        directory = statedir.take_up(root, record)
        if directory is None:
            if (root / record.hostname).exists():
                raise LedElsewhere(name)
            return None
        undone.enter_context(directory)
        facts = sqlite.facts(directory.path / DATABASE)
        if facts is None or facts.disbanded:  # its process was killed before its first commit, or after its last
            directory.remove()
            return None
        place = Place(directory, _read_key(directory.path / KEY))
        undone.pop_all()
        return place


def _identity(name: str) -> str:
    """What a record says of whose directory it is: SHA-256 in hex, of any name the same length."""
    return hashlib.sha256(b"team\0" + name.encode()).hexdigest()


def _write_key(path: Path, key: LeadKey) -> None:
    with statedir.as_state_dir_error(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(key.seed)
            file.flush()
            os.fsync(fd)


def _read_key(path: Path) -> LeadKey:
    with statedir.as_state_dir_error(path):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise TeamUnusable(path, "is missing", _WITHOUT_KEY) from None
        with os.fdopen(fd, "rb") as file:
            seed = file.read(SEED_BYTES + 1)
    try:
        return LeadKey(seed)
    except ValueError:
        raise TeamUnusable(path, "is damaged", _WITHOUT_KEY) from None


@contextlib.contextmanager
def _as_team_unusable() -> Iterator[None]:
    try:
        yield
    except StateDirError as error:
        raise TeamUnusable(error.path, error.problem, error.next_step) from error
