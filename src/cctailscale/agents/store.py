"""Messages in SQLite: what arrived, what was read, what was sent. Plain calls that block, one transaction each.

`Inbox` (inbox.py) calls them in a thread, one at a time. Errors of `sqlite3` come out as they are.

A received message lives in three steps. Unread, it stays until it is taken. Read, its text is kept until newer ones
push it out. Then only its receipt is left, so that a retry is still known as one, until newer ones push that out too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, count
from pathlib import Path

from cctailscale import sqlitefile
from cctailscale.agents.policy import Principal
from cctailscale.agents.wire import Message, Receipt
from cctailscale.errors import InboxFull, MessageConflict

SCHEMA_VERSION = 1
# Of a damaged file, with a number.
_ASIDE = ".damaged-"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Times are microseconds since the epoch. `seq` counts up, whatever clocks say: the order of arrival. The last row is
# never dropped, so that none is used twice. `size` is that of subject and body in UTF-8; both are NULL once the text
# is forgotten.
_SCHEMA = f"""
BEGIN;
CREATE TABLE received (
    seq INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL, name TEXT NOT NULL, login TEXT, tags TEXT NOT NULL,
    id TEXT NOT NULL, subject TEXT, body TEXT, in_reply_to TEXT, sent INTEGER NOT NULL,
    digest BLOB NOT NULL, size INTEGER NOT NULL,
    thread TEXT NOT NULL, received INTEGER NOT NULL, read INTEGER,
    UNIQUE (node_id, id)
);
CREATE INDEX received_unread ON received (seq, size) WHERE read IS NULL;
CREATE INDEX received_read ON received (seq, size) WHERE read IS NOT NULL AND body IS NOT NULL;
CREATE INDEX received_receipt ON received (seq) WHERE body IS NULL;
CREATE TABLE sent (
    seq INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL, name TEXT NOT NULL,
    id TEXT NOT NULL, subject TEXT NOT NULL, sent INTEGER NOT NULL,
    thread TEXT NOT NULL, delivered INTEGER, read INTEGER,
    UNIQUE (node_id, id)
);
CREATE INDEX sent_id ON sent (id);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an inbox holds; sizes are those of subject and body in UTF-8."""

    # A thousand unread messages are more than an agent can read; past that the sender had better know.
    unread: int = 1000
    unread_bytes: int = 8 * 1024 * 1024
    # Of one `take`, which is shown as one result: with what neutral() adds and a line about each, 100 messages stay
    # below the 500,000 characters of tools/messaging.META. What a client cuts off would count as read all the same.
    taken_bytes: int = 240_000
    # Read ones are there to be looked at once more, the unread ones to be kept: the same room is plenty.
    read: int = 1000
    read_bytes: int = 8 * 1024 * 1024
    # Receipts without their text, some 300 bytes each: a retry comes within minutes, not ten thousand messages later.
    receipts: int = 10_000
    # One message to fifty agents is fifty of these.
    sent: int = 5_000


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Received:
    """A message from another agent. `sender` is who WhoIs said it was when it came, without capabilities.

    `sent` is the sender's word; `received` and `read` are ours. `read` is None where nobody had taken it before.
    """

    seq: int
    sender: Principal
    id: str
    subject: str
    body: str
    in_reply_to: str | None
    sent: datetime
    received: datetime
    thread: str
    read: datetime | None


@dataclass(frozen=True, slots=True)
class Sent:
    """One recipient's copy of a message of ours. `delivered` and `read` are the recipient's word."""

    node_id: str
    name: str
    id: str
    subject: str
    thread: str
    sent: datetime
    delivered: datetime | None
    read: datetime | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What is in the inbox now. `read`: those whose text is still there."""

    unread: int
    unread_bytes: int
    read: int


class Damaged(Exception):  # noqa: N818 - not an error that anybody sees
    """The file was no database, or a broken one. It has been renamed to `aside`."""

    def __init__(self, aside: Path) -> None:
        self.aside = aside
        super().__init__(str(aside))


