"""The inbox as its users see it: nothing acknowledged is lost, nothing is there twice, and a bad file is dealt with."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Principal
from cctailscale.agents.store import LIMITS, Counts, Limits, Store
from cctailscale.agents.wire import MAX_SUBJECT_CHARS, Message, Receipt
from cctailscale.errors import InboxFull, InboxUnusable, MessageConflict
from tests import disk

BOB = Principal("n2", "cc-bob-app-3c4d.tail1234.ts.net", "bob@example.com")
ROBOT = Principal("n3", "robot.tail1234.ts.net", None, ("tag:ci", "tag:prod"))
NOW = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)

# A receiver in a process of its own: stores one message after the other and says which, once it may.
RECEIVER = """
import sys, anyio
from pathlib import Path
from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Principal
from cctailscale.agents.wire import Message

async def main():
    async with Inbox.opened(Path(sys.argv[1])) as inbox:
        for number in range(int(sys.argv[2])):
            message = Message.new("Build", "b" * 500, id=f"m{number}")
            await inbox.put(Principal("n2", "bob.tail1234.ts.net"), message)
            print(message.id, flush=True)
        sys.stdin.readline()

anyio.run(main)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


@pytest.fixture
async def inbox(path: Path) -> AsyncIterator[Inbox]:
    async with Inbox.opened(path, now=lambda: NOW) as inbox:
        yield inbox


@contextlib.contextmanager
def receiver(path: Path, count: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", RECEIVER, str(path), str(count)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


def acknowledged(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], 30)
    assert readable, "the receiver said nothing within 30 s"
    return process.stdout.readline().decode().strip()


def message(name: str = "m1", body: str = "is green", in_reply_to: str | None = None) -> Message:
    sent = NOW - timedelta(hours=1)  # by a clock that is slow
    return Message(id=name, subject="Build", body=body, in_reply_to=in_reply_to, sent=sent)


async def names(inbox: Inbox) -> list[str]:
    return [received.id for received in await inbox.take(LIMITS.unread)]


async def problem_with(path: Path) -> str:
    with pytest.raises(InboxUnusable) as refused:
        async with Inbox.opened(path):
            pass
    return str(refused.value)


# ---- what comes in


async def test_a_message_is_kept_with_its_verified_sender_and_by_our_clock(inbox: Inbox) -> None:
    await inbox.put(ROBOT, message())
    (received,) = await inbox.take(20)
    assert received.sender == ROBOT
    assert (received.id, received.subject, received.body) == ("m1", "Build", "is green")
    assert (received.sent, received.received, received.read) == (NOW - timedelta(hours=1), NOW, None)


async def test_what_a_sender_may_do_is_not_kept_with_its_message(inbox: Inbox) -> None:
    granted = Principal("n2", BOB.name, BOB.login, (), {"cc-tailscale.dev/cap/agent": [{"allow": ["message"]}]})
    await inbox.put(granted, message())
    assert (await inbox.take(1))[0].sender == BOB


async def test_the_receipt_says_delivered_until_somebody_has_taken_the_message(path: Path) -> None:
    clock = iter([NOW, NOW + timedelta(minutes=5)])
    async with Inbox.opened(path, now=lambda: next(clock)) as inbox:
        receipt = await inbox.put(BOB, message())
        assert receipt == Receipt(id="m1", state="delivered", delivered=NOW)
        assert [received.id for received in await inbox.unread(20)] == ["m1"]
        assert await inbox.receipt_of("n2", "m1") == receipt
        await inbox.take(20)
        read = NOW + timedelta(minutes=5)
        assert await inbox.receipt_of("n2", "m1") == Receipt(id="m1", state="read", delivered=NOW, read=read)


async def test_only_its_sender_has_a_receipt(inbox: Inbox) -> None:
    await inbox.put(BOB, message())
    assert await inbox.receipt_of("n3", "m1") is None
    assert await inbox.receipt_of("n2", "m2") is None


