"""A team in one SQLite file: the store of a lead, and a look at it from another process.

Rows are the model's own documents as JSON, so a commit writes what has changed and nothing else: the team's facts, the
members and tasks of the change, its events, the answer. The file is in WAL mode, where readers do not wait for the
writer nor the writer for readers; that there is one lead is seen to by the directory's lock (places.py).

A file that is damaged or of a later version is not touched: it is first looked at through a connection that cannot
write, since closing one that can would write SQLite's log into it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError

from cctailscale import sqlitefile
from cctailscale.errors import TeamUnusable
from cctailscale.teams.model import Change, Event, Facts, Member, Task, Team
from cctailscale.teams.store import KEPT_ANSWER_BYTES, KEPT_EVENTS, Answered, AnsweredBefore, Moved

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound=BaseModel)

SCHEMA_VERSION = 1
# Another process that reads holds a lock for moments alone: while the log is begun or read anew after a kill.
_BUSY_SECONDS = 2.0
_NO_FILE = Path(":memory:")
# Of an answer beside its task.
_ROW_BYTES = 256

# `total` is that of the bytes that the member's answers have had up to this one: their order, and where to cut.
_SCHEMA = f"""
BEGIN;
CREATE TABLE team (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE members (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL);
CREATE TABLE tasks (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL);
CREATE TABLE events (seq INTEGER PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE answers (
    member TEXT NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL, task TEXT, version INTEGER NOT NULL,
    total INTEGER NOT NULL,
    UNIQUE (member, id), UNIQUE (member, total)
);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class _Empty(Exception):  # noqa: N818 - not an error that anybody sees
    """Nothing was ever committed to the file."""


class SqliteStore:
    """A `TeamStore` in a file, or in memory. Made by `opened`.

    A new file holds no team: the change that founds it, decided on version 0, is committed first.
    """

    def __init__(self, path: Path, rows: _Rows) -> None:
        self._path = path
        self._rows = rows
        self._calls = sqlitefile.OneAtATime()

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path | None) -> AsyncIterator[SqliteStore]:
        """The store in a file, which is made if it is missing; None: in memory. Raises TeamUnusable."""
        with _as_team_unusable(path or _NO_FILE):
            rows = await anyio.to_thread.run_sync(_opened, path)
        store = cls(path or _NO_FILE, rows)
        try:
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await store._run(rows.close)

    async def load(self) -> Team:
        return await self._run(self._rows.team)

    async def commit(self, change: Change, answered: Answered | None = None) -> None:
        await self._run(self._rows.commit, change, answered)

    async def answered(self, member: str, id: str) -> Answered | None:  # noqa: A002 - the field's name
        return await self._run(self._rows.answered, member, id)

    async def events(self, after: int, limit: int) -> Sequence[Event] | None:
        return await self._run(self._rows.events, after, limit)

    async def seen(self, times: Mapping[str, datetime]) -> None:
        await self._run(self._rows.seen, times)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _as_team_unusable(self._path):
            return await self._calls.run(function, *args, **kwargs)


class Reading:
    """A team's file, while its lead writes to it in this process or another. Made by `reading`; its calls block."""

    def __init__(self, path: Path, rows: _Rows) -> None:
        self._path = path
        self._rows = rows

    def team(self) -> Team:
        """The team at one version. Raises TeamUnusable, as `stamp` does."""
        with _as_team_unusable(self._path):
            return self._rows.team()

    def stamp(self) -> int:
        """Another number once the file was written to. It takes microseconds, and reads nothing of the team."""
        with _as_team_unusable(self._path):
            return self._rows.stamp()


@contextmanager
def reading(path: Path) -> Iterator[Reading]:
    """The file, open and not changed by that. Raises TeamUnusable."""
    with _as_team_unusable(path):
        db = _connected_to_read(path)
    with closing(db):
        with _as_team_unusable(path):
            _check(db)
        yield Reading(path, _Rows(db))


def read(path: Path) -> Team:
    """The team in a file, as it is. Raises TeamUnusable."""
    with reading(path) as file:
        return file.team()


def facts(path: Path) -> Facts | None:
    """Of the team in a file; None if none was ever committed, as if its process was killed. Raises TeamUnusable."""
    if not path.exists():
        return None
    with _as_team_unusable(path), closing(_connected_to_read(path)) as db:
        if sqlitefile.check(db, SCHEMA_VERSION) == 0 or _Rows(db).version() == 0:
            return None
        return _Rows(db).facts()


class _Rows:
    """The rows of one open file, as the model's values. Plain calls that block, one transaction each."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def close(self) -> None:
        self._db.close()

    def version(self) -> int:
        row = self._db.execute("SELECT version FROM team").fetchone()
        return 0 if row is None else int(row[0])

    def stamp(self) -> int:
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def facts(self) -> Facts:
        row = self._db.execute("SELECT document FROM team").fetchone()
        if row is None:
            raise _Empty
        return _parsed(Facts, row[0])

    def team(self) -> Team:
        with self._db:
            self._db.execute("BEGIN")  # one version of all
            facts = self.facts()
            members = self._db.execute("SELECT document FROM members ORDER BY place").fetchall()
            tasks = self._db.execute("SELECT document FROM tasks ORDER BY place").fetchall()
        return Team(
            facts,
            {member.id: member for member in (_parsed(Member, document) for (document,) in members)},
            {task.id: task for task in (_parsed(Task, document) for (document,) in tasks)},
        )

    def commit(self, change: Change, answered: Answered | None) -> None:
        facts = change.facts
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if self.version() != change.base:
                raise Moved
            before = answered and self.answered(answered.member, answered.id)
            if before:
                raise AnsweredBefore(before)
            self._db.execute(
                "INSERT OR REPLACE INTO team (one, version, document) VALUES (1, ?, ?)",
                (facts.version, facts.model_dump_json()),
            )
            self._put("members", change.members)
            self._put("tasks", change.tasks)
            self._db.executemany(
                "INSERT INTO events (seq, document) VALUES (?, ?)",
                [(event.seq, event.model_dump_json()) for event in change.events],
            )
            self._db.execute("DELETE FROM events WHERE seq <= ?", (facts.version - KEPT_EVENTS,))
            self._forget(change.members)
            if answered is not None:
                self._answer(answered)

    def answered(self, member: str, command: str) -> Answered | None:
        row = self._db.execute(
            "SELECT digest, task, version FROM answers WHERE member = ? AND id = ?", (member, command)
        ).fetchone()
        if row is None:
            return None
        digest, task, version = row
        return Answered(member, command, digest, None if task is None else _parsed(Task, task), version)

    def events(self, after: int, limit: int) -> list[Event] | None:
        rows = self._db.execute(
            "SELECT seq, document FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
        ).fetchall()
        # Past the last one: of commits that a power cut has taken, whose numbers others have or get.
        following = rows[0][0] if rows else self.version() + 1
        return [_parsed(Event, document) for _, document in rows] if following == after + 1 else None

    def seen(self, times: Mapping[str, datetime]) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE members SET document = json_set(document, '$.last_seen', ?) WHERE id = ?",
                [(time.astimezone(UTC).isoformat(), member) for member, time in times.items()],
            )

    def _put(self, table: str, changed: Mapping[str, Member | None] | Mapping[str, Task | None]) -> None:
        kept = [(key, value.model_dump_json()) for key, value in changed.items() if value is not None]
        gone = [(key,) for key, value in changed.items() if value is None]
        if kept:
            self._db.executemany(
                f"INSERT INTO {table} (id, document) VALUES (?, ?)"  # noqa: S608 - our own two words
                " ON CONFLICT (id) DO UPDATE SET document = excluded.document",
                kept,
            )
        if gone:
            self._db.executemany(f"DELETE FROM {table} WHERE id = ?", gone)  # noqa: S608 - as above

    def _answer(self, answered: Answered) -> None:
        """Keeps the answer, and of the member's earlier ones as many as there is room for."""
        task = None if answered.task is None else answered.task.model_dump_json()
        (before,) = self._db.execute(
            "SELECT coalesce(max(total), 0) FROM answers WHERE member = ?", (answered.member,)
        ).fetchone()
        total = before + _ROW_BYTES + len((task or "").encode())
        self._db.execute(
            "INSERT INTO answers (member, id, digest, task, version, total) VALUES (?, ?, ?, ?, ?, ?)",
            (answered.member, answered.id, answered.digest, task, answered.version, total),
        )
        self._db.execute(
            "DELETE FROM answers WHERE member = ? AND total <= ?", (answered.member, total - KEPT_ANSWER_BYTES)
        )

    def _forget(self, members: Mapping[str, Member | None]) -> None:
        """Drops the answers to those who are gone."""
        gone = [(key,) for key, member in members.items() if member is None or member.gone]
        self._db.executemany("DELETE FROM answers WHERE member = ?", gone)


def _opened(path: Path | None) -> _Rows:
    if path is None:
        return _begun(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
    sqlitefile.create(path)
    with closing(_connected_to_read(path)) as db:
        sqlitefile.check(db, SCHEMA_VERSION)
    return _begun(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False))


def _begun(db: sqlite3.Connection) -> _Rows:
    try:
        is_new = db.execute("PRAGMA user_version").fetchone()[0] == 0
        sqlitefile.begin(db, _SCHEMA if is_new else None)
        return _Rows(db)
    except BaseException:
        db.close()
        raise


def _connected_to_read(path: Path) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _check(db: sqlite3.Connection) -> None:
    if sqlitefile.check(db, SCHEMA_VERSION) == 0:
        raise _Empty


def _parsed(kind: type[D], document: str) -> D:
    """Without the limit on documents that travel: a whole task may be larger."""
    try:
        return kind.model_validate_json(document)
    except ValidationError as error:
        raise sqlitefile.Unsound from error


@contextmanager
def _as_team_unusable(path: Path) -> Iterator[None]:
    try:
        yield
    except _Empty:
        problem = "holds no team: it was not created to the end"
        raise TeamUnusable(path, problem, "Create the team anew.") from None
    except sqlitefile.FAILURES as error:
        if_damaged = "Put a copy of it in its place if you have one; otherwise create the team anew."
        raise TeamUnusable(path, *sqlitefile.advice(error, if_damaged)) from error