class Store:
    """One open file, which belongs to this process until `close`. Not for two threads at a time."""

    def __init__(self, path: Path, limits: Limits) -> None:
        """Opens the file, or makes it, with mode 0600.

        Raises Damaged, and sqlitefile.FAILURES for what is not the file's fault.
        """
        self._path = path
        self._limits = limits
        sqlitefile.create(path)
        # IMMEDIATE: a transaction that changes something has the right to from its beginning.
        self._db = sqlite3.connect(path, timeout=0, isolation_level="IMMEDIATE", check_same_thread=False)
        try:
            self._db.row_factory = sqlite3.Row
            self._prepare()
        except BaseException as error:
            # Renamed before it is closed: closing would write the log into the broken file, and remove it.
            aside = _move_aside(path) if sqlitefile.is_damage(error) else None
            self._db.close()
            if aside is not None:
                raise Damaged(aside) from error
            raise

    def _prepare(self) -> None:
        # The lock is held until the file is closed, and goes with the process. It also spares the shared memory.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = sqlitefile.check(self._db, SCHEMA_VERSION)
        sqlitefile.begin(self._db, _SCHEMA if version == 0 else None)

    def close(self) -> None:
        self._db.close()

    # ---- received

    def put(self, sender: Principal, message: Message, now: datetime) -> Receipt:
        """Stores a message and gives its receipt; a repeat gives the first one's.

        Raises MessageConflict if another message of this sender has the id, InboxFull.
        """
        digest = _digest(message)
        size = len(message.subject.encode()) + len(message.body.encode())
        with self._db:
            known = self._known(sender.node_id, message.id)
            if known is not None:
                if known["digest"] != digest:
                    raise MessageConflict(message.id)
                return _receipt(known)
            unread, unread_bytes = self._held()
            if unread >= self._limits.unread or unread_bytes + size > self._limits.unread_bytes:
                raise InboxFull(unread, unread_bytes)
            thread = self._thread(sender.node_id, message.in_reply_to) or f"{sender.node_id}/{message.id}"
            self._db.execute(
                "INSERT INTO received (node_id, name, login, tags, id, subject, body, in_reply_to, sent, digest, size,"
                " thread, received) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(sender.node_id, sender.name, sender.login, json.dumps(sender.tags)),
                    *(message.id, message.subject, message.body, message.in_reply_to, _micros(message.sent)),
                    *(digest, size, thread, _micros(now)),
                ),
            )
        return Receipt(id=message.id, state="delivered", delivered=now)

    def receipt(self, node_id: str, message_id: str) -> Receipt | None:
        """The receipt of a message that `node_id` sent; None if it sent none of that id, or long ago."""
        known = self._known(node_id, message_id)
        return _receipt(known) if known is not None else None

    def unread(self, limit: int, after: int = 0, thread: str | None = None) -> list[Received]:
        """The oldest unread messages whose `seq` is past `after`; they stay unread."""
        rows = self._db.execute(
            "SELECT * FROM received WHERE read IS NULL AND seq > ? AND coalesce(thread = ?, 1) ORDER BY seq LIMIT ?",
            (after, thread, limit),
        )
        return [_received(row) for row in rows]

    def take(self, limit: int, now: datetime, include_read: bool = False, thread: str | None = None) -> list[Received]:
        """The oldest unread messages, which are read from now on, in the order of their arrival.

        `include_read`: what they leave of `limit` goes to the latest of those that were read before. All together have
        at most `Limits.taken_bytes`, unless the first alone has more.
        """
        with self._db:
            taken = self._fitting(self.unread(limit, thread=thread))
            if include_read:
                taken = self._fitting(taken + self._read(limit - len(taken), thread))
            fresh = [(_micros(now), message.seq) for message in taken if message.read is None]
            self._db.executemany("UPDATE received SET read = ? WHERE seq = ?", fresh)
            self._forget()
        return sorted(taken, key=lambda message: message.seq)

    def counts(self) -> Counts:
        (read,) = self._db.execute(
            "SELECT count(*) FROM received WHERE read IS NOT NULL AND body IS NOT NULL"
        ).fetchone()
        return Counts(*self._held(), read)

    def senders(self, limit: int) -> list[tuple[str, int]]:
        """Whose messages are unread, by name, and how many; those with the most first."""
        rows = self._db.execute(
            "SELECT name, count(*) FROM received WHERE read IS NULL GROUP BY name ORDER BY 2 DESC, 1 LIMIT ?", (limit,)
        )
        return [(name, count) for name, count in rows]

    def _held(self) -> tuple[int, int]:
        """How many are unread, and their size."""
        unread, size = self._db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM received WHERE read IS NULL"
        ).fetchone()
        return unread, size

    def _known(self, node_id: str, message_id: str) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._db.execute(
            "SELECT id, digest, received, read FROM received WHERE node_id = ? AND id = ?", (node_id, message_id)
        ).fetchone()
        return found

    def _read(self, limit: int, thread: str | None) -> list[Received]:
        rows = self._db.execute(
            "SELECT * FROM received WHERE read IS NOT NULL AND body IS NOT NULL AND coalesce(thread = ?, 1)"
            " ORDER BY seq DESC LIMIT ?",
            (thread, limit),
        )
        return [_received(row) for row in rows]

    def _fitting(self, messages: list[Received]) -> list[Received]:
        sizes = accumulate(len(message.subject.encode()) + len(message.body.encode()) for message in messages)
        return [
            message
            for number, (message, size) in enumerate(zip(messages, sizes, strict=True))
            if not number or size <= self._limits.taken_bytes
        ]

    def _forget(self) -> None:
        """Drops the texts, then the receipts, that are past the limits; the oldest first."""
        self._db.execute(
            "UPDATE received SET subject = NULL, body = NULL, in_reply_to = NULL, size = 0 WHERE seq IN"
            " (SELECT seq FROM (SELECT seq, row_number() OVER latest AS number, sum(size) OVER latest AS total"
            "   FROM received WHERE read IS NOT NULL AND body IS NOT NULL WINDOW latest AS (ORDER BY seq DESC))"
            "  WHERE number > ? OR total > ?)",
            (self._limits.read, self._limits.read_bytes),
        )
        self._db.execute(
            "DELETE FROM received WHERE body IS NULL AND seq <="
            " (SELECT seq FROM received WHERE body IS NULL ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (self._limits.receipts,),
        )

    # ---- sent

    def sending(self, message: Message, to: Mapping[str, str]) -> str:
        """Notes a message that is about to be sent to these nodes (id to name), and gives its thread.

        A copy that is there already (this is a retry) stays as it is.
        """
        with self._db:
            repeated = self._db.execute("SELECT thread FROM sent WHERE id = ? LIMIT 1", (message.id,)).fetchone()
            answered = (self._thread(node_id, message.in_reply_to) for node_id in to)
            thread = repeated["thread"] if repeated else next(filter(None, answered), message.id)
            self._db.executemany(
                "INSERT OR IGNORE INTO sent (node_id, name, id, subject, sent, thread) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (node_id, name, message.id, message.subject, _micros(message.sent), thread)
                    for node_id, name in to.items()
                ],
            )
            self._db.execute(
                "DELETE FROM sent WHERE seq <= (SELECT seq FROM sent ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (self._limits.sent,),
            )
        return str(thread)

    def acknowledged(self, node_id: str, receipt: Receipt) -> None:
        """Notes what the node said about its copy. What it said first counts."""
        read = None if receipt.read is None else _micros(receipt.read)
        with self._db:
            self._db.execute(
                "UPDATE sent SET delivered = coalesce(delivered, ?), read = coalesce(read, ?)"
                " WHERE node_id = ? AND id = ?",
                (_micros(receipt.delivered), read, node_id, receipt.id),
            )

    def sent(self, limit: int, unread: bool = False, thread: str | None = None) -> list[Sent]:
        """The latest copies that arrived, the newest first. `unread`: only those not known to be read."""
        rows = self._db.execute(
            "SELECT * FROM sent WHERE delivered IS NOT NULL AND (read IS NULL OR NOT ?) AND coalesce(thread = ?, 1)"
            " ORDER BY seq DESC LIMIT ?",
            (unread, thread, limit),
        )
        return [_sent(row) for row in rows]

    def is_empty(self) -> bool:
        """Whether nothing was ever received or sent that is still known, or stands in a file that was moved aside."""
        found = self._db.execute("SELECT EXISTS (SELECT 1 FROM received) OR EXISTS (SELECT 1 FROM sent)").fetchone()
        return not found[0] and not any(self._path.parent.glob(f"{self._path.name}{_ASIDE}*"))

    def _thread(self, node_id: str, message_id: str | None) -> str | None:
        """The thread of the message with this id between us and the node; of ours first, since a reply is to one."""
        for table in ("sent", "received"):
            row = self._db.execute(
                f"SELECT thread FROM {table} WHERE node_id = ? AND id = ?",  # noqa: S608 - our own two words
                (node_id, message_id),
            ).fetchone()
            if row is not None:
                return str(row["thread"])
        return None


