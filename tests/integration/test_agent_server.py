"""An agent's server on the local tailnet: who may talk to it, and what becomes of a message."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from cctailscale.agents import server as serving
from cctailscale.agents.policy import Policy
from cctailscale.agents.rate import Rate
from cctailscale.agents.store import Limits
from cctailscale.agents.wire import CAPABILITY, PORT, Receipt
from cctailscale.tailnet import listener as listening
from cctailscale.tailnet.device import Device
from tests.callers import (
    ALICE,
    BOB,
    Answerer,
    Stage,
    addresses,
    answering,
    identity,
    joined,
    line,
    message,
    posted,
    until_known,
)


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage.opened(tmp_path_factory.mktemp("devices")) as stage:
        yield stage


@pytest.fixture
async def agent(stage: Stage, tmp_path: Path) -> AsyncIterator[Answerer]:
    """An agent of alice's."""
    async with answering(await stage.device("agent"), tmp_path) as agent:
        yield agent


# ---- who may ---------------------------------------------------------------------------------------------------------


async def test_a_peer_of_the_same_owner_reads_the_card_and_delivers_a_message(stage: Stage, agent: Answerer) -> None:
    friend = await stage.device("friend")
    async with line(friend, agent) as wire:
        card = await wire.get("/v1/agent")
        assert card.status == 200
        assert card.json["name"] == agent.name
        assert card.json["may_message"] is True
        assert card.headers["server"] == "cc-tailscale"
        hello = message()
        delivered = await wire.post(hello)
    assert delivered.status == 202
    receipt = Receipt.from_json(delivered.body)
    assert (receipt.id, receipt.state) == (hello.id, "delivered")
    assert await agent.stored() == [("friend.tail1234.ts.net", "Hello.")]


async def test_over_ipv6_it_is_the_same_peer(stage: Stage, agent: Answerer) -> None:
    async with line(await stage.device("friend"), agent, ipv6=True) as wire:
        assert (await wire.post(message())).status == 202
        assert (await wire.get("/v1/agent", Host=f"[{agent.addresses[1]}]:9321")).status == 200
    assert await agent.stored() == [("friend.tail1234.ts.net", "Hello.")]


STRANGERS = [
    pytest.param((ALICE, ()), (BOB, ()), BOB, id="another owner"),
    pytest.param((ALICE, ()), (ALICE, ("tag:ci",)), "tag:ci", id="a tagged peer of the same person"),
    pytest.param((ALICE, ("tag:ci",)), (ALICE, ()), ALICE, id="the owner of a tagged agent"),
    pytest.param((ALICE, ("tag:ci",)), (ALICE, ("tag:db",)), "tag:db", id="two different tags"),
]


@pytest.mark.parametrize(("mine", "theirs", "to_add"), STRANGERS)
async def test_a_stranger_gets_the_reason_and_what_to_add_everywhere(
    stage: Stage, tmp_path: Path, mine: tuple[str, tuple[str, ...]], theirs: tuple[str, tuple[str, ...]], to_add: str
) -> None:
    agent_device, stranger = [
        await stage.device(f"{user.partition('@')[0]}-{'-'.join(tags).replace(':', '-')}x", user, tags)
        for user, tags in (mine, theirs)
    ]
    await until_known(agent_device, stranger)
    async with answering(agent_device, tmp_path) as agent, line(stranger, agent) as wire:
        answers = [
            await wire.get("/v1/agent"),
            await wire.post(message()),
            await wire.get("/v1/messages/x"),
            await wire.get("/v1/whatever"),
            await wire.get("/v2/agent"),
        ]
        for answer in answers:
            assert (answer.status, answer.error) == (403, "refused")
            assert f"TS_ALLOW_FROM={to_add}," in answer.json["message"]
            assert CAPABILITY in answer.json["message"]
        assert await agent.stored() == []
        assert agent.server.refusals.count == 5
        (refused,) = agent.server.refusals.peers
        assert (refused.peer.node_id, refused.count) == ((await identity(stranger)).node.stable_id, 5)


