"""What a lead answers to others, on socket pairs: the real server, with devices played by the test."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import pytest

from cctailscale.agents import connection, hosting
from cctailscale.agents.agent import Agent
from cctailscale.agents.policy import Policy
from cctailscale.agents.server import FINISH_SECONDS
from cctailscale.agents.wire import CAPABILITY, AgentCard, Refusal
from cctailscale.audit import OFF
from cctailscale.documents import MAX_DOCUMENT_BYTES, Document
from cctailscale.errors import TimedOut
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.listener import MAX_CONNECTIONS
from cctailscale.tailnet.models import WhoIs
from cctailscale.tailnet.node import Node
from cctailscale.teams.commands import Claim, Create, Release
from cctailscale.teams.keys import is_proven
from cctailscale.teams.lead import Lead
from cctailscale.teams.model import MAX_MEMBERS
from cctailscale.teams.wire import (
    CommandRequest,
    EventPage,
    JoinRequest,
    LeaveRequest,
    OfTeam,
    Proof,
    ProofRequest,
    TaskPage,
    TeamView,
)
from tests.hosted import ALICE, TEAM, Hosted, Peer, hosted
from tests.leading import CREATE, KEY, LEAD, LEAD_NODE, NONCE, made, owners

REQUESTS: list[tuple[str, str, Document | None]] = [
    ("POST", "/v1/team/leave", LeaveRequest(team=TEAM)),
    ("POST", "/v1/team/command", CommandRequest(team=TEAM, id="one", command=CREATE)),
    ("GET", f"/v1/team?team={TEAM}", None),
    ("GET", f"/v1/team/tasks?team={TEAM}", None),
    ("GET", f"/v1/team/events?team={TEAM}&after=0", None),
]
ALL = [
    ("POST", "/v1/team/join", JoinRequest(nonce=NONCE)),
    ("POST", "/v1/team/proof", ProofRequest(team=TEAM, nonce=NONCE)),
    *REQUESTS,
]
each = pytest.mark.parametrize(("method", "path", "document"), REQUESTS, ids=[path[:20] for _, path, _ in REQUESTS])
each_of_all = pytest.mark.parametrize(("method", "path", "document"), ALL, ids=[path[:20] for _, path, _ in ALL])


# ---- who may


@each_of_all
async def test_a_stranger_is_refused_by_the_policy(
    tmp_path: Path, method: str, path: str, document: Document | None
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        host.tailnet.logins[2] = "mallory@example.com"
        assert await peer.refused(method, path, document) == (403, "refused")
        assert host.server.refusals.count == 1
        assert host.lead is not None
        assert host.lead.facts.version == 0


@each
async def test_whoever_has_not_joined_neither_reads_nor_writes(
    tmp_path: Path, method: str, path: str, document: Document | None
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        assert await peer.refused(method, path, document) == (403, "not_member")
        assert host.store.commits == []


@each
async def test_whoever_was_removed_neither_reads_nor_writes(
    tmp_path: Path, method: str, path: str, document: Document | None
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert host.lead is not None
        await host.lead.remove("host2")
        assert await peer.refused(method, path, document) == (403, "removed")
        assert len(host.store.commits) == 2


async def test_whoever_was_removed_cannot_join_again(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer, host.peer(3) as replaced:
        token = (await peer.join()).token
        assert host.lead is not None
        await host.lead.remove("host2")
        assert await peer.refused("POST", "/v1/team/join", JoinRequest(nonce=NONCE)) == (403, "removed")
        again = JoinRequest(nonce=NONCE, token=token)
        assert await replaced.refused("POST", "/v1/team/join", again) == (403, "removed")


@each
async def test_a_disbanded_team_is_gone(tmp_path: Path, method: str, path: str, document: Document | None) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert host.lead is not None
        await host.lead.disband()
        assert await peer.refused(method, path, document) == (410, "disbanded")
        assert await peer.refused("POST", "/v1/team/join", JoinRequest(nonce=NONCE)) == (410, "disbanded")


@each_of_all
async def test_without_a_team_there_is_none_under_any_path(
    tmp_path: Path, method: str, path: str, document: Document | None
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        host.lead = None
        assert await peer.refused(method, path, document) == (404, "no_such_team")


@pytest.mark.parametrize(("method", "path", "document"), ALL[1:], ids=[path[:20] for _, path, _ in ALL[1:]])
async def test_another_team_than_the_one_that_is_led_is_not_there(
    tmp_path: Path, method: str, path: str, document: Document | None
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        other = document.model_copy(update={"team": "another"}) if document else None
        assert await peer.refused(method, path.replace(TEAM, "another"), other) == (404, "no_such_team")


async def test_a_grant_for_messages_is_none_for_the_team(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        host.tailnet.logins[2] = "bob@example.com"
        host.tailnet.grants = {CAPABILITY: [{"allow": ["message"]}]}
        assert (await peer.ask("GET", "/v1/agent"))[0] == 200
        assert await peer.refused("POST", "/v1/team/join", JoinRequest(nonce=NONCE)) == (403, "refused")


# ---- joining


async def test_who_joins_is_a_member_by_its_device(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer, host.peer(3) as other:
        answer = await peer.join()
        view = await peer.get(TeamView, "/v1/team")
        assert (view.you, view.lead, view.name) == (answer.member, LEAD, "Build")
        (me,) = [row for row in view.members if row.id == answer.member]
        assert (me.identity.node_id, me.identity.name, me.identity.login) == ("n2", "host2.tail.ts.net", ALICE)
        assert await other.refused("GET", f"/v1/team?team={TEAM}") == (403, "not_member")


async def test_a_token_is_good_for_its_owners_devices_alone(tmp_path: Path) -> None:
    async with hosted(tmp_path, Policy(("*",))) as host, host.peer() as peer, host.peer(3) as replaced:
        answer = await peer.join()
        await peer.command("create", CREATE)
        await peer.command("claim", Claim())
        async with host.peer(4) as thief:
            host.tailnet.logins[4] = "mallory@example.com"
            stolen = JoinRequest(nonce=NONCE, token=answer.token)
            assert await thief.refused("POST", "/v1/team/join", stolen) == (403, "not_member")
        assert (await replaced.join(answer.token)).member == answer.member
        assert await peer.refused("GET", f"/v1/team?team={TEAM}") == (403, "not_member")
        assert host.lead is not None
        assert owners(host.lead) == {"task-1": answer.member}


async def test_a_lead_proves_itself_to_the_one_who_asks_and_to_nobody_else(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        proof = await peer.post(Proof, "/v1/team/proof", ProofRequest(team=TEAM, nonce=NONCE))
        said = {"team": TEAM, "nonce": NONCE, "lead": LEAD_NODE}
        assert is_proven(KEY.public, proof.signature, **said, asker="n2")
        assert not is_proven(KEY.public, proof.signature, **said, asker="n3")
        assert not is_proven(KEY.public, proof.signature, **(said | {"lead": "n9"}), asker="n2")


async def test_who_leaves_is_no_member_any_more(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        left = await peer.post(OfTeam, "/v1/team/leave", LeaveRequest(team=TEAM))
        assert left.team == TEAM
        assert await peer.refused("GET", f"/v1/team?team={TEAM}") == (403, "not_member")


# ---- what is sent

BAD_QUERIES = [
    "", "team", "team=T", "after=1", "team=T&after=", "team=T&after=-1", "team=T&after=x", "team=T&after=1.5",
    "team=T&after=1&wait=-1", "team=T&after=1&wait=31", "team=T&after=1&wait=nan", "team=T&after=1&&",
    "team=%ff&after=1",
    "team=T%00&after=1", "team=T&after=1&team=T", "team=T&after=1&x=1", "&".join(["team=T"] * 20),
]  # fmt: skip


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_a_query_that_is_not_sound_is_refused_as_a_whole(tmp_path: Path, query: str) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        path = f"/v1/team/events?{query.replace('T', TEAM)}"
        assert await peer.refused("GET", path) == (400, "bad_document")


@pytest.mark.parametrize(
    "query", ["status=done", "limit=0", "limit=201", "unblocked_only=2", "priority=1", "limit=5&limit=5"]
)
async def test_a_question_for_tasks_has_to_be_sound(tmp_path: Path, query: str) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert await peer.refused("GET", f"/v1/team/tasks?team={TEAM}&{query}") == (400, "bad_document")


@pytest.mark.parametrize(("query", "code"), [("owner=nobody", "no_such_member"), ("cursor=x", "no_such_page")])
async def test_a_question_that_the_rules_refuse_says_which_rule(tmp_path: Path, query: str, code: str) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert await peer.refused("GET", f"/v1/team/tasks?team={TEAM}&{query}") == (409, code)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b"\xff",
        json.dumps({"team": TEAM, "id": "a b", "command": {"action": "claim"}}).encode(),
        json.dumps({"team": TEAM, "id": "one", "command": {"action": "disband"}}).encode(),
        json.dumps({"team": TEAM, "id": "one", "command": {"action": "lapse", "members": {}}}).encode(),
        json.dumps({"team": TEAM, "id": "one", "command": {"action": "create", "subject": "s" * 201}}).encode(),
        json.dumps({"team": TEAM, "id": "one", "command": {"action": "create", "subject": "a\nb"}}).encode(),
        b'{"team":"%s","id":"one","command":{"action":"create","subject":"s","metadata":{"a":NaN}}}' % TEAM.encode(),
        b'{"team":"%s","id":"one","command":{"action":"create","subject":"s","metadata":{"a":1e999}}}' % TEAM.encode(),
        b'{"team":"%s","id":"one","command":{"action":"create","subject":"s","metadata":{"a":%s}}}'
        % (TEAM.encode(), b"[" * 9_000 + b"]" * 9_000),
    ],
)  # fmt: skip
async def test_a_command_that_is_not_sound_is_refused(tmp_path: Path, body: bytes) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert await peer.refused("POST", "/v1/team/command", body) == (400, "bad_document")
        assert len(host.store.commits) == 1


async def test_a_command_of_a_megabyte_is_not_read(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        head = b"POST /v1/team/command HTTP/1.1\r\nHost: host1\r\nContent-Length: 1048576\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(peer.sock, head)
        status, body = await peer.answer()
        assert (status, Refusal.from_json(body).error) == (413, "too_large")


async def test_a_list_may_be_larger_than_what_is_sent(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert host.lead is not None
        for number in range(200):
            await host.lead.command(LEAD, str(number), Create(subject="\N{GRINNING FACE}" * 200))
        page = await peer.get(TaskPage, "/v1/team/tasks", limit=200, unblocked_only="true")
        assert len(page.to_json()) > MAX_DOCUMENT_BYTES
        assert page.total == 200


# ---- commands


async def test_a_retry_after_a_lost_answer_does_not_act_twice(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host:
        async with host.peer() as peer:
            await peer.join()
            first = await peer.command("one", CREATE)
        async with host.peer() as peer:
            assert await peer.command("one", CREATE) == first
            assert (await peer.get(TaskPage, "/v1/team/tasks")).total == 1


async def test_a_command_that_another_sender_replays_is_that_senders_own(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer, host.peer(3) as other:
        await made(cast("Lead", host.lead), 2)
        mine, theirs = (await peer.join()).member, (await other.join()).member
        await peer.command("one", Claim())
        answer = await other.command("one", Claim())
        assert answer.task is not None
        assert host.lead is not None
        assert owners(host.lead) == {"task-1": mine, "task-2": theirs}


async def test_what_the_rules_refuse_is_an_answer(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer, host.peer(3) as other:
        await made(cast("Lead", host.lead))
        winner = (await peer.join()).member
        await other.join()
        await peer.command("claim", Claim(task="task-1"))
        answer = await other.command("claim", Claim(task="task-1"))
        assert answer.refused is not None
        assert answer.refused.code == "taken"
        assert winner in answer.refused.message
        assert answer.refused.task is not None


async def test_a_lead_whose_store_fails_says_so_without_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        host.store.fails = "is on a full disk"
        request = CommandRequest(team=TEAM, id="one", command=CREATE)
        assert await peer.refused("POST", "/v1/team/command", request) == (507, "team_unusable")
        assert "/secret/place" in caplog.text
        host.store.fails = ""
        assert (await peer.command("one", CREATE)).task


# ---- who asks


def counted(host: Hosted, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that WhoIs is asked for from now on."""
    asked: list[str] = []
    whois = host.tailnet.whois

    async def counting(address: str) -> WhoIs:
        asked.append(address)
        return await whois(address)

    monkeypatch.setattr(host.tailnet, "whois", counting)
    return asked