def _move_aside(path: Path) -> Path:
    """Gives the database and its log names that are free, and the database's."""
    names = (path.with_name(f"{path.name}{_ASIDE}{number}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    with suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").rename(aside.with_name(f"{aside.name}-wal"))
    return aside


def _digest(message: Message) -> bytes:
    """What has to be the same in a retry. The time is not: a retry may have been written anew."""
    return hashlib.sha256("\0".join((message.in_reply_to or "", message.subject, message.body)).encode()).digest()


def _receipt(row: sqlite3.Row) -> Receipt:
    read = _time_or_none(row["read"])
    return Receipt(id=row["id"], state="read" if read else "delivered", delivered=_time(row["received"]), read=read)


def _received(row: sqlite3.Row) -> Received:
    return Received(
        seq=row["seq"],
        sender=Principal(row["node_id"], row["name"], row["login"], tuple(json.loads(row["tags"]))),
        id=row["id"],
        subject=row["subject"],
        body=row["body"],
        in_reply_to=row["in_reply_to"],
        sent=_time(row["sent"]),
        received=_time(row["received"]),
        thread=row["thread"],
        read=_time_or_none(row["read"]),
    )


def _sent(row: sqlite3.Row) -> Sent:
    return Sent(
        node_id=row["node_id"],
        name=row["name"],
        id=row["id"],
        subject=row["subject"],
        thread=row["thread"],
        sent=_time(row["sent"]),
        delivered=_time_or_none(row["delivered"]),
        read=_time_or_none(row["read"]),
    )


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _time_or_none(micros: int | None) -> datetime | None:
    return None if micros is None else _time(micros)
