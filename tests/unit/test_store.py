"""The inbox's file against a plain model: any sequence of calls, with the file closed and opened in between."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cctailscale.agents.policy import Principal
from cctailscale.agents.store import Counts, Limits, Received, Sent, Store
from cctailscale.agents.wire import Message, Receipt
from cctailscale.errors import InboxFull, MessageConflict

LIMITS = Limits(unread=4, unread_bytes=42, read=3, read_bytes=27, receipts=2, sent=3)
START = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
NODES = ("n1", "n2")
IDS = ("a", "b", "c")

nodes = st.sampled_from(NODES)
ids = st.sampled_from(IDS)
replies = st.none() | ids
bodies = st.sampled_from(["", "short", "ä" * 10])
threads = st.none() | st.sampled_from([*IDS, *(f"{node}/{name}" for node in NODES for name in IDS)])
some = st.integers(0, 5)


@dataclass
class Kept:
    """A received message in the model. `text` is None once it was forgotten."""

    seq: int
    node: str
    message: Message
    thread: str
    received: datetime
    read: datetime | None = None
    text: str | None = ""

    @property
    def size(self) -> int:
        return len(self.message.subject.encode()) + len(self.message.body.encode())


@dataclass
class Copy:
    node: str
    message: Message
    thread: str
    delivered: datetime | None = None
    read: datetime | None = None


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "inbox.db", LIMITS)
        self.now = START
        self.received: list[Kept] = []
        self.copies: list[Copy] = []
        self.last = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def message(self, name: str, body: str, in_reply_to: str | None) -> Message:
        self.now += timedelta(seconds=1)
        return Message(id=name, subject="s", body=body, in_reply_to=in_reply_to, sent=self.now - timedelta(hours=1))

    def thread(self, node: str, name: str | None) -> str | None:
        found = [copy.thread for copy in self.copies if (copy.node, copy.message.id) == (node, name)]
        found += [kept.thread for kept in self.received if (kept.node, kept.message.id) == (node, name)]
        return found[0] if found else None

    def kept(self, *, read: bool) -> list[Kept]:
        return [kept for kept in self.received if (kept.read is not None) == read and kept.text is not None]

    def shown(self, kept: Kept) -> Received:
        message = kept.message
        return Received(
            seq=kept.seq,
            sender=Principal(kept.node, f"{kept.node}.tail1234.ts.net", None, ("tag:ci",)),
            id=message.id,
            subject=message.subject,
            body=message.body,
            in_reply_to=message.in_reply_to,
            sent=message.sent,
            received=kept.received,
            thread=kept.thread,
            read=kept.read,
        )

    @rule(node=nodes, name=ids, body=bodies, in_reply_to=replies)
    def put(self, node: str, name: str, body: str, in_reply_to: str | None) -> None:
        message = self.message(name, body, in_reply_to)
        sender = Principal(node, f"{node}.tail1234.ts.net", None, ("tag:ci",), {"example.com/cap": [1]})
        new = Kept(0, node, message, self.thread(node, in_reply_to) or f"{node}/{name}", self.now)
        known = [kept for kept in self.received if (kept.node, kept.message.id) == (node, name)]
        unread = self.kept(read=False)
        if known:
            same = (known[0].message.body, known[0].message.in_reply_to) == (body, in_reply_to)
            if not same:
                with pytest.raises(MessageConflict):
                    self.store.put(sender, message, self.now)
            else:
                assert self.store.put(sender, message, self.now) == receipt(known[0])
        elif len(unread) >= LIMITS.unread or sum(k.size for k in unread) + new.size > LIMITS.unread_bytes:
            with pytest.raises(InboxFull):
                self.store.put(sender, message, self.now)
        else:
            self.last += 1
            new.seq = self.last
            self.received.append(new)
            assert self.store.put(sender, message, self.now) == receipt(new)

    @rule(limit=some, include_read=st.booleans(), thread=threads)
    def take(self, limit: int, include_read: bool, thread: str | None) -> None:
        self.now += timedelta(seconds=1)
        fresh = [kept for kept in self.kept(read=False) if thread in (None, kept.thread)][:limit]
        room = limit - len(fresh) if include_read else 0
        before = [kept for kept in self.kept(read=True) if thread in (None, kept.thread)]
        chosen = sorted(before[len(before) - min(room, len(before)) :] + fresh, key=lambda kept: kept.seq)
        assert self.store.take(limit, self.now, include_read, thread) == [self.shown(kept) for kept in chosen]
        for kept in fresh:
            kept.read = self.now
        self.forget()

    def forget(self) -> None:
        total = 0
        for number, kept in enumerate(reversed(self.kept(read=True)), start=1):
            total += kept.size
            if number > LIMITS.read or total > LIMITS.read_bytes:
                kept.text = None
        forgotten = [kept for kept in self.received if kept.text is None]
        for kept in forgotten[: -LIMITS.receipts]:
            self.received.remove(kept)

    @rule(limit=some, after=st.integers(0, 12), thread=threads)
    def unread(self, limit: int, after: int, thread: str | None) -> None:
        fitting = [kept for kept in self.kept(read=False) if kept.seq > after and thread in (None, kept.thread)]
        assert self.store.unread(limit, after, thread) == [self.shown(kept) for kept in fitting[:limit]]

    @rule(node=nodes, name=ids)
    def receipt(self, node: str, name: str) -> None:
        known = [receipt(kept) for kept in self.received if (kept.node, kept.message.id) == (node, name)]
        assert self.store.receipt(node, name) == (known[0] if known else None)

    @rule(to=st.lists(nodes, unique=True, max_size=3), name=ids, in_reply_to=replies)
    def sending(self, to: list[str], name: str, in_reply_to: str | None) -> None:
        message = self.message(name, "b", in_reply_to)
        earlier = [copy.thread for copy in self.copies if copy.message.id == name]
        answered = [found for node in to if (found := self.thread(node, in_reply_to))]
        thread = [*earlier, *answered, name][0]
        assert self.store.sending(message, {node: f"{node}.tail1234.ts.net" for node in to}) == thread
        known = {copy.node for copy in self.copies if copy.message.id == name}
        self.copies += [Copy(node, message, thread) for node in to if node not in known]
        self.copies = self.copies[-LIMITS.sent :]

    @rule(node=nodes, name=ids, read=st.booleans())
    def acknowledged(self, node: str, name: str, read: bool) -> None:
        self.now += timedelta(seconds=1)
        state = "read" if read else "delivered"
        self.store.acknowledged(
            node, Receipt(id=name, state=state, delivered=self.now, read=self.now if read else None)
        )
        for copy in self.copies:
            if (copy.node, copy.message.id) == (node, name):
                copy.delivered = copy.delivered or self.now
                copy.read = copy.read or (self.now if read else None)

    @rule(limit=some, unread=st.booleans(), thread=threads)
    def sent(self, limit: int, unread: bool, thread: str | None) -> None:
        fitting = [
            shown_copy(copy)
            for copy in reversed(self.copies)
            if copy.delivered and not (unread and copy.read) and thread in (None, copy.thread)
        ]
        assert self.store.sent(limit, unread, thread) == fitting[:limit]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.folder / "inbox.db", LIMITS)

    @invariant()
    def all_of_it(self) -> None:
        unread = self.kept(read=False)
        assert self.store.unread(99) == [self.shown(kept) for kept in unread]
        assert self.store.sent(99) == [shown_copy(copy) for copy in reversed(self.copies) if copy.delivered]
        assert self.store.counts() == Counts(len(unread), sum(kept.size for kept in unread), len(self.kept(read=True)))
        assert self.store.is_empty() == (not self.received and not self.copies)


def receipt(kept: Kept) -> Receipt:
    return Receipt(
        id=kept.message.id, state="read" if kept.read else "delivered", delivered=kept.received, read=kept.read
    )


def shown_copy(copy: Copy) -> Sent:
    message = copy.message
    name = f"{copy.node}.tail1234.ts.net"
    return Sent(copy.node, name, message.id, "s", copy.thread, message.sent, copy.delivered, copy.read)


StoreAgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=50)
test_the_store_does_what_a_plain_model_does = StoreAgainstModel.TestCase