async def test_a_member_that_asks_often_is_looked_up_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        asked = counted(host, monkeypatch)
        for number in range(10):
            await peer.command(str(number), CREATE)
        assert asked == []
        monkeypatch.setattr(connection, "KNOWN_SECONDS", 0.0)
        await peer.command("later", CREATE)
        assert asked == ["100.64.0.2:49152"]


async def test_who_joins_leaves_or_writes_a_message_is_looked_up_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        asked = counted(host, monkeypatch)
        await peer.join()
        await peer.join()
        await peer.ask("GET", "/v1/agent")
        await peer.post(OfTeam, "/v1/team/leave", LeaveRequest(team=TEAM))
        assert len(asked) == 4


async def test_a_member_that_loses_its_right_is_refused_a_second_later_and_gets_in_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        await peer.command("one", CREATE)
        host.tailnet.logins[2] = "mallory@example.com"
        monkeypatch.setattr(connection, "KNOWN_SECONDS", 0.0)
        command = CommandRequest(team=TEAM, id="two", command=CREATE)
        assert await peer.refused("POST", "/v1/team/command", command) == (403, "refused")
        monkeypatch.setattr(connection, "KNOWN_SECONDS", 3600.0)
        assert await peer.refused("POST", "/v1/team/command", command) == (403, "refused")
        host.tailnet.logins[2] = ALICE
        assert (await peer.command("two", CREATE)).task


