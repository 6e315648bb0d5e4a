"""A member that follows its team, against the real lead behind the real endpoints: what it tells, keeps and sends."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import anyio
import pytest

from cctailscale.agents.wire import Refusal
from cctailscale.errors import (
    AgentRefused,
    AnswerLost,
    BadDocument,
    InboxFull,
    LeadOffline,
    NoAgent,
    TeamEnded,
    TeamRefused,
    TeamUnusable,
)
from cctailscale.teams import following, news, remote, replica
from cctailscale.teams.commands import Claim, Complete, Create, Release, TaskCommand, Update
from cctailscale.teams.following import Following
from cctailscale.teams.membership import Membership, MembershipFile, load
from cctailscale.teams.model import Task
from cctailscale.teams.remote import Method, RemoteGateway
from cctailscale.teams.replica import Replica
from cctailscale.teams.wire import EventPage, Joined, TaskQuery, TeamView
from tests.hosted import Hosted, Peer, hosted
from tests.leading import LEAD, device

SECONDS = 10.0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that takes seconds takes a part of them."""
    for module, name, seconds in (
        (remote, "CALL_SECONDS", 0.5),
        (remote, "TRY_SECONDS", 0.2),
        (remote, "LOOK_AGAIN_SECONDS", 0.02),
        (following, "FIRST_PAUSE_SECONDS", 0.05),
        (following, "MAX_PAUSE_SECONDS", 0.2),
        (following, "SAVE_SECONDS", 0.05),
        (following, "TELL_AGAIN_SECONDS", 0.05),
        (following, "PAGE_SECONDS", 0.0),
        (news, "URGENT_SECONDS", 0.05),
    ):
        monkeypatch.setattr(module, name, seconds)


class Way:
    """To the lead over a socket pair: as the device n2, until the test says otherwise."""

    def __init__(self, host: Hosted, file: MembershipFile) -> None:
        self.host = host
        self.file = file
        self.number = 2
        self.gone: Exception | None = None
        self.silent = False
        self.eventless = False
        self.finds = 0
        self.asked: list[str] = []

    async def ask(self, method: Method, path: str, body: bytes | None, max_bytes: int) -> bytes:
        if self.gone is not None:
            raise self.gone
        self.asked.append(path.partition("?")[0])
        async with self.host.peer(self.number) as peer:
            status, answer = await peer.ask(method, f"/v1/{path}", body)
        if self.silent or (self.eventless and path.startswith("team/events")):
            await anyio.sleep_forever()
        assert len(answer) <= max_bytes
        if status >= 400:
            refusal = Refusal.from_json(answer)
            raise AgentRefused("lead", status, refusal.error, refusal.message)
        return answer

    async def find(self) -> bool:
        self.finds += 1
        return self.gone is None and not self.silent and self.host.lead is not None

    async def rejoin(self) -> None:
        async with self.host.peer(self.number) as peer:
            status, answer = await peer.ask("POST", "/v1/team/join", _request(self.file.now.token))
        if status >= 400:
            refusal = Refusal.from_json(answer)
            raise AgentRefused("lead", status, refusal.error, refusal.message)


def _request(token: str | None) -> bytes:
    from cctailscale.teams.wire import JoinRequest

    return JoinRequest(nonce="5a" * 32, token=token).to_json()


class Member:
    """A member with all it has; `run` follows."""

    def __init__(self, host: Hosted, file: MembershipFile) -> None:
        self.host = host
        self.file = file
        self.way = Way(host, file)
        self.gateway = RemoteGateway(file, self.way)
        self.notes: list[news.Note] = []
        self.told = anyio.Event()
        self.full = False
        self.ended: TeamEnded | None = None

    async def tell(self, note: news.Note) -> None:
        if self.full:
            raise InboxFull(1000, 1)
        self.notes.append(note)
        told, self.told = self.told, anyio.Event()
        told.set()

    def keep(self, known: Replica | None) -> None:
        self.gateway.replica = known

    async def run(self, known: Replica | None = None) -> None:
        self.gateway.replica = known
        follows = Following(self.file, self.gateway, self.tell, replica=known, find=self.gateway.find, keep=self.keep)
        self.ended = await follows.run()

    async def do(self, command: TaskCommand) -> Task | None:
        return await self.gateway.command(secrets.token_urlsafe(12), command)

    async def saying(self, words: str) -> news.Note:
        """The first note that has these words, once it is there."""
        with anyio.fail_after(SECONDS):
            while True:
                told = self.told
                for note in self.notes:
                    if words in note.body:
                        return note
                await told.wait()


