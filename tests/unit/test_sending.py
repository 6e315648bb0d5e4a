"""Who is meant, how many at a time, and what becomes of each copy; the devices and their answers are made up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cctailscale.agents import client, sending
from cctailscale.agents.inbox import Inbox
from cctailscale.agents.sending import Copy, Recipient, recipients, send
from cctailscale.agents.together import AT_ONCE
from cctailscale.agents.wire import Message, Receipt
from cctailscale.errors import (
    AgentRefused,
    AnswerLost,
    BadDocument,
    CcTailscaleError,
    ConnectionRefused,
    InboxUnusable,
    NoAgent,
    NodeFailed,
    NoSuchName,
    TimedOut,
    Unreachable,
)
from cctailscale.tailnet.models import WhoIs

SECONDS = 10
MESSAGE = Message.new("Build", "is green", id="m1")


class FakeDevice:
    """Devices by name, each with two addresses; "me" is this one."""

    def __init__(self, *names: str) -> None:
        self.names = ["me", *names]
        self.dialer = self
        self.api = self

    async def resolve(self, name: str) -> list[Any]:
        if name not in self.names:
            return [ip_address(name)] if ":" in name or name[0].isdigit() else self._unknown(name)
        number = self.names.index(name) + 1
        return [ip_address(f"100.64.0.{number}"), ip_address(f"fd7a::{number}")]

    def _unknown(self, name: str) -> list[Any]:
        raise NoSuchName(name)

    async def whois(self, address: str) -> WhoIs | None:
        number = int(address.replace("::", ".").rpartition(".")[2]) - 1
        if number >= len(self.names):
            return None
        name = self.names[number]
        own = [f"100.64.0.{number + 1}/32", f"fd7a::{number + 1}/128"]
        node = {"StableID": f"n-{name}", "Name": f"{name}.tail1234.ts.net.", "Addresses": own, "Online": True}
        return WhoIs.model_validate({"Node": node, "UserProfile": {"LoginName": "alice@example.com"}})

    async def me(self) -> WhoIs | None:
        return await self.whois("100.64.0.1")


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[Inbox]:
    async with Inbox.opened(tmp_path / "inbox.db") as inbox:
        yield inbox


def to(*names: str, online: bool | None = True) -> list[Recipient]:
    return [Recipient(f"n-{name}", name, "100.64.0.9", online) for name in names]


def answers(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr(client, "deliver", answer)


async def delivered(_device: object, _address: str, message: Message, _seconds: float) -> Receipt:
    return Receipt(id=message.id, state="delivered", delivered=message.sent)


async def test_a_device_that_is_named_in_several_ways_is_meant_once() -> None:
    device: Any = FakeDevice("ben", "eve")
    meant, nobody = await recipients(device, ["ben", "100.64.0.2", "ben:9321", "[fd7a::2]", "eve", "ben"])
    assert [(one.name, one.address) for one in meant] == [
        ("ben.tail1234.ts.net", "100.64.0.2"),
        ("eve.tail1234.ts.net", "100.64.0.3"),
    ]
    assert nobody == []


async def test_what_cannot_be_meant_is_said_and_the_others_are_meant_all_the_same() -> None:
    device: Any = FakeDevice("ben")
    meant, nobody = await recipients(device, ["nobody", "100.64.0.77", "ben:x", "me", "ben"])
    assert [one.name for one in meant] == ["ben.tail1234.ts.net"]
    assert [(copy.to, copy.outcome) for copy in nobody] == [
        ("nobody", "no such device"),
        ("100.64.0.77", "no such device"),
        ("ben:x", "no such device"),
        ("me.tail1234.ts.net", "failed"),
    ]
    assert all(copy.explanation for copy in nobody)


async def test_a_name_that_is_slow_to_look_up_holds_up_no_others_and_the_order_stays() -> None:
    device: Any = FakeDevice("ben", "eve", "kim")
    found, others = device.resolve, anyio.Event()

    async def resolve(name: str) -> list[Any]:
        if name == "ben":
            await others.wait()
        if name == "kim":
            others.set()
        addresses: list[Any] = await found(name)
        return addresses

    device.resolve = resolve
    with anyio.fail_after(SECONDS):
        meant, nobody = await recipients(device, ["ben", "nobody", "eve", "kim"])
    assert [one.name.partition(".")[0] for one in meant] == ["ben", "eve", "kim"]
    assert [copy.to for copy in nobody] == ["nobody"]


async def test_a_node_that_fails_while_names_are_looked_up_is_said_plainly() -> None:
    device: Any = FakeDevice("ben", "eve")

    async def fails(_: str) -> list[Any]:
        raise NodeFailed("boom")

    device.resolve = fails
    with pytest.raises(NodeFailed):
        await recipients(device, ["ben", "eve"])


@pytest.mark.parametrize(
    ("error", "online", "outcome", "said"),
    [
        (AgentRefused("a", 403, "refused", "No. Add this."), True, "refused", "It says: No. Add this."),
        (AgentRefused("a", 429, "too_many", "Wait."), True, "rate limited", "It says: Wait."),
        (AgentRefused("a", 507, "inbox_full", "Full."), True, "inbox full", "It says: Full."),
        (AgentRefused("a", 413, "too_large", "Less."), True, "too large", "It says: Less."),
        (AgentRefused("a", 500, "whatever", "Oh."), True, "failed", "It says: Oh."),
        (NoAgent("a", "nothing there"), True, "no such agent", "nothing there"),
        (TimedOut("a", 10), True, "timed out", "send it again with the same id"),
        (TimedOut("a", 10), None, "timed out", "send it again with the same id"),
        (TimedOut("a", 2), False, "offline", "The message is not kept for it"),
        (Unreachable("a"), True, "offline", "There is no path to a"),
        (AnswerLost("a"), True, "failed", "send it again with the same id"),
        (NodeFailed("boom"), True, "failed", "boom"),
    ],
)
async def test_each_failure_has_its_outcome(
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
    error: CcTailscaleError,
    online: bool | None,
    outcome: str,
    said: str,
) -> None:
    async def fails(*_: object) -> Receipt:
        raise error

    answers(monkeypatch, fails)
    device: Any = None
    _, (copy,) = await send(device, inbox, MESSAGE, to("ben", online=online))
    assert copy.outcome == outcome
    assert copy.explanation is not None
    assert said in copy.explanation
    assert await inbox.sent(10) == []


async def test_an_agent_that_does_not_listen_yet_is_tried_again_and_a_device_without_one_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals, asked = 2, 0

    async def exchange(*_: object) -> bytes:
        nonlocal asked
        asked += 1
        if asked <= refusals:
            raise NoAgent("a", "nothing listens on its port for agents") from ConnectionRefused("a:9321")
        return Receipt(id=MESSAGE.id, state="delivered", delivered=MESSAGE.sent).to_json()

    monkeypatch.setattr(client, "ask", exchange)
    device: Any = None
    with anyio.fail_after(SECONDS):
        assert (await client.deliver(device, "a", MESSAGE, 1)).id == MESSAGE.id
        refusals, asked = 100, 0
        with pytest.raises(NoAgent):
            await client.deliver(device, "a", MESSAGE, 1)
    assert asked == 1 + len(client.REFUSED_PAUSES_SECONDS)


async def test_a_device_that_is_known_to_be_offline_is_given_less_time(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    async def takes(device: object, address: str, message: Message, seconds: float) -> Receipt:
        given.append(seconds)
        return await delivered(device, address, message, seconds)

    answers(monkeypatch, takes)
    device: Any = None
    await send(device, inbox, MESSAGE, to("ben", online=False) + to("eve", online=None) + to("kim"))
    assert sorted(given) == [sending.OFFLINE_SECONDS, sending.DELIVER_SECONDS, sending.DELIVER_SECONDS]


async def test_so_many_at_a_time_and_who_hangs_holds_up_no_others(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, others = anyio.Event(), anyio.Event()
    now = most = done = 0

    async def slow(_device: object, address: str, message: Message, seconds: float) -> Receipt:
        nonlocal now, most, done
        now += 1
        most = max(most, now)
        await (release.wait() if address == "hangs" else anyio.lowlevel.checkpoint())
        now -= 1
        done += 1
        if done == 100:
            others.set()
        return await delivered(_device, address, message, seconds)

    answers(monkeypatch, slow)
    everybody = [Recipient("n-hangs", "hangs", "hangs", True), *to(*(f"a{number}" for number in range(100)))]
    copies: list[Copy] = []

    async def run() -> None:
        device: Any = None
        copies.extend((await send(device, inbox, MESSAGE, everybody))[1])

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await others.wait()
            assert copies == []
            release.set()
    assert most == AT_ONCE
    assert [copy.to for copy in copies] == [one.name for one in everybody]
    assert {copy.outcome for copy in copies} == {"delivered"}
    assert len(await inbox.sent(200)) == 101


async def test_a_message_that_was_delivered_is_so_even_if_that_cannot_be_noted(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise InboxUnusable(Path("x"), "is on a full disk", "Make room.")

    answers(monkeypatch, delivered)
    monkeypatch.setattr(inbox, "acknowledged", full)
    device: Any = None
    _, (copy,) = await send(device, inbox, MESSAGE, to("ben"))
    assert copy.outcome == "delivered"


def test_a_message_that_is_none_is_refused_before_anything_goes_out() -> None:
    for subject, body, answered, name in (
        ("", "x", None, None),
        ("two\nlines", "x", None, None),
        ("x" * 201, "x", None, None),
        ("x", "\0", None, None),
        ("x", "\ud800", None, None),
        ("x", "x" * 65_536, None, None),
        ("x", "x", "not an id", None),
        ("x", "x", None, "not an id"),
    ):
        with pytest.raises(BadDocument):
            Message.new(subject, body, answered, name)