async def test_a_shared_tag_and_an_entry_in_allow_from_each_open_it(stage: Stage, tmp_path: Path) -> None:
    one, other = await stage.device("ci-1", tags=("tag:ci", "tag:x")), await stage.device("ci-2", tags=("tag:ci",))
    bob = await stage.device("bob", BOB)
    await until_known(one, other)
    await until_known(one, bob)
    async with answering(one, tmp_path, policy=Policy((BOB,))) as agent:
        for peer in (other, bob):
            async with line(peer, agent) as wire:
                assert (await wire.post(message())).status == 202
        assert {name for name, _ in await agent.stored()} == {"ci-2.tail1234.ts.net", "bob.tail1234.ts.net"}


def granted(stage: Stage, *allow: str, **how: Any) -> None:
    """The tailnet's policy grants bob this at alice's agent; without a word, nothing."""
    app = {CAPABILITY: [{"allow": list(allow)}]}
    grants = [{"src": [BOB], "dst": ["agent"], "app": app}] if allow else []
    stage.tailnet.admin("PUT", "/policy", {"grants": grants} | how)


async def capability(agent: Answerer, peer: Device, wanted: bool) -> None:
    """Returns once the agent's node has heard of the change: no event tells of it."""
    address = addresses(await identity(peer))[0]
    with anyio.fail_after(5):
        while (  # noqa: ASYNC110 - the node says nothing of it by itself
            (who := await agent.device.whois(address)) is None or (CAPABILITY in who.capabilities) != wanted
        ):
            await anyio.sleep(0.005)


@pytest.mark.parametrize(
    "how", [{"mode": "filter"}, {"mode": "filter", "single": True}, {"mode": "full"}], ids=["filter", "one", "full"]
)
async def test_a_grant_that_is_revoked_holds_no_longer_on_an_open_connection(
    stage: Stage, agent: Answerer, how: dict[str, Any]
) -> None:
    bob = await stage.device("bob", BOB)
    await until_known(agent.device, bob)
    async with line(bob, agent) as wire:
        assert (await wire.post(message("before"))).status == 403
        granted(stage, "message", **how)
        await capability(agent, bob, True)
        assert (await wire.post(message("granted"))).status == 202
        granted(stage, **how)
        await capability(agent, bob, False)
        assert (await wire.post(message("revoked"))).status == 403
    assert await agent.stored() == [("bob.tail1234.ts.net", "granted")]
    stage.tailnet.admin("PUT", "/policy", {})


async def test_who_may_only_work_in_the_team_reads_the_card_and_may_not_message(stage: Stage, agent: Answerer) -> None:
    bob = await stage.device("bob", BOB)
    granted(stage, "team")
    await capability(agent, bob, True)
    async with line(bob, agent) as wire:
        card = await wire.get("/v1/agent")
        assert (card.status, card.json["may_message"]) == (200, False)
        assert (await wire.post(message())).status == 403
    stage.tailnet.admin("PUT", "/policy", {})


async def test_what_a_body_or_a_header_says_about_its_sender_is_ignored(stage: Stage, agent: Answerer) -> None:
    claimed = {"from": "boss", "sender": {"node_id": "nBOSS", "name": "boss"}, "node_id": "nBOSS", "login": "boss@x"}
    document = json.dumps(json.loads(message().to_json()) | claimed).encode()
    headers = {"Tailscale_User_Login": "boss@x", "X_Forwarded_For": "100.64.0.99", "Forwarded": "for=100.64.0.99"}
    async with line(await stage.device("friend"), agent) as wire:
        assert (await wire.post(document, **headers)).status == 202
    assert await agent.stored() == [("friend.tail1234.ts.net", "Hello.")]


async def test_two_peers_on_500_connections_are_never_taken_for_each_other(
    stage: Stage, agent: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = 250
    monkeypatch.setattr(listening, "MAX_PER_ADDRESS", each)
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 2 * each)
    callers = {f"{name}.tail1234.ts.net": await stage.device(name) for name in ("friend", "pal")}
    await until_known(agent.device, callers["pal.tail1234.ts.net"])
    open_now, all_open = 0, anyio.Event()

    async def send(name: str) -> None:
        nonlocal open_now
        async with line(callers[name], agent) as wire:
            assert (await wire.get("/v1/agent")).status == 200  # the connection is through
            open_now += 1
            if open_now == 2 * each:
                all_open.set()
            await all_open.wait()
            assert (await wire.post(message(name))).status == 202

    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            for name in callers:
                for _ in range(each):
                    tasks.start_soon(send, name)
    stored = await agent.stored()
    assert len(stored) == 2 * each
    assert [said for sender, said in stored if said != sender] == []