async def lead(member: Member, command: TaskCommand) -> None:
    """A command of the lead's, which it allows."""
    assert member.host.lead is not None
    answer = await member.host.lead.command(LEAD, secrets.token_urlsafe(12), command)
    assert answer.refused is None


@asynccontextmanager
async def member_of(folder: Path) -> AsyncIterator[Member]:
    """A device that has joined and does not follow yet."""
    async with hosted(folder) as host, host.peer() as peer:
        yield Member(host, await _joined(folder, peer))


async def _joined(folder: Path, peer: Peer) -> MembershipFile:
    joined = await peer.join()
    membership = Membership(
        team=joined.team,
        name=joined.name,
        public_key=joined.public_key,
        role="member",
        member=joined.member,
        token=joined.token,
        lead=device(1, "lead"),
        lead_address="100.64.0.1",
        lease_seconds=joined.lease_seconds,
        heard=datetime.now(UTC),
        seen=joined.version,
    )
    return await MembershipFile.made(folder, membership)


@asynccontextmanager
async def followed(folder: Path) -> AsyncIterator[Member]:
    """A member that follows."""
    async with member_of(folder) as member, anyio.create_task_group() as tasks:
        tasks.start_soon(member.run)
        yield member
        tasks.cancel_scope.cancel()


# ---- what is told


async def test_what_concerns_the_member_is_told_at_once_together_with_what_waited(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        async with member.host.peer(3) as other:
            await other.join()
            await member.saying("host3.tail.ts.net has joined")  # the first needs not wait
        async with member.host.peer(4) as other:
            await other.join()
        await lead(member, Claim(task="task-1", owner="member-2"))
        note = await member.saying("was assigned to you")
        assert note.body.index("was assigned to you") < note.body.index("host4.tail.ts.net has joined")
        assert len(member.notes) == 2
        with anyio.fail_after(SECONDS):
            while member.file.now.seen < 4:  # noqa: ASYNC110 - noted right after it was told
                await anyio.sleep(0.01)


async def test_who_changes_a_members_task_again_and_again_does_not_fill_its_inbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "URGENT_SECONDS", 0.5)
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        await member.do(Claim())
        began = time.monotonic()
        for priority in range(1, 101):
            await lead(member, Update(task="task-1", priority=priority))
            await anyio.sleep(0.001)  # so that the member reads some of them alone
        await member.do(Complete(task="task-1"))
        note = await member.saying("And ")
        assert "has changed task-1" in note.body
        assert len(member.notes) <= news.URGENT_AT_ONCE + 1 + (time.monotonic() - began) / 0.5


async def test_some_tasks_that_are_assigned_one_after_the_other_are_each_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "URGENT_SECONDS", 3600)
    async with followed(tmp_path) as member:
        for number in range(1, news.URGENT_AT_ONCE + 1):
            await lead(member, Create(subject="One"))
            await lead(member, Claim(task=f"task-{number}", owner="member-2"))
            await member.saying(f'task-{number} "One" was assigned to you')
        assert len(member.notes) == news.URGENT_AT_ONCE


async def test_a_lead_that_is_away_for_long_is_looked_for_within_each_third_of_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_PAUSE_SECONDS", 3600)
    monkeypatch.setattr(following, "PAUSE_GROWS", 1000)
    looked, often = 0, anyio.Event()

    async def find() -> bool:
        nonlocal looked
        looked += 1
        if looked == 5:
            often.set()
        return False

    async with member_of(tmp_path) as member, anyio.create_task_group() as tasks:
        known = await Replica.read(member.gateway)
        member.file.note(lease_seconds=0.3)
        member.way.gone = NoAgent("lead", "nothing listens on its port for agents")
        tasks.start_soon(Following(member.file, member.gateway, member.tell, replica=known, find=find).run)
        with anyio.fail_after(SECONDS):
            await often.wait()
        tasks.cancel_scope.cancel()


async def test_what_was_not_told_is_told_by_the_next_process(tmp_path: Path) -> None:
    async with member_of(tmp_path) as member, anyio.create_task_group() as tasks:
        member.full = True
        tasks.start_soon(member.run)
        await lead(member, Create(subject="One"))
        await lead(member, Claim(task="task-1", owner="member-2"))
        with anyio.fail_after(SECONDS):
            while "team/events" not in member.way.asked:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
        kept = load(tmp_path)
        assert kept is not None
        assert kept.seen == 1
        again = Member(member.host, MembershipFile(tmp_path, kept))
        async with anyio.create_task_group() as others:
            others.start_soon(again.run, replica.load(tmp_path))
            await again.saying("was assigned to you")
            others.cancel_scope.cancel()


