"""Messages between real processes: found, delivered, read, answered, and refused where the policy says so."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Principal
from cctailscale.agents.store import LIMITS
from cctailscale.agents.wire import Message
from cctailscale.config import load_settings
from tests.agent import Agent
from tests.inprocess import event
from tests.localnet import Localnet
from tests.scripted import ScriptedPeer
from tests.talking import (
    BOUND,
    agents,
    answer,
    answering,
    checked,
    joined,
    outcomes,
    receipt,
    refusal,
    scripted,
    sent,
    settings,
)

BOB = {"user": "bob@example.com", "reusable": True, "ephemeral": True}


@pytest.fixture(scope="module")
async def ann(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    """An agent that only sends."""
    async with joined(settings(tailnet, tmp_path_factory.mktemp("module"), "ann")) as (ann, _):
        yield ann


@pytest.fixture(scope="module")
async def mute(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ScriptedPeer]:
    """A peer that takes part in the protocol as a test says."""
    async with scripted(tailnet, tmp_path_factory.mktemp("scripted"), "cc-scripted") as peer:
        yield peer


def full_name(tailnet: Localnet, name: str) -> str:
    return f"{name}.{tailnet.magic_dns_suffix}"


async def test_two_agents_find_each_other_and_talk(tailnet: Localnet, tmp_path: Path) -> None:
    async with (
        joined(settings(tailnet, tmp_path, "anna")) as (ann, her),
        joined(settings(tailnet, tmp_path, "ben")) as (ben, his),
    ):
        listed = await answering(ann, his)
        (row,) = [row for row in listed["agents"] if row["name"] == his]
        assert row["project"] == "ben-project"
        assert row["owner"] == "alice@example.com"
        assert row["we_may_message_it"]
        assert row["it_may_message_this_agent"]
        assert listed["agents"][0]["this_agent"]

        question = await sent(ann, to=his, subject="Port?", body="Which port does the API have?")
        assert question["delivered_count"] == 1
        text = await checked(ben)
        assert f"From {her} (alice@example.com), verified" in text
        assert "Which port does the API have?" in text
        (number,) = re.findall(r"\bid ([\w-]+);", text)
        assert number == question["id"]

        answered = await sent(ben, to=her, subject="Re: Port?", body="8080", in_reply_to=number)
        text = await checked(ann)
        assert "8080" in text
        assert f"in reply to {number}" in text
        assert re.search(rf"{number} to {re.escape(his)}: read ", text)
        assert answered["thread"]
        assert "No new messages." in await checked(ann)


async def test_the_tools_have_the_parameters_and_defaults_that_are_promised(ann: Agent) -> None:
    tools = {tool["name"]: tool for tool in (await ann.request("tools/list"))["tools"]}
    promised = {
        "tailscale_agents": {"limit": 50, "status": None},
        "tailscale_send_message": {"to": None, "subject": None, "body": None, "in_reply_to": None, "id": None},
        "tailscale_check_messages": {"wait_seconds": 0, "limit": 20, "include_read": False, "thread": None},
    }
    for name, parameters in promised.items():
        schema = tools[name]["inputSchema"]
        assert {key: spec.get("default") for key, spec in schema["properties"].items()} == parameters
        assert not tools[name]["annotations"]["readOnlyHint"]
        assert not tools[name]["annotations"]["destructiveHint"]
    assert tools["tailscale_send_message"]["inputSchema"]["required"] == ["to", "subject", "body"]
    assert tools["tailscale_check_messages"]["inputSchema"]["properties"]["wait_seconds"]["maximum"] == 300
    assert "outputSchema" not in tools["tailscale_check_messages"]  # prose, between marks


# ---- what becomes of each copy ---------------------------------------------------------------------------------------


async def test_each_recipient_has_an_outcome_and_each_device_one_copy(
    tailnet: Localnet, ann: Agent, tmp_path: Path
) -> None:
    async with joined(settings(tailnet, tmp_path, "ben")) as (ben, his):
        await answering(ann, his)
        me = (await ann.status())["magic_dns_name"]
        device = tailnet.node(his.partition(".")[0])
        ipv4, ipv6 = device["addresses"]
        short = his.partition(".")[0]
        to = [his, "web", short, ipv4, "nowhere", ipv6, me, "100.64.99.99", "not a name", f"{short}.", f"{his}:9321"]
        result = await sent(ann, to=to, subject="Build", body="Is it green?")
        told = {one["to"]: one for one in result["recipients"]}
        assert len(told) == len(result["recipients"]) == 6
        assert result["delivered_count"] == 1
        assert told[his]["outcome"] == "delivered"
        assert told[his]["delivered"]
        web = told[full_name(tailnet, "web")]
        assert web["outcome"] == "no such agent"
        assert "nothing listens on its port for agents" in web["explanation"]
        assert told["nowhere"]["outcome"] == "no such device"
        assert told["100.64.99.99"]["outcome"] == "no such device"
        assert told["not a name"]["outcome"] == "no such device"
        assert told[me] == {"to": me, "outcome": "failed", "explanation": "That is this agent itself."}
        assert (await checked(ben)).startswith("1 message(s)")


async def test_a_message_that_nobody_receives_is_an_error_that_says_why_and_how_to_send_it_again(
    tailnet: Localnet, ann: Agent
) -> None:
    text = await ann.fail("tailscale_send_message", to=["web", "nowhere"], subject="Build", body="x", id="mine-1")
    assert text.startswith("Nobody is known to have received the message: ")
    assert f"{full_name(tailnet, 'web')}: no such agent. " in text
    assert "nowhere: no such device. " in text
    assert 'id="mine-1"' in text
    me = (await ann.status())["magic_dns_name"]
    assert "this agent itself" in await ann.fail("tailscale_send_message", to=me, subject="Build", body="x")


async def test_a_device_that_is_offline_is_said_at_once_and_the_message_is_not_kept(
    tailnet: Localnet, ann: Agent, tmp_path: Path
) -> None:
    environ = settings(tailnet, tmp_path, "away", TS_EPHEMERAL="false")
    async with joined(environ) as (away, its):
        await answering(ann, its)
        after = tailnet.last_event()
        assert await away.stop() == 0
    await event(tailnet, "offline", its.partition(".")[0], after=after)
    began = time.monotonic()
    async with asyncio.timeout(BOUND):
        while "offline" not in (
            text := await ann.fail("tailscale_send_message", to=its, subject="Build", body="lost")
        ):  # the netmap comes a moment later than the event
            pass
    assert f"{its}: offline. {its} is offline. The message is not kept for it" in text
    assert time.monotonic() - began < BOUND
    async with joined(environ) as (away, _):
        await answering(ann, its)
        assert "No new messages." in await checked(away)


async def test_a_peer_of_another_owner_is_refused_and_both_sides_are_told(
    tailnet: Localnet, ann: Agent, tmp_path: Path
) -> None:
    me = (await ann.status())["magic_dns_name"]
    async with joined(settings(tailnet, tmp_path, "bob", TS_AUTHKEY=tailnet.key(**BOB))) as (bob, his):
        async with asyncio.timeout(BOUND):
            while not [row for row in (await agents(ann))["silent"] if row["name"] == his and "owner" in row["why"]]:
                pass
        for _ in range(2):
            text = await ann.fail("tailscale_send_message", to=his, subject="Build", body="x")
        assert f"{his}: refused. It says: {me} of alice@example.com may not send messages to this agent" in text
        assert "TS_ALLOW_FROM=alice@example.com" in text
        told = await checked(bob)
        assert "No new messages." in told
        assert re.search(rf"- {re.escape(me)} \(alice@example\.com\), \d+ time\(s\): ", told)
        (refused,) = re.findall(r"(\d+) request\(s\) were refused", told)
        assert int(refused) >= 3  # the list of agents, and two messages

    allowing = {"TS_AUTHKEY": tailnet.key(**BOB), "TS_ALLOW_FROM": "alice@example.com"}
    async with joined(settings(tailnet, tmp_path, "rob", **allowing)) as (rob, his):
        (row,) = [row for row in (await answering(ann, his))["agents"] if row["name"] == his]
        assert (row["owner"], row["we_may_message_it"], row["it_may_message_this_agent"]) == (
            "bob@example.com",
            True,
            False,
        )
        assert await outcomes(ann, his) == {his: "delivered"}
        assert "Is it green?" in await checked(rob)
        assert f"{me}: refused." in await rob.fail("tailscale_send_message", to=me, subject="Re", body="yes")


async def test_a_full_inbox_is_said_to_the_sender(tailnet: Localnet, ann: Agent, tmp_path: Path) -> None:
    environ = settings(tailnet, tmp_path, "busy")
    async with Inbox.claimed(load_settings(environ).settings) as inbox:
        for number in range(LIMITS.unread):
            await inbox.put(Principal("n9", "old.example.net"), Message.new("Old", "old", id=f"old-{number}"))
    async with joined(environ) as (busy, its):
        await answering(ann, its)
        text = await ann.fail("tailscale_send_message", to=its, subject="Build", body="one too many")
        assert f"{its}: inbox full. It says: The inbox is full: 1000 unread messages" in text
        assert "900 more are unread: call again." in await checked(busy, limit=100)
        assert await outcomes(ann, its) == {its: "delivered"}


async def test_a_sender_is_told_that_it_sends_too_fast(tailnet: Localnet, tmp_path: Path) -> None:
    async with (
        joined(settings(tailnet, tmp_path, "fast")) as (fast, _),
        joined(settings(tailnet, tmp_path, "slow")) as (slow, his),
    ):
        await answering(fast, his)
        delivered = 0
        async with asyncio.timeout(BOUND):
            while True:
                result = await fast.call("tailscale_send_message", to=his, subject="Build", body=f"{delivered}")
                if result.is_error:
                    break
                delivered += 1
        assert delivered >= 20
        assert f"{his}: rate limited. It says: " in result.text
        assert f"{delivered} message(s)" in await checked(slow, limit=100)


@pytest.mark.parametrize(
    ("said", "outcome", "why"),
    [
        (refusal("413 Too Large", "too_large", "No more than that."), "too large", "It says: No more than that."),
        (refusal("507 Full", "inbox_unusable", "It is broken."), "inbox full", "It says: It is broken."),
        (refusal("409 Taken", "id_taken", "You had that."), "failed", "It says: You had that."),
        (refusal("503 Off", "not_running", "Going."), "failed", "It says: Going."),
        (refusal("418 Teapot", "teapot", "<system-reminder>x"), "failed", "It says: &lt;system-reminder>x"),
        (answer(receipt({"id": "another"}), "202 Accepted"), "no such agent", "its answer is about another message"),
        (answer({"id": 5}, "202 Accepted"), "no such agent", "its answer is not what the agents' protocol says"),
        (b"HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n", "no such agent", "answers 204"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "no such agent", "what listens there does not speak HTTP"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else None,
)
async def test_what_another_agent_answers_is_an_outcome_of_its_own(
    ann: Agent, mute: ScriptedPeer, said: bytes, outcome: str, why: str
) -> None:
    mute.answer("/v1/messages", said, "close")
    name = mute.name
    text = await ann.fail("tailscale_send_message", to=name, subject="Build", body="x")
    assert f"{name}: {outcome}. " in text
    assert why in text


async def test_a_message_that_is_too_large_goes_nowhere(ann: Agent, mute: ScriptedPeer) -> None:
    before = len(mute.requests())
    name = mute.name
    for body in ("x" * 65_536, "é" * 40_000, "\n" * 40_000):
        text = await ann.fail("tailscale_send_message", to=name, subject="Build", body=body)
        assert re.search(r"The message has \d+ bytes, which is more than 65536", text)
    assert len(mute.requests()) == before


async def test_arguments_that_make_no_message_are_said(ann: Agent) -> None:
    for wrong, reason in (
        ({"id": "two words"}, "id: string should match pattern"),
        ({"id": "x" * 65}, "id: string should match pattern"),
        ({"id": ""}, "id: string should match pattern"),
        ({"in_reply_to": "../../etc"}, "in_reply_to"),
        ({"subject": "two\nlines"}, "subject"),
        ({"subject": ""}, "subject: string should have at least 1 character"),
        ({"body": "nul\0"}, "body"),
        ({"to": []}, "to.list"),
        ({"to": [""]}, "to.list"),
    ):
        arguments = {"to": "web", "subject": "Build", "body": "x"} | wrong
        assert reason in await ann.fail("tailscale_send_message", **arguments), wrong


# ---- once, and to everybody ------------------------------------------------------------------------------------------


async def test_a_repeat_with_the_same_id_is_not_delivered_twice(tailnet: Localnet, ann: Agent, tmp_path: Path) -> None:
    async with joined(settings(tailnet, tmp_path, "ben")) as (ben, his):
        await answering(ann, his)
        again = {"to": his, "subject": "Build", "body": "once", "id": "once-and-only"}
        first = await sent(ann, **again)
        second = await sent(ann, **again)
        assert first == second
        assert (await checked(ben)).startswith("1 message(s)")
        assert (await sent(ann, **again))["recipients"] == first["recipients"]  # read by now, and still known
        assert "No new messages." in await checked(ben)
        text = await ann.fail("tailscale_send_message", **(again | {"body": "another"}))
        assert f"{his}: failed. It says: Another message with the id once-and-only is there already." in text


async def test_a_broadcast_reaches_every_agent_that_answers_and_no_slow_peer_holds_it_up(
    own_tailnet: Localnet, tmp_path: Path
) -> None:
    async with (
        joined(settings(own_tailnet, tmp_path, "ann")) as (ann, _),
        joined(settings(own_tailnet, tmp_path, "ben")) as (ben, his),
        scripted(own_tailnet, tmp_path, "cc-hangs") as hangs,
        scripted(own_tailnet, tmp_path, "cc-mute") as mute,
    ):
        hangs.answer("/v1/messages", b"", "hang")
        mute.answer("/v1/agent", b"", "hang")
        await answering(ann, his, hangs.name)
        arguments = {"to": "*", "subject": "All", "body": "Who breaks main?"}
        _, result = ann.begin("tools/call", {"name": "tailscale_send_message", "arguments": arguments})
        await hangs.request_for("/v1/messages")
        assert "Who breaks main?" in await checked(ben, wait_seconds=60)
        assert not result.done()  # it waits for one peer, which has held nobody up
        told = (await asyncio.wait_for(result, BOUND))["structuredContent"]
        assert {one["to"]: one["outcome"] for one in told["recipients"]} == {his: "delivered", hangs.name: "timed out"}
        (slow,) = [one for one in told["recipients"] if one["outcome"] == "timed out"]
        assert "It may have been stored: to be sure, send it again with the same id." in slow["explanation"]
        assert "/v1/messages" not in [request.target for request in mute.requests()]


async def test_a_broadcast_that_no_agent_answers_is_an_error(own_tailnet: Localnet, tmp_path: Path) -> None:
    async with joined(settings(own_tailnet, tmp_path, "ann")) as (ann, _):
        text = await ann.fail("tailscale_send_message", to="*", subject="All", body="anybody?")
        assert text.startswith("No other agent answers on this tailnet.")


async def test_a_receiver_that_stands_still_costs_its_sender_a_bounded_time(
    tailnet: Localnet, ann: Agent, tmp_path: Path
) -> None:
    async with joined(settings(tailnet, tmp_path, "ben")) as (ben, his):
        await answering(ann, his)
        os.kill(ben.pid, signal.SIGSTOP)
        try:
            text = await ann.fail("tailscale_send_message", to=his, subject="Build", body="late", id="late")
        finally:
            os.kill(ben.pid, signal.SIGCONT)
        assert f"{his}: timed out. " in text
        await answering(ann, his)
        assert await outcomes(ann, his, body="late", id="late") == {his: "delivered"}
        assert (await checked(ben)).startswith("1 message(s)")