# ---- messages --------------------------------------------------------------------------------------------------------


async def test_a_receipt_tells_of_the_reading_and_only_its_sender_gets_it(stage: Stage, agent: Answerer) -> None:
    sent = message()
    async with line(await stage.device("friend"), agent) as wire:
        await wire.post(sent)
        assert (await wire.get(f"/v1/messages/{sent.id}")).json["state"] == "delivered"
        await agent.inbox.take(1)
        receipt = await wire.get(f"/v1/messages/{sent.id}")
        assert (receipt.status, receipt.json["state"]) == (200, "read")
        assert (await wire.get("/v1/messages/another")).error == "not_found"
    pal = await stage.device("pal")
    await until_known(agent.device, pal)
    async with line(pal, agent) as wire:
        answer = await wire.get(f"/v1/messages/{sent.id}")
        assert (answer.status, answer.error) == (404, "not_found")


async def test_a_retry_after_an_answer_that_was_lost_is_stored_once(stage: Stage, agent: Answerer) -> None:
    sent, changed = message(), agent.inbox.changed
    friend = await stage.device("friend")
    async with line(friend, agent) as wire:
        wire.send(posted(agent, sent))
        await wire.writer.drain()
        with anyio.fail_after(5):
            await changed.wait()
        wire.reset()
    async with line(friend, agent) as wire:
        again = await wire.post(sent)
        assert again.status == 202
        other = await wire.post(message("Another text.", id=sent.id))
        assert (other.status, other.error) == (409, "id_taken")
    assert await agent.stored() == [("friend.tail1234.ts.net", "Hello.")]


async def test_ids_count_for_each_sender_alone(stage: Stage, agent: Answerer) -> None:
    for name in ("friend", "pal"):
        device = await stage.device(name)
        await until_known(agent.device, device)
        async with line(device, agent) as wire:
            assert (await wire.post(message(name, id="same"))).status == 202
    assert [body for _, body in await agent.stored()] == ["friend", "pal"]


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_sender_whose_clock_is_wrong_is_received_at_our_time(stage: Stage, agent: Answerer, hours: int) -> None:
    theirs = datetime.now(UTC) + timedelta(hours=hours)
    async with line(await stage.device("friend"), agent) as wire:
        receipt = await wire.post(message().model_copy(update={"sent": theirs}))
    assert abs(Receipt.from_json(receipt.body).delivered - datetime.now(UTC)) < timedelta(seconds=10)
    (stored,) = await agent.inbox.unread(1)
    assert stored.sent == theirs
    assert abs(stored.received - datetime.now(UTC)) < timedelta(seconds=10)


async def test_a_full_inbox_is_said_and_a_retry_of_what_is_in_it_is_not_refused(stage: Stage, tmp_path: Path) -> None:
    async with (
        answering(await stage.device("agent"), tmp_path, limits=Limits(unread=1)) as agent,
        line(await stage.device("friend"), agent) as wire,
    ):
        first = message()
        assert (await wire.post(first)).status == 202
        full = await wire.post(message())
        assert (full.status, full.error) == (507, "inbox_full")
        assert (await wire.post(first)).status == 202