async def test_an_inbox_that_is_full_gets_the_news_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with followed(tmp_path) as member:
        member.full = True
        await lead(member, Create(subject="One"))
        await lead(member, Claim(task="task-1", owner="member-2"))
        with anyio.fail_after(SECONDS):
            while "could not be told" not in caplog.text:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        member.full = False
        await member.saying("was assigned to you")


async def test_a_member_that_has_missed_too_much_reads_the_lists_anew(tmp_path: Path) -> None:
    async with member_of(tmp_path) as member, anyio.create_task_group() as tasks:
        await lead(member, Create(subject="One"))
        member.file.note(seen=1000)  # of a team whose file was put back from a copy
        tasks.start_soon(member.run)
        with anyio.fail_after(SECONDS):
            while member.file.now.seen == 1000 or member.gateway.replica is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert member.gateway.replica.page(TaskQuery()).total == 1
        await lead(member, Claim(task="task-1", owner="member-2"))
        await member.saying("was assigned to you")
        tasks.cancel_scope.cancel()


# ---- without the lead


async def test_calls_end_in_time_and_lists_are_the_last_known_while_the_lead_is_gone(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        await member.do(Claim())
        for gone in (NoAgent("lead", "nothing listens"), AnswerLost("lead"), None):
            member.way.gone, member.way.silent = gone, gone is None
            began = time.monotonic()
            with pytest.raises(LeadOffline) as raised:
                await member.do(Release(task="task-1"))
            assert time.monotonic() - began < 1.0
            assert ("is not known" in str(raised.value)) == (not isinstance(gone, NoAgent))
            page = await member.gateway.tasks(TaskQuery(owner="me"))
            assert [row.id for row in page.rows] == ["task-1"]
            assert page.as_of is not None
            assert (await member.gateway.team()).as_of is not None
        member.way.silent = False
        assert await member.do(Claim(task="task-1")) is not None  # the last call has been carried out
        assert (await member.gateway.tasks(TaskQuery())).as_of is None


async def test_a_lead_that_is_back_within_a_call_answers_it(tmp_path: Path) -> None:
    async with member_of(tmp_path) as member, anyio.create_task_group() as tasks:
        await lead(member, Create(subject="One"))
        member.way.gone = NoAgent("lead", "nothing listens")

        async def come_back() -> None:
            await anyio.sleep(0.1)
            member.way.gone = None

        tasks.start_soon(come_back)
        assert await member.do(Claim()) is not None


async def test_an_answer_that_was_lost_is_asked_for_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    async with member_of(tmp_path) as member, anyio.create_task_group() as tasks:
        member.way.silent = True

        async def speak() -> None:
            await anyio.sleep(0.3)
            member.way.silent = False

        tasks.start_soon(speak)
        await member.do(Create(subject="One"))
        assert member.way.asked.count("team/command") >= 2
        assert (await member.gateway.tasks(TaskQuery())).total == 1


async def test_a_lead_that_is_away_is_looked_for_ever_more_rarely_and_a_call_that_finds_it_ends_the_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MAX_PAUSE_SECONDS", 1000.0)
    monkeypatch.setattr(following, "PAUSE_GROWS", 10_000.0)
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        await member.do(Claim())
        host, member.host.lead = member.host.lead, None
        with pytest.raises(LeadOffline):
            await member.do(Release(task="task-1"))
        await anyio.sleep(0.3)  # it looks for it once more, and then pauses for long
        finds = member.way.finds
        await anyio.sleep(0.3)
        assert member.way.finds == finds
        member.host.lead = host
        await member.do(Release(task="task-1"))
        await lead(member, Claim(task="task-1", owner="member-2"))
        await member.saying("was assigned to you")


async def test_what_was_completed_meanwhile_is_kept_sent_and_told(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        for subject in ("One", "Two"):
            await lead(member, Create(subject=subject))
            await member.do(Claim())
        there, member.host.lead = member.host.lead, None
        for task in ("task-1", "task-2", "task-1"):
            with pytest.raises(LeadOffline, match="is kept here and sent when the lead is back"):
                await member.do(Complete(task=task, result=f"Done with {task}."))
        kept = load(tmp_path)
        assert kept is not None
        assert [queued.command.task for queued in kept.queued] == ["task-2", "task-1"]  # the latest of each
        await anyio.sleep(0.5)  # it is tried again and again
        again = load(tmp_path)
        assert again is not None
        assert again.queued == kept.queued
        assert there is not None
        await there.command(LEAD, "taken-away", Release(task="task-2"))
        member.host.lead = there
        assert "is completed for the whole team now" in (await member.saying("task-1, which")).body
        assert "could not be completed" in (await member.saying("task-2, which")).body
        page = await member.gateway.tasks(TaskQuery(status="completed"))
        assert [(row.id, row.result) for row in page.rows] == [("task-1", "Done with task-1.")]
        with anyio.fail_after(SECONDS):
            while load(tmp_path) is None or load(tmp_path).queued:  # type: ignore[union-attr]  # noqa: ASYNC110
                await anyio.sleep(0.01)


@pytest.mark.parametrize(("silent", "said"), [(False, "Nothing was done"), (True, "is not known")])
async def test_what_is_completed_while_neither_the_lead_nor_the_disk_takes_it_is_not_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool, said: str
) -> None:
    async with member_of(tmp_path) as member:
        await member.do(Create(subject="One"))
        await member.do(Claim(task="task-1"))
        member.way.gone, member.way.silent = (None if silent else NoAgent("lead", "gone")), silent
        full = TeamUnusable(tmp_path, "is on a full disk", "Make room.")
        monkeypatch.setattr("cctailscale.teams.kept.write", Mock(side_effect=full))
        with pytest.raises(LeadOffline, match=said):
            await member.do(Complete(task="task-1"))
        assert member.file.now.queued == ()


async def test_a_full_inbox_keeps_no_member_from_following_and_hears_later_what_became_of_a_kept_call(
    tmp_path: Path,
) -> None:
    async with member_of(tmp_path) as member, anyio.create_task_group() as tasks:
        await lead(member, Create(subject="One"))
        await member.do(Claim())
        member.way.gone = NoAgent("lead", "nothing listens")
        with pytest.raises(LeadOffline):
            await member.do(Complete(task="task-1"))
        member.way.gone, member.full = None, True
        tasks.start_soon(member.run)
        with anyio.fail_after(SECONDS):
            while member.gateway.replica is None or member.gateway.replica.version < 4:  # noqa: ASYNC110 - no event
                await anyio.sleep(0.01)
        assert len(member.file.now.queued) == 1  # for a process that comes after this one
        member.full = False
        await member.saying("task-1, which you completed")
        with anyio.fail_after(SECONDS):
            while member.file.now.queued:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)
        assert len([note for note in member.notes if "which you completed" in note.body]) == 1
        tasks.cancel_scope.cancel()


