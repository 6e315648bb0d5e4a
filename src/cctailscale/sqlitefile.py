"""What this package's SQLite files have in common: how one begins, how it is called, and how it fails.

Errors of `sqlite3` come out as they are; whoever owns the file says with `advice` what they mean.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

P = ParamSpec("P")
T = TypeVar("T")


class NewerSchema(Exception):  # noqa: N818 - not an error that anybody sees
    """The file was written by a later version of this package."""


class Unsound(Exception):  # noqa: N818 - as above
    """What is in the file cannot be right, though SQLite itself reads it."""


# What `advice` has words for.
FAILURES = (NewerSchema, Unsound, sqlite3.Error, OSError)

_RIGHTS = ("cannot be opened or written to", "Give yourself the right to, or set TS_STATE_DIR to another folder.")
_ADVICE = {
    sqlite3.SQLITE_FULL: ("is on a full disk", "Make room, or set TS_STATE_DIR to a folder on another disk."),
    sqlite3.SQLITE_BUSY: ("is in use by another process", "Stop that process, then restart this server."),
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    sqlite3.SQLITE_PERM: _RIGHTS,
    sqlite3.SQLITE_IOERR: (
        "is on a disk that fails",
        "Look at the disk, or set TS_STATE_DIR to a folder on another one.",
    ),
}


def create(path: Path) -> None:
    """Makes the file, if it is missing, for its owner alone; SQLite gives its log the same mode. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def check(db: sqlite3.Connection, known: int) -> int:
    """The schema's version, 0 for a new file. Raises NewerSchema past `known`, Unsound, sqlite3.Error."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > known:
        raise NewerSchema
    if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":  # what it finds is a row and not an error
        raise Unsound
    return version


def begin(db: sqlite3.Connection, schema: str | None) -> None:
    """Prepares a file that was checked to be written to. `schema`: what makes it one, if it is new."""
    db.execute("PRAGMA journal_mode = WAL")
    # In a commit the kernel has the data, on a checkpoint the disk: kill -9 loses nothing, a power cut may.
    db.execute("PRAGMA synchronous = NORMAL")
    if schema is not None:
        db.executescript(schema)


def result_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 where the module itself refused the call."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code if code < 0 else code & 0xFF


def is_damage(error: BaseException) -> bool:
    broken = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, Unsound) or (isinstance(error, sqlite3.Error) and result_code(error) in broken)


def advice(error: BaseException, if_damaged: str) -> tuple[str, str]:
    """What is the matter with a file, to follow on its name, and what to do about it; `error` is one of FAILURES."""
    if isinstance(error, NewerSchema):
        return "was written by a later version of cc-tailscale", "Update cc-tailscale, or move the file away."
    if isinstance(error, OSError):
        return f"cannot be opened ({error.strerror})", _RIGHTS[1]
    if is_damage(error):
        return "is damaged", if_damaged
    default = (f"cannot be used ({error})", "Restart the server; if it stays, report it.")
    return _ADVICE.get(result_code(error), default) if isinstance(error, sqlite3.Error) else default


class OneAtATime:
    """Makes calls in a thread, one after the other: each is short, and SQLite has one writer anyway.

    A call that is cancelled has either been made or not been begun.
    """

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)
        # The limiter lets go when a task is cancelled by asyncio's own means, though its thread still works.
        self._lock = threading.Lock()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = partial(self._alone, partial(function, *args, **kwargs))
        return await anyio.to_thread.run_sync(call, limiter=self._limiter)

    def _alone(self, call: Callable[[], T]) -> T:
        with self._lock:
            return call()