async def test_a_disk_that_takes_nothing_more_is_said_without_its_path_and_nothing_is_acknowledged(
    stage: Stage, agent: Answerer
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with line(await stage.device("friend"), agent) as wire:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            answer = await wire.post(message("lost"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (answer.status, answer.error) == (507, "inbox_unusable")
        assert "/" not in answer.json["message"]
        assert await agent.stored() == []
        assert (await wire.post(message("kept"))).status == 202
    assert [body for _, body in await agent.stored()] == ["kept"]


async def test_a_sender_that_sends_too_much_is_told_when_to_go_on_and_others_are_not_held_up(
    stage: Stage, tmp_path: Path
) -> None:
    now = 0.0
    friend, pal = await stage.device("friend"), await stage.device("pal")
    async with (
        answering(await stage.device("agent"), tmp_path, rate=Rate(clock=lambda: now)) as agent,
        line(friend, agent) as wire,
        line(pal, agent) as other,
    ):
        answers = [await wire.post(message()) for _ in range(21)]
        assert [answer.status for answer in answers] == [202] * 20 + [429]
        assert answers[-1].headers["retry-after"] == "1"
        assert answers[-1].json["retry_after_ms"] == 1000
        assert (await wire.get("/v1/agent")).status == 200  # only messages count
        assert (await other.post(message())).status == 202
        now = 1.0
        assert (await wire.post(message())).status == 202
        assert (await wire.post(message())).status == 429


# ---- lives -----------------------------------------------------------------------------------------------------------


async def test_a_receiver_that_goes_before_it_has_stored_a_message_acknowledges_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        device = await stack.enter_async_context(joined(stage.tailnet, tmp_path, "leaving"))
        friend = await stage.device("friend")
        await until_known(friend, device)
        agent = await stack.enter_async_context(answering(device, tmp_path))
        wire = await stack.enter_async_context(line(friend, agent))
        wire.send(posted(agent, message())[:-5])
        await wire.writer.drain()
        await device.handle.close()
        # Whether its end still gets out is a matter of luck, as with a crash; the sender has a time-out of its own.
        with anyio.move_on_after(1):
            assert await wire.ended() == b""
        assert wire.reader._buffer == b""  # type: ignore[attr-defined] # StreamReader shows it in no other way
        assert await agent.stored() == []


async def test_a_replaced_device_goes_on_with_the_same_server(stage: Stage, tmp_path: Path, agent: Answerer) -> None:
    friend = await stage.device("friend")
    async with joined(stage.tailnet, tmp_path, "second") as second:
        await until_known(friend, second)
        await until_known(second, friend)
        me = await identity(second)
        async with listening.Listener.opened(second.handle, PORT) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, partial(agent.server.serve, second))
            there = Answerer(second, agent.server, agent.inbox, listener, me.node.name, addresses(me))
            async with line(friend, there) as wire, line(friend, agent) as old:
                assert (await wire.post(message("new"))).status == 202
                assert (await old.post(message("old"))).status == 202
                assert (await old.get("/v1/agent", Host=there.name)).status == 421  # each knows its own names
            tasks.cancel_scope.cancel()
    assert [body for _, body in await agent.stored()] == ["new", "old"]


async def test_a_port_can_be_listened_on_again_as_soon_as_its_listener_has_ended(stage: Stage) -> None:
    device = await stage.device("again")
    for _ in range(50):
        async with listening.Listener.opened(device.handle, PORT):
            pass


async def test_a_message_that_is_being_stored_when_the_server_ends_is_stored(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = anyio.Event()
    async with answering(await stage.device("agent"), tmp_path) as agent:
        put = agent.inbox.put

        async def slow(*arguments: Any) -> Receipt:
            begun.set()
            await asyncio.sleep(0.1)
            return await put(*arguments)

        monkeypatch.setattr(agent.inbox, "put", slow)
        async with line(await stage.device("friend"), agent) as wire:
            wire.send(posted(agent, message()))
            with anyio.fail_after(5):
                await begun.wait()
            began = anyio.current_time()
    assert 0.05 < anyio.current_time() - began < serving.FINISH_SECONDS
    async with answering(await stage.device("agent"), tmp_path) as agent:
        assert await agent.stored() == [("friend.tail1234.ts.net", "Hello.")]


async def test_a_server_that_ends_leaves_no_connection_and_no_descriptor(stage: Stage, tmp_path: Path) -> None:
    friend = await stage.device("friend")
    counts = []
    for _ in range(3):
        async with answering(await stage.device("agent"), tmp_path) as agent, AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(line(friend, agent)) for _ in range(10)]
            for wire in lines:
                assert (await wire.get("/v1/agent")).status == 200
        await _settled()
        counts.append(_descriptors())
    assert counts[0] == counts[1] == counts[2]


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _settled() -> None:
    """Returns once the number of descriptors has stopped falling: Go closes its ends a moment later."""
    before, since = _descriptors(), anyio.current_time()
    while anyio.current_time() - since < 0.3:
        await anyio.sleep(0.02)
        if (now := _descriptors()) != before:
            before, since = now, anyio.current_time()