async def test_what_is_known_outlives_the_process(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        await known_with(member, "task-1")
        await member.do(Claim())
    assert kept_owners(tmp_path) == ["member-2"]


async def test_what_a_call_has_made_of_a_task_is_kept_before_an_event_tells_of_it(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        await known_with(member, "task-1")
        with anyio.fail_after(SECONDS):
            while kept_owners(tmp_path) != [None]:  # noqa: ASYNC110 - a file has no event
                await anyio.sleep(0.01)
        member.way.eventless = True
        await member.do(Claim())
    assert kept_owners(tmp_path) == ["member-2"]


async def test_the_lead_is_asked_for_names_only_until_they_are_known(tmp_path: Path) -> None:
    async with member_of(tmp_path) as member:
        member.keep(await Replica.read(member.gateway))
        async with member.host.peer(3) as other:
            await other.join()
        member.way.asked.clear()
        known = await member.gateway.names({LEAD, "member-2"})
        assert member.way.asked == []
        assert set(known) == {LEAD, "member-2"}
        assert set(await member.gateway.names({LEAD, "member-3"})) == {LEAD, "member-2", "member-3"}
        assert member.way.asked == ["team"]


async def test_a_list_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failed = Replica.save, anyio.Event()

    async def fails_once(self: Replica, folder: Path) -> None:
        if not failed.is_set():
            failed.set()
            raise TeamUnusable(folder, "is on a full disk", "Make room.")
        await save(self, folder)

    monkeypatch.setattr(Replica, "save", fails_once)
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        with anyio.fail_after(SECONDS):
            await failed.wait()
    assert kept_owners(tmp_path) == [None]


async def known_with(member: Member, task: str) -> None:
    """Returns once the member, which follows, knows of the task."""
    with anyio.fail_after(SECONDS):
        while member.gateway.replica is None or not member.gateway.replica.can_be_claimed(task):  # noqa: ASYNC110
            await anyio.sleep(0.01)


def kept_owners(folder: Path) -> list[str | None]:
    known = replica.load(folder)
    return [] if known is None else [row.owner for row in known.page(TaskQuery()).rows]


@pytest.mark.parametrize("lease", ["Infinity", "NaN", "1e300", "-1.5"])
def test_a_lease_that_is_no_duration_is_refused_with_its_document(lease: str) -> None:
    """What cannot be written down again would make the membership's file a damaged one."""
    for document in (
        f'{{"events":[],"version":0,"lease_seconds":{lease}}}',
        (
            f'{{"team":"t","name":"Build","public_key":"{"00" * 32}","lead":"member-1","you":"member-2","version":1,'
            f'"counts":{{"pending":0,"unblocked":0,"in_progress":0,"completed":0}},"members":[],"lease_seconds":{lease}}}'
        ),
        (
            f'{{"team":"t","name":"Build","public_key":"{"00" * 32}","signature":"{"00" * 64}","member":"member-2",'
            f'"token":"{"00" * 32}","version":1,"lease_seconds":{lease}}}'
        ),
    ):
        kind = TeamView if "counts" in document else Joined if "token" in document else EventPage
        kind.from_json(document.replace(lease, "90").encode())
        with pytest.raises(BadDocument, match="lease_seconds"):
            kind.from_json(document.encode())


# ---- the end, and a new beginning


async def test_another_device_with_the_token_goes_on_where_the_first_was(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        await lead(member, Create(subject="One"))
        await member.do(Claim())
        member.way.number = 3
        task = await member.do(Complete(task="task-1"))
        assert task is not None
        assert task.completed_by == "member-2"


async def test_a_token_that_is_not_taken_ends_the_membership(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        member.host.tailnet.logins[3] = "bob@example.com"
        member.host.tailnet.grants = {"cc-tailscale.dev/cap/agent": [{"allow": ["team"]}]}
        member.way.number = 3
        with pytest.raises(TeamEnded, match=r"does not take this session back: The token belongs to"):
            await member.do(Create(subject="One"))


async def test_a_lead_that_cannot_write_down_another_device_just_now_ends_no_membership(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        member.way.number = 3
        member.host.store.fails = "is on a full disk"
        with pytest.raises(AgentRefused, match="The lead cannot keep its team now"):
            await member.do(Create(subject="One"))
        assert member.ended is None
        member.host.store.fails = ""
        task = await member.do(Create(subject="One"))
        assert task is not None
        assert task.created_by == "member-2"


async def test_a_policy_that_turns_the_member_away_is_no_end(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        member.host.tailnet.logins[2] = "bob@example.com"
        with pytest.raises(AgentRefused, match="TS_ALLOW_FROM"):
            await member.do(Create(subject="One"))
        member.host.tailnet.logins[2] = "alice@example.com"
        await member.do(Create(subject="One"))


@pytest.mark.parametrize("how", ["removed", "disbanded"])
async def test_the_end_of_the_membership_ends_the_following_and_each_call(tmp_path: Path, how: str) -> None:
    async with member_of(tmp_path) as member:
        assert member.host.lead is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(member.run)
            await lead(member, Create(subject="One"))
            await (member.host.lead.remove("member-2") if how == "removed" else member.host.lead.disband())
        assert member.ended is not None  # the task has ended by itself
        assert how in str(member.ended)
        for _ in range(2):
            with pytest.raises(TeamEnded, match=how):
                await member.do(Create(subject="Two"))


async def test_what_the_rules_refuse_is_said_and_shows_the_task_to_whom_another_version_was_known(
    tmp_path: Path,
) -> None:
    async with member_of(tmp_path) as member:
        await lead(member, Create(subject="One"))
        await lead(member, Claim(task="task-1"))
        with pytest.raises(TeamRefused) as raised:
            await member.do(Claim(task="task-1"))
        assert (raised.value.code, raised.value.present) == ("taken", None)
        with pytest.raises(TeamRefused) as raised:
            await member.do(Claim(task="task-1", version=1))
        assert raised.value.code == "stale"
        assert '"version":2' in (raised.value.present or "")
        with pytest.raises(TeamRefused) as raised:
            await member.gateway.tasks(TaskQuery(owner="nobody"))
        assert raised.value.code == "no_such_member"


async def test_a_member_that_has_left_does_not_come_back_by_itself(tmp_path: Path) -> None:
    async with member_of(tmp_path) as member:
        assert member.host.lead is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(member.run)
            await lead(member, Create(subject="One"))
            await member.do(Claim())
            await member.gateway.leave()
        assert "was left by this session" in str(member.ended)
        assert [row.id for row in member.host.lead.team(LEAD).members] == [LEAD]


async def test_a_call_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    async with followed(tmp_path) as member:
        member.way.silent = True
        with anyio.move_on_after(0.1) as scope:
            await member.do(Complete(task="task-1"))
        assert scope.cancelled_caught
        assert member.file.now.queued == ()