async def test_a_repeat_gives_the_first_receipt_and_is_no_second_message(path: Path) -> None:
    clock = iter([NOW, NOW + timedelta(seconds=1), NOW + timedelta(seconds=2), NOW + timedelta(seconds=3)])
    async with Inbox.opened(path, now=lambda: next(clock)) as inbox:
        first = await inbox.put(BOB, message())
        # The sender wrote the retry anew, at another time.
        again = message().model_copy(update={"sent": NOW})
        assert await inbox.put(BOB, again) == first
        assert await names(inbox) == ["m1"]
        repeated = await inbox.put(BOB, message())
        assert (repeated.state, repeated.delivered) == ("read", NOW)
        assert await inbox.counts() == Counts(0, 0, 1)


@pytest.mark.parametrize("other", [message(body="is red"), message(in_reply_to="m0")])
async def test_another_message_under_a_known_id_is_refused(inbox: Inbox, other: Message) -> None:
    await inbox.put(BOB, message())
    for _ in ("unread", "read"):
        with pytest.raises(MessageConflict, match="id m1 is there already"):
            await inbox.put(BOB, other)
        await inbox.take(1)


async def test_ids_count_per_sender(inbox: Inbox) -> None:
    await inbox.put(BOB, message())
    await inbox.put(ROBOT, message(body="is red"))
    assert [(received.sender, received.body) for received in await inbox.take(20)] == [
        (BOB, "is green"),
        (ROBOT, "is red"),
    ]


async def test_messages_are_taken_once_in_the_order_of_arrival_whatever_clocks_say(path: Path) -> None:
    clock = iter([NOW - timedelta(days=number) for number in range(9)])
    async with Inbox.opened(path, now=lambda: next(clock)) as inbox:
        for number in range(5):
            sent = NOW - timedelta(hours=number)
            await inbox.put(BOB, message(f"m{number}").model_copy(update={"sent": sent}))
        assert [received.id for received in await inbox.take(2)] == ["m0", "m1"]
        assert await names(inbox) == ["m2", "m3", "m4"]
        assert await names(inbox) == []


async def test_read_ones_fill_what_unread_ones_leave_the_latest_first(inbox: Inbox) -> None:
    for number in range(4):
        await inbox.put(BOB, message(f"m{number}"))
    await inbox.take(3)
    shown = await inbox.take(3, include_read=True)
    assert [(received.id, received.read) for received in shown] == [("m1", NOW), ("m2", NOW), ("m3", None)]


