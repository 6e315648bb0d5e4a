"""This session's messages: kept through crashes, restarts and reconnects, and found again by the same session.

Nothing is acknowledged before it is committed. A call that is cancelled has either been committed or not been begun;
the sender of a message that did not hear which sends it again, and a repeat is no second message.

Calls run in a thread, one at a time: each takes well under a millisecond.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

from cctailscale import sqlitefile, statedir
from cctailscale.agents import place, unread
from cctailscale.agents.policy import Principal
from cctailscale.agents.store import LIMITS, Counts, Damaged, Limits, Received, Sent, Store
from cctailscale.agents.wire import Message, Receipt
from cctailscale.config import Settings
from cctailscale.errors import InboxUnusable

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

DATABASE = "inbox.db"


def _now() -> datetime:
    return datetime.now(UTC)


class Inbox:
    """Made by `opened` or `claimed`. Every call raises InboxUnusable if the file fails it.

    `changed` is set when what is unread changes next: take it before looking, wait for it after having found nothing.
    """

    def __init__(self, path: Path, store: Store, now: Callable[[], datetime]) -> None:
        self.changed = anyio.Event()
        self._path = path
        self._store = store
        self._now = now
        self._calls = sqlitefile.OneAtATime()

    @classmethod
    @asynccontextmanager
    async def claimed(cls, settings: Settings) -> AsyncIterator[Inbox]:
        """The inbox that this session had, or a new one; no other process has it meanwhile. Raises InboxUnusable.

        One with nothing in it is removed at the end, unless the session keeps something else in its folder; others stay
        for a week (place.sweep).
        """
        directory = await anyio.to_thread.run_sync(place.claim, settings)
        empty = False  # unless it is known to be
        try:
            async with cls.opened(directory.path / DATABASE) as inbox:
                try:
                    yield inbox
                finally:
                    with anyio.CancelScope(shield=True), suppress(InboxUnusable):  # then it stays, if it is still there
                        empty = await inbox._run(inbox._is_unused)
        finally:  # which lets the directory go
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(place.leave, directory, empty)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, path: Path, *, limits: Limits = LIMITS, now: Callable[[], datetime] = _now
    ) -> AsyncIterator[Inbox]:
        """The inbox in one file, which is made if it is missing. Raises InboxUnusable.

        A damaged file is moved aside, to ``{name}.damaged-{number}``, and a new inbox begun.
        """
        store = await anyio.to_thread.run_sync(_opened, path, limits)
        inbox = cls(path, store, now)
        try:
            yield inbox
        finally:
            with anyio.CancelScope(shield=True):
                await inbox._run(store.close)

    @property
    def folder(self) -> Path:
        """Where it lies; what else a session keeps may lie there too."""
        return self._path.parent

    async def put(self, sender: Principal, message: Message) -> Receipt:
        """Stores a message from `sender`: committed when this returns. A repeat gives the receipt of the first.

        Raises MessageConflict: another message of this sender has the id; InboxFull.
        """
        try:
            return await self._run(self._store.put, sender, message, self._now())
        finally:  # after a cancellation too: it may have been stored
            self._change()

    async def receipt_of(self, node_id: str, message_id: str) -> Receipt | None:
        """The receipt of a message that `node_id` sent us; None if there is no such message."""
        return await self._run(self._store.receipt, node_id, message_id)

    async def take(self, limit: int, *, include_read: bool = False, thread: str | None = None) -> list[Received]:
        """The oldest unread messages, which are read from now on, in the order of their arrival.

        `include_read`: what they leave of `limit` goes to the latest of those that were read before.
        """
        try:
            return await self._run(self._store.take, limit, self._now(), include_read, thread)
        finally:
            self._change()

    async def unread(self, limit: int, *, after: int = 0, thread: str | None = None) -> list[Received]:
        """The oldest unread messages whose `seq` is past `after`; they stay unread."""
        return await self._run(self._store.unread, limit, after, thread)

    async def wait_for_unread(self, thread: str | None = None) -> None:
        """Returns once there is an unread message (of the thread). The caller bounds it."""
        while True:
            changed = self.changed
            if await self.unread(1, thread=thread):
                return
            await changed.wait()

    async def counts(self) -> Counts:
        return await self._run(self._store.counts)

    async def senders(self, limit: int) -> list[tuple[str, int]]:
        """Whose messages are unread, by name, and how many; those with the most first."""
        return await self._run(self._store.senders, limit)

    async def sending(self, message: Message, to: Mapping[str, str]) -> str:
        """Notes a message of ours before it goes out to these nodes (stable id to name); gives its thread.

        Before, since an answer may come sooner than the receipt, and belongs into the thread.
        """
        return await self._run(self._store.sending, message, to)

    async def acknowledged(self, node_id: str, receipt: Receipt) -> None:
        """Notes what the node said about its copy of a message of ours."""
        await self._run(self._store.acknowledged, node_id, receipt)

    async def sent(self, limit: int, *, unread: bool = False, thread: str | None = None) -> list[Sent]:
        """What arrived of that which we sent, the newest first. `unread`: only those not known to be read."""
        return await self._run(self._store.sent, limit, unread, thread)

    def _is_unused(self) -> bool:
        own = (DATABASE, unread.FILE, *statedir.FILES)
        return self._store.is_empty() and all(entry.name.startswith(own) for entry in self.folder.iterdir())

    def _change(self) -> None:
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _as_inbox_unusable(self._path):
            return await self._calls.run(function, *args, **kwargs)


def _opened(path: Path, limits: Limits) -> Store:
    with _as_inbox_unusable(path):
        try:
            return Store(path, limits)
        except Damaged as damaged:
            log.warning("the inbox was damaged and begins anew; what is left of it is in %s", damaged.aside)
            return Store(path, limits)


@contextmanager
def _as_inbox_unusable(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlitefile.FAILURES as error:
        if_damaged = "Restart the server: it moves the file aside and begins a new one."
        raise InboxUnusable(path, *sqlitefile.advice(error, if_damaged)) from error