async def test_who_was_known_is_not_once_there_is_no_answer_to_who_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unanswered(address: str) -> WhoIs:
        raise TimedOut("the node", 5)

    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        monkeypatch.setattr(host.tailnet, "whois", unanswered)
        assert await peer.refused("GET", "/v1/agent") == (503, "not_running")
        command = CommandRequest(team=TEAM, id="one", command=CREATE)
        assert await peer.refused("POST", "/v1/team/command", command) == (503, "not_running")


async def test_what_is_known_of_one_connection_is_nothing_on_another(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer, host.peer(3) as other:
        await peer.join()
        await peer.command("one", CREATE)
        command = CommandRequest(team=TEAM, id="two", command=CREATE)
        assert await other.refused("POST", "/v1/team/command", command) == (403, "not_member")


# ---- the long poll


async def test_an_event_reaches_a_waiting_member_within_50_ms_of_its_commit(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert host.lead is not None
        told: list[float] = []

        async def follow(after: int) -> None:
            page = await peer.get(EventPage, "/v1/team/events", after=after, wait=30)
            told.append(anyio.current_time())
            assert [event.kind for event in page.events] == ["task_created"]

        took = []
        for number in range(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, host.lead.facts.version)
                await anyio.wait_all_tasks_blocked()
                await host.lead.command(LEAD, str(number), CREATE)
                committed = anyio.current_time()
            took.append(told[-1] - committed)
        assert sorted(took)[2] < 0.05  # the middle one, since the machine has more to do


async def test_a_poll_without_news_ends_in_its_time(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        after = (await peer.join()).version
        page = await peer.get(EventPage, "/v1/team/events", after=after, wait=0.05)
        assert (page.events, page.version, page.lease_seconds) == ((), after, 90)


async def polled(peer: Peer, after: int, pages: list[EventPage]) -> None:
    """Adds the next page past `after`, once there is one."""
    pages.append(await peer.get(EventPage, "/v1/team/events", after=after, wait=30))


async def test_a_follower_that_hurries_gets_more_in_each_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "PAGES_AT_ONCE", 2)
    monkeypatch.setattr(hosting, "GATHER_SECONDS", 0)
    monkeypatch.setattr(hosting, "PAUSE_SECONDS", (2, 2))
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert host.lead is not None
        pages: list[EventPage] = []

        for burst in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(polled, peer, host.lead.facts.version, pages)
                await anyio.wait_all_tasks_blocked()
                for number in range(20):
                    await host.lead.command(LEAD, f"{burst}-{number}", CREATE)
        assert len(pages[0].events) < 20
        assert len(pages[1].events) < 20
        assert len(pages[2].events) == 20


async def test_many_events_in_a_row_go_out_in_one_page_and_a_single_one_at_once(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        after = (await peer.join()).version
        assert host.lead is not None
        pages: list[EventPage] = []

        for count in (1, 2 * hosting.MANY_EVENTS):
            began = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(polled, peer, after, pages)
                await anyio.wait_all_tasks_blocked()
                for number in range(count):
                    await host.lead.command(LEAD, f"{count}-{number}", CREATE)
            assert len(pages[-1].events) == count
            waited = anyio.current_time() - began
            assert waited < 0.05 if count == 1 else waited >= hosting.PAUSE_SECONDS[0]
            after = pages[-1].version


async def test_a_follower_that_was_away_catches_up_with_one_page(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        after = (await peer.join()).version
        assert host.lead is not None
        for number in range(500):
            await host.lead.command(LEAD, f"{number}", CREATE)
        page = await peer.get(EventPage, "/v1/team/events", after=after, wait=30)
        assert len(page.events) == 500
        assert page.version == host.lead.facts.version


async def test_a_follower_that_waits_for_nothing_gets_no_more_pages_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "PAGES_AT_ONCE", 1)
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        began = anyio.current_time()
        for _ in range(4):
            await peer.get(EventPage, "/v1/team/events", after=0)
        assert anyio.current_time() - began >= 3 * hosting.PAUSE_SECONDS[0]


async def test_what_has_concerned_a_follower_gets_it_no_page_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "PAGES_AT_ONCE", 1)
    async with hosted(tmp_path) as host, host.peer() as peer:
        await peer.join()
        assert host.lead is not None
        await made(host.lead)
        await host.lead.command(LEAD, "assign", Claim(task="task-1", owner="member-2"))
        began = anyio.current_time()
        for _ in range(14):
            page = await peer.get(EventPage, "/v1/team/events", after=0)
            assert page.events[-1].kind == "task_assigned"
        assert anyio.current_time() - began >= 2 * 60 / 300 - 0.01


async def test_what_concerns_a_follower_reaches_it_at_once_however_many_pages_it_has_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "PAGES_AT_ONCE", 1)
    monkeypatch.setattr(hosting, "PAUSE_SECONDS", (60, 60))
    async with hosted(tmp_path) as host, host.peer() as peer:
        after = (await peer.join()).version
        assert host.lead is not None
        await host.lead.command(LEAD, "one", CREATE)
        after = (await peer.get(EventPage, "/v1/team/events", after=after)).version
        pages: list[EventPage] = []

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(polled, peer, after, pages)
                await anyio.wait_all_tasks_blocked()
                await host.lead.command(LEAD, "two", CREATE)
                await anyio.wait_all_tasks_blocked()
                assert pages == []
                await host.lead.command(LEAD, "assign", Claim(task="task-1", owner="member-2"))
        assert [event.kind for event in pages[0].events] == ["task_created", "task_assigned"]
        # What has happened before it asked is not waited for either.
        await host.lead.command(LEAD, "release", Release(task="task-1"))
        with anyio.fail_after(5):
            page = await peer.get(EventPage, "/v1/team/events", after=pages[0].version, wait=30)
        assert [event.kind for event in page.events] == ["task_released"]


async def polling(host: Hosted, peer: Peer, after: int) -> None:
    """A poll that has begun to wait."""
    request = f"GET /v1/team/events?team={TEAM}&after={after}&wait=30 HTTP/1.1\r\nHost: host1\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(peer.sock, request.encode())
    with anyio.fail_after(5):
        while not waiting(host):
            await anyio.lowlevel.checkpoint()


def waiting(host: Hosted) -> bool:
    assert host.lead is not None
    return host.lead._moved.statistics().tasks_waiting > 0


async def test_a_poll_ends_with_its_connection(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        after = (await peer.join()).version
        await polling(host, peer, after)
        peer.sock.close()
        with anyio.fail_after(5):
            while waiting(host):
                await anyio.lowlevel.checkpoint()


async def test_a_server_that_ends_waits_for_no_poll(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with anyio.create_task_group() as connected:
            async with hosted(tmp_path) as host:
                for sock in (ours, theirs):
                    sock.setblocking(False)
                connected.start_soon(host.server.serve, cast("Device", host.tailnet), ours, "100.64.0.2:49152")
                peer = Peer(theirs)
                await polling(host, peer, (await peer.join()).version)
                began = anyio.current_time()
            assert anyio.current_time() - began < FINISH_SECONDS / 2
            status, body = await peer.answer()
            assert (status, Refusal.from_json(body).error) == (503, "not_running")
            connected.cancel_scope.cancel()


async def test_a_poll_that_waits_is_told_when_the_team_is_disbanded(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        after = (await peer.join()).version
        await polling(host, peer, after)
        assert host.lead is not None
        await host.lead.disband()
        status, body = await peer.answer()
        assert status == 200
        assert [event.kind for event in EventPage.from_json(body).events] == ["disbanded"]


async def test_each_request_of_a_member_keeps_its_lease(tmp_path: Path) -> None:
    async with hosted(tmp_path) as host, host.peer() as peer:
        member = (await peer.join()).member
        assert host.lead is not None
        heard: list[str] = []
        host.lead.heard = heard.append  # type: ignore[method-assign]
        for method, path, document in reversed(REQUESTS):
            await peer.ask(method, path, document.to_json() if document else None)
        assert heard == [member] * len(REQUESTS)


async def test_a_card_names_the_team_as_one_line() -> None:
    async with anyio.create_task_group() as tasks:
        agent = Agent(cast("Node", SimpleNamespace(hostname="agent")), tasks, OFF)
        assert agent.card().team is None
        agent.team = "Build\nit" + "!" * 100
        assert (agent.card().team or "").startswith("Build it!!")
        assert AgentCard.from_json(agent.card().to_json()).team == agent.card().team


def test_every_member_of_a_full_team_has_a_connection_to_wait_on_and_one_to_ask_on() -> None:
    assert 2 * MAX_MEMBERS < MAX_CONNECTIONS