async def test_no_more_is_taken_at_once_than_can_be_shown_and_what_stays_is_unread(inbox: Inbox) -> None:
    for number in range(4):
        await inbox.put(BOB, message(f"m{number}", "b" * (LIMITS.taken_bytes // 2)))
    await inbox.put(BOB, message("m4"))
    assert await names(inbox) == ["m0"]  # with subjects, two are a little too much
    assert (await inbox.counts()).unread == 4
    assert [received.id for received in await inbox.take(20, include_read=True)] == ["m1"]
    assert await names(inbox) == ["m2"]
    assert await names(inbox) == ["m3", "m4"]
    assert [received.id for received in await inbox.take(20, include_read=True)] == ["m3", "m4"]


async def test_looking_goes_on_after_what_was_seen_and_leaves_it_unread(inbox: Inbox) -> None:
    for number in range(4):
        await inbox.put(BOB, message(f"m{number}"))
    first = await inbox.unread(2)
    rest = await inbox.unread(20, after=first[-1].seq)
    assert [received.id for received in (*first, *rest)] == ["m0", "m1", "m2", "m3"]
    assert (await inbox.counts()).unread == 4


# ---- limits


async def test_a_thousand_unread_messages_are_held_and_one_more_is_refused(inbox: Inbox) -> None:
    for number in range(1000):
        await inbox.put(BOB, message(f"m{number}"))
    with pytest.raises(InboxFull, match="1000 unread messages") as full:
        await inbox.put(ROBOT, message("late"))
    assert full.value.unread == 1000
    assert (await inbox.put(BOB, message("m7"))).state == "delivered"  # a retry needs no room
    assert await inbox.receipt_of("n3", "late") is None
    await inbox.take(1)
    await inbox.put(ROBOT, message("late"))
    assert (await inbox.counts()).unread == 1000


async def test_eight_mebibytes_unread_are_held_and_one_byte_more_is_refused(inbox: Inbox) -> None:
    body = "ä" * (16 * 1024)
    size = 2 * len(body) + len("Build")
    count, rest = divmod(8 * 1024 * 1024, size)
    for number in range(count):
        await inbox.put(BOB, message(f"m{number}", body))
    with pytest.raises(InboxFull):
        await inbox.put(BOB, message("last", "b" * (rest - len("Build") + 1)))
    await inbox.put(BOB, message("last", "b" * (rest - len("Build"))))
    assert (await inbox.counts()).unread_bytes == 8 * 1024 * 1024


async def test_old_texts_are_forgotten_and_their_receipts_are_not(path: Path) -> None:
    async with Inbox.opened(path, limits=Limits(read=2), now=lambda: NOW) as inbox:
        for number in range(5):
            await inbox.put(BOB, message(f"m{number}"))
        assert len(await inbox.take(5)) == 5
        assert [received.id for received in await inbox.take(20, include_read=True)] == ["m3", "m4"]
        assert (await inbox.put(BOB, message("m0"))).state == "read"
        with pytest.raises(MessageConflict):
            await inbox.put(BOB, message("m0", "is red"))
        assert await inbox.counts() == Counts(0, 0, 2)


async def test_what_an_inbox_has_seen_makes_no_message_slower(path: Path) -> None:
    async with Inbox.opened(path, limits=Limits(read=500, receipts=2000)) as inbox:
        await inbox.put(BOB, message("first"))

        async def steps_of_one(name: str) -> int:
            """Instructions of SQLite's own machine, in tens: a count that no other load changes."""
            steps = 0

            def step() -> None:
                nonlocal steps
                steps += 1

            inbox._store._db.set_progress_handler(step, 10)
            await inbox.put(BOB, message(name))
            inbox._store._db.set_progress_handler(None, 0)
            return steps

        fresh = await steps_of_one("fresh")
        for number in range(2500):
            await inbox.put(BOB, message(f"m{number}"))
            if number % 100 == 99:
                await inbox.take(LIMITS.unread)
        assert await steps_of_one("aged") <= 2 * fresh


async def test_the_file_stays_small_however_many_messages_pass_through(path: Path) -> None:
    limits = Limits(read=20, receipts=20)
    async with Inbox.opened(path, limits=limits) as inbox:
        for number in range(600):
            await inbox.put(BOB, message(f"m{number}", "b" * 10_000))
            if number % 10 == 9:
                await inbox.take(10)
    assert path.stat().st_size < 1_000_000  # 6 MB went through


# ---- threads


async def test_a_reply_to_us_joins_the_thread_of_what_it_answers(inbox: Inbox) -> None:
    thread = await inbox.sending(message("q1"), {"n2": BOB.name, "n3": ROBOT.name})
    assert thread == "q1"
    await inbox.put(BOB, message("a1", in_reply_to="q1"))
    await inbox.put(ROBOT, message("a1", in_reply_to="q1"))
    await inbox.put(BOB, message("a2", in_reply_to="a1"))  # goes on with one of the sender's own
    await inbox.put(BOB, message("new"))
    assert [received.id for received in await inbox.unread(20, thread="q1")] == ["a1", "a1", "a2"]
    assert [received.id for received in await inbox.take(20, thread="n2/new")] == ["new"]
    assert await inbox.sending(message("q2", in_reply_to="a2"), {"n2": BOB.name}) == "q1"


async def test_our_reply_joins_the_thread_of_what_it_answers(inbox: Inbox) -> None:
    await inbox.put(BOB, message("q1"))
    assert await inbox.sending(message("a1", in_reply_to="q1"), {"n3": ROBOT.name, "n2": BOB.name}) == "n2/q1"
    assert await inbox.sending(message("a1", in_reply_to="q1"), {"n9": "later.tail1234.ts.net"}) == "n2/q1"
    await inbox.put(ROBOT, message("a2", in_reply_to="a1"))
    assert {received.thread for received in await inbox.take(20)} == {"n2/q1"}


async def test_a_reply_to_something_of_somebody_else_begins_a_thread_of_its_own(inbox: Inbox) -> None:
    await inbox.put(BOB, message("q1"))
    await inbox.sending(message("q2"), {"n2": BOB.name})
    await inbox.put(ROBOT, message("a1", in_reply_to="q1"))
    await inbox.put(ROBOT, message("a2", in_reply_to="q2"))
    await inbox.put(ROBOT, message("a3", in_reply_to="a3"))
    assert [received.thread for received in await inbox.take(20)] == ["n2/q1", "n3/a1", "n3/a2", "n3/a3"]


async def test_of_two_messages_with_the_answered_id_it_is_ours_that_is_answered(inbox: Inbox) -> None:
    await inbox.put(BOB, message("same"))
    await inbox.sending(message("same"), {"n2": BOB.name})
    await inbox.put(BOB, message("a1", in_reply_to="same"))
    assert [received.thread for received in await inbox.take(20)] == ["n2/same", "same"]


# ---- what goes out


async def test_what_was_sent_is_known_once_it_arrived_and_until_it_was_read(inbox: Inbox) -> None:
    await inbox.sending(message("q1"), {"n2": BOB.name, "n3": ROBOT.name, "n4": "gone.tail1234.ts.net"})
    assert await inbox.sent(20) == []
    later = NOW + timedelta(minutes=1)
    await inbox.acknowledged("n2", Receipt(id="q1", state="delivered", delivered=NOW))
    await inbox.acknowledged("n3", Receipt(id="q1", state="read", delivered=NOW, read=later))
    assert [(copy.name, copy.delivered, copy.read) for copy in await inbox.sent(20)] == [
        (ROBOT.name, NOW, later),
        (BOB.name, NOW, None),
    ]
    assert [copy.node_id for copy in await inbox.sent(20, unread=True, thread="q1")] == ["n2"]
    await inbox.acknowledged("n2", Receipt(id="q1", state="read", delivered=later, read=later))
    assert await inbox.sent(20, unread=True) == []
    assert {(copy.delivered, copy.read) for copy in await inbox.sent(20)} == {(NOW, later)}


async def test_a_receipt_for_what_was_never_sent_is_ignored(inbox: Inbox) -> None:
    await inbox.acknowledged("n2", Receipt(id="q1", state="delivered", delivered=NOW))
    assert await inbox.sent(20) == []


# ---- waiting


async def test_a_waiter_hears_of_a_message_at_once(inbox: Inbox) -> None:
    latencies, woken = [], []

    async def wait() -> None:
        await inbox.wait_for_unread()
        woken.append(anyio.current_time())

    for number in range(20):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                begun = anyio.current_time()
                await inbox.put(BOB, message(f"m{number}"))
        latencies.append(woken[-1] - begun)
        assert len(await inbox.take(20)) == 1
    assert sorted(latencies)[len(latencies) // 2] < 0.02


async def test_a_waiter_does_not_wait_for_what_is_there(inbox: Inbox) -> None:
    await inbox.put(BOB, message())
    with anyio.fail_after(5):
        await inbox.wait_for_unread()
        await inbox.wait_for_unread("n2/m1")


async def test_a_waiter_for_a_thread_sleeps_through_the_others(inbox: Inbox) -> None:
    woken = anyio.Event()

    async def wait() -> None:
        await inbox.wait_for_unread("q1")
        woken.set()

    await inbox.sending(message("q1"), {"n2": BOB.name})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await inbox.put(BOB, message("m1"))
        await anyio.wait_all_tasks_blocked()
        assert not woken.is_set()
        await inbox.put(BOB, message("m2", in_reply_to="q1"))
        with anyio.fail_after(5):
            await woken.wait()


async def test_a_wait_can_be_given_up(inbox: Inbox) -> None:
    with anyio.move_on_after(0.01) as scope:
        await inbox.wait_for_unread()
    assert scope.cancelled_caught
    await inbox.put(BOB, message())
    assert await names(inbox) == ["m1"]


async def test_whoever_looks_and_then_waits_for_a_change_misses_nothing(inbox: Inbox) -> None:
    seen: list[str] = []

    async def watch() -> None:
        last = 0
        while len(seen) < 50:
            changed = inbox.changed
            fresh = await inbox.unread(7, after=last)
            seen.extend(received.id for received in fresh)
            if fresh:
                last = fresh[-1].seq
            else:
                await changed.wait()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            for number in range(50):
                await inbox.put(BOB, message(f"m{number}"))
    assert seen == [f"m{number}" for number in range(50)]


# ---- cancellation


@pytest.mark.parametrize("means", ["anyio", "asyncio"])
async def test_a_cancelled_message_is_stored_or_not_and_its_retry_settles_it(path: Path, means: str) -> None:
    """Both ways to cancel: asyncio's own lets go of the thread that still works, anyio's waits for it."""
    kept: set[str] = set()

    async def put(number: int) -> None:
        await inbox.put(BOB, message(f"m{number}"))
        kept.add(f"m{number}")

    async with Inbox.opened(path) as inbox:
        for number in range(100):
            if means == "asyncio":
                task = asyncio.ensure_future(put(number))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(put, number)
                    for _ in range(number % 7):
                        await asyncio.sleep(0)
                    tasks.cancel_scope.cancel()
        stored = await names(inbox)
        assert kept <= set(stored)
        assert sorted(set(stored)) == sorted(stored)
        for number in range(100):
            await put(number)
        assert set(stored) | set(await names(inbox)) == {f"m{number}" for number in range(100)}


async def test_a_call_waits_for_one_that_was_cancelled_and_still_works(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a refused message could roll back another one that is about to be acknowledged."""
    held, inside, most = Store._held, 0, 0
    entered, go_on = threading.Event(), threading.Event()

    def slow(store: Store) -> tuple[int, int]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        entered.set()
        go_on.wait(10)
        inside -= 1
        return held(store)

    monkeypatch.setattr(Store, "_held", slow)
    first = asyncio.ensure_future(inbox.put(BOB, message("m1")))
    await anyio.to_thread.run_sync(entered.wait, 10)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.ensure_future(inbox.put(BOB, message("m2")))
    await anyio.wait_all_tasks_blocked()
    await anyio.to_thread.run_sync(go_on.wait, 0.05)  # what would run beside the first has begun by now
    go_on.set()
    await second
    assert most == 1
    assert await names(inbox) == ["m1", "m2"]


async def test_many_senders_at_a_time_lose_nothing(inbox: Inbox) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            sender = Principal(f"n{number % 10}", "x.tail1234.ts.net")
            tasks.start_soon(inbox.put, sender, message(f"m{number // 10}"))
    received = await inbox.take(1000)
    assert len({(each.sender.node_id, each.id) for each in received}) == len(received) == 200


# ---- crashes


@pytest.mark.parametrize("count", [1, 7, 60])
async def test_what_was_acknowledged_before_a_kill_is_there_after_it(path: Path, count: int) -> None:
    with receiver(path, 100_000) as process:
        told = [acknowledged(process) for _ in range(count)]
        process.kill()
        process.wait(10)
        rest = process.stdout.read().split() if process.stdout else []  # what it said before it died
    async with Inbox.opened(path) as inbox:
        stored = await names(inbox)
        assert stored[: count + len(rest)] == [*told, *(name.decode() for name in rest)]
        assert len(stored) - count - len(rest) <= 1  # stored and not yet said
        bob = Principal("n2", "bob.tail1234.ts.net")
        assert (await inbox.put(bob, Message.new("Build", "b" * 500, id="m0"))).state == "read"


async def test_what_was_read_and_sent_outlives_the_process_too(path: Path) -> None:
    async with Inbox.opened(path) as inbox:
        await inbox.put(BOB, message("m1"))
        await inbox.put(BOB, message("m2"))
        await inbox.take(1)
        await inbox.sending(message("q1"), {"n2": BOB.name})
    async with Inbox.opened(path) as inbox:
        assert await names(inbox) == ["m2"]
        await inbox.put(BOB, message("a1", in_reply_to="q1"))
        assert (await inbox.take(1))[0].thread == "q1"


# ---- a file that cannot be used


async def test_the_file_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        async with Inbox.opened(path) as inbox:
            await inbox.put(BOB, message())
            files = list(path.parent.iterdir())
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert len(files) == 2  # the database and its log
    finally:
        os.umask(before)


async def test_a_file_that_another_process_has_is_not_shared(path: Path) -> None:
    with receiver(path, 1) as process:
        assert acknowledged(process) == "m0"
        assert "is in use by another process. " in await problem_with(path)
    async with Inbox.opened(path) as inbox:
        assert await names(inbox) == ["m0"]


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = os.urandom(64)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["garbage", "scribbled", "cut"])
async def test_a_damaged_file_is_moved_aside_and_never_deleted(
    path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async with Inbox.opened(path) as inbox:
        for number in range(100):
            await inbox.put(BOB, message(f"m{number}", "b" * 500))
    match how:
        case "garbage":
            path.write_bytes(b"this is no database" * 300)
        case "scribbled":
            scribble(path)
        case "cut":
            path.write_bytes(path.read_bytes()[: 3 * 4096])
    damaged = path.read_bytes()
    path.with_name("inbox.db-wal").write_bytes(b"its log")
    with caplog.at_level(logging.WARNING):
        async with Inbox.opened(path) as inbox:
            assert await names(inbox) == []
            await inbox.put(BOB, message())
    aside = path.with_name("inbox.db.damaged-1")
    assert aside.read_bytes() == damaged
    assert aside.with_name(aside.name + "-wal").read_bytes() == b"its log"
    assert str(aside) in caplog.text
    async with Inbox.opened(path) as inbox:
        assert await names(inbox) == ["m1"]


async def test_a_file_of_a_later_version_is_left_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as later:
        later.execute("CREATE TABLE received (something TEXT)")
        later.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    assert "was written by a later version of cc-tailscale. " in await problem_with(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["inbox.db"]


async def test_a_folder_that_is_not_there_or_in_the_way_is_a_clear_error(path: Path) -> None:
    assert "cannot be opened (No such file or directory)" in await problem_with(path.parent / "none" / "inbox.db")
    path.mkdir()
    assert "cannot be opened (Is a directory)" in await problem_with(path)


async def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    assert "cannot be opened" in await problem_with(path)
    assert not (tmp_path / "elsewhere").exists()


async def test_a_folder_without_the_right_to_write_is_a_clear_error(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user may write everywhere")
        assert "cannot be opened (Permission denied)" in await problem_with(path)
    finally:
        path.parent.chmod(0o700)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk.small_disk(tmp_path / "small", "256k") as folder:
        yield folder


async def test_on_a_full_disk_nothing_is_acknowledged_and_with_room_it_goes_on(small_disk: Path) -> None:
    kept = []
    async with Inbox.opened(small_disk / "inbox.db") as inbox:
        filler = small_disk / "filler"
        filler.write_bytes(bytes(96 * 1024))

        async def fill() -> None:
            for number in range(1000):
                await inbox.put(BOB, message(f"m{number}", "b" * 2000))
                kept.append(f"m{number}")

        with pytest.raises(InboxUnusable) as full:
            await fill()
        assert "is on a full disk. " in str(full.value)
        assert kept
        assert await inbox.receipt_of("n2", f"m{len(kept)}") is None
        filler.unlink()
        await inbox.put(BOB, message("later", "b" * 2000))
        assert await names(inbox) == [*kept, "later"]
        filler.write_bytes(bytes(16 * 1024))
    async with Inbox.opened(small_disk / "inbox.db") as inbox:
        assert [received.id for received in await inbox.take(1000, include_read=True)] == [*kept, "later"]


async def test_a_closed_inbox_says_so(path: Path) -> None:
    async with Inbox.opened(path) as inbox:
        pass
    with pytest.raises(InboxUnusable, match="cannot be used"):
        await inbox.put(BOB, message())


async def test_the_longest_subject_and_every_character_come_back_as_they_went_in(inbox: Inbox) -> None:
    body = "".join(map(chr, [*range(1, 0x3000), 0xFFFD, 0xFFFF, 0x1F600, 0x10FFFF]))
    given = Message(id="a" * 64, subject="ß" * MAX_SUBJECT_CHARS, body=body, sent=NOW)
    await inbox.put(BOB, given)
    (received,) = await inbox.take(1)
    assert (received.id, received.subject, received.body) == (given.id, given.subject, given.body)
