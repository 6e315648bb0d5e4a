"""Which devices are asked whether they are agents, how many at a time, and what becomes of those that are silent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from cctailscale.agents import client, directory
from cctailscale.agents.directory import ANSWER_SECONDS, MAX_ASKED, find
from cctailscale.agents.policy import Policy
from cctailscale.agents.together import AT_ONCE
from cctailscale.agents.wire import AgentCard
from cctailscale.errors import AgentRefused, NoAgent, NodeClosed, TimedOut
from cctailscale.tailnet.models import Status, WhoIs

SECONDS = 20
SUFFIX = "tail1234.ts.net"


def peer(name: str, number: int, **more: Any) -> dict[str, Any]:
    facts = {"ID": f"n-{name}", "DNSName": f"{name}.", "TailscaleIPs": [f"100.64.0.{number}"], "Online": True}
    return facts | more


def status(*peers: dict[str, Any], tags: list[str] | None = None) -> Status:
    me = peer(f"cc-me.{SUFFIX}", 1) | ({"Tags": tags} if tags else {})
    return Status.model_validate({"BackendState": "Running", "Self": me, "Peer": {one["ID"]: one for one in peers}})


class FakeDevice:
    """Knows who has which address, of those in `status`."""

    def __init__(self, seen: Status) -> None:
        everybody = [*seen.peers.values()] + ([seen.me] if seen.me else [])
        self._known = {one.tailscale_ips[0]: one for one in everybody if one.tailscale_ips}
        self.mine = seen.me

    async def whois(self, address: str) -> WhoIs | None:
        one = self._known.get(address)
        if one is None:
            return None
        node = {"StableID": one.id, "Name": f"{one.name}.", "Addresses": [f"{address}/32"], "Tags": one.tags}
        return WhoIs.model_validate({"Node": node, "UserProfile": {"LoginName": "alice@example.com"}})

    async def me(self) -> WhoIs | None:
        return await self.whois(self.mine.tailscale_ips[0]) if self.mine else None


def card(name: str) -> AgentCard:
    return AgentCard(name=name, version="1", protocol=1, since=datetime.now(UTC))


def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were asked; all answer."""
    addresses: list[str] = []

    async def answers(_device: object, address: str, seconds: float) -> AgentCard:
        assert seconds == ANSWER_SECONDS
        addresses.append(address)
        return card("liar")

    monkeypatch.setattr(client, "card_of", answers)
    return addresses


async def test_who_is_called_like_an_agent_or_shares_a_tag_is_asked_if_online(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = asked(monkeypatch)
    seen = status(
        peer(f"cc-ben.{SUFFIX}", 2),
        peer(f"CC-Loud.{SUFFIX}", 3),
        peer("cc-far.other.ts.net", 4),
        peer(f"web.{SUFFIX}", 5),
        peer(f"robot.{SUFFIX}", 6, Tags=["tag:x", "tag:agent"]),
        peer(f"other-robot.{SUFFIX}", 7, Tags=["tag:x"]),
        peer(f"cc-away.{SUFFIX}", 8, Online=False),
        peer(f"cc-nowhere.{SUFFIX}", 9, TailscaleIPs=None),
        peer(f"cc-sharee.{SUFFIX}", 10, ShareeNode=True),
        peer(f"mycc-x.{SUFFIX}", 11),
        tags=["tag:agent"],
    )
    device: Any = FakeDevice(seen)
    found = await find(device, Policy(), seen)
    assert sorted(addresses) == ["100.64.0.2", "100.64.0.3", "100.64.0.4", "100.64.0.6"]
    # Named by what control says, in the order of the names, whatever their cards say.
    assert [one.peer.name for one in found.confirmed] == [
        f"CC-Loud.{SUFFIX}", f"cc-ben.{SUFFIX}", "cc-far.other.ts.net", f"robot.{SUFFIX}"
    ]  # fmt: skip
    assert [one.may_message_us for one in found.confirmed] == [False, False, False, True]


async def test_without_tags_of_our_own_none_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = asked(monkeypatch)
    seen = status(peer(f"robot.{SUFFIX}", 6, Tags=["tag:x"]), peer(f"plain.{SUFFIX}", 7))
    device: Any = FakeDevice(seen)
    assert (await find(device, Policy(), seen)).confirmed == []
    assert addresses == []


async def test_a_device_of_the_same_owner_may_message_us_and_a_tagged_one_may_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked(monkeypatch)
    seen = status(peer(f"cc-a.{SUFFIX}", 2), peer(f"cc-b.{SUFFIX}", 3, Tags=["tag:x"]))
    device: Any = FakeDevice(seen)
    found = await find(device, Policy(), seen)
    assert [(one.peer.login, one.may_message_us) for one in found.confirmed] == [
        ("alice@example.com", True),
        (None, False),
    ]


async def test_who_does_not_answer_as_an_agent_is_silent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {
        "100.64.0.2": TimedOut("100.64.0.2", ANSWER_SECONDS, "waiting for the agent"),
        "100.64.0.3": NoAgent("100.64.0.3", "what listens there is no agent"),
        "100.64.0.4": AgentRefused("100.64.0.4", 403, "refused", "You may not. Add this."),
        "100.64.0.5": NodeClosed(),
    }

    async def fails(_device: object, address: str, _seconds: float) -> AgentCard:
        raise errors[address]

    monkeypatch.setattr(client, "card_of", fails)
    seen = status(*(peer(f"cc-{number}.{SUFFIX}", number) for number in range(2, 6)))
    device: Any = FakeDevice(seen)
    found = await find(device, Policy(), seen)
    assert found.confirmed == []
    assert [one.why for one in found.silent] == [
        "100.64.0.2 gave no answer within 2 s (waiting for the agent).",
        "No agent answers at 100.64.0.3: what listens there is no agent.",
        "It says: You may not. Add this.",
        "The Tailscale node has been closed.",
    ]


async def test_a_device_that_has_left_meanwhile_is_not_listed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = asked(monkeypatch)
    seen = status(peer(f"cc-gone.{SUFFIX}", 2))
    device: Any = FakeDevice(status())
    found = await find(device, Policy(), seen)
    assert (found.confirmed, found.silent, addresses) == ([], [], [])


async def test_so_many_are_asked_at_a_time_and_of_a_large_tailnet_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now = most = 0

    async def slow(_device: object, _address: str, _seconds: float) -> AgentCard:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.wait_all_tasks_blocked()  # until all that may ask do
        now -= 1
        return card("x")

    monkeypatch.setattr(client, "card_of", slow)
    monkeypatch.setattr(directory, "MAX_ASKED", 40)
    names = [f"cc-{number:03}.{SUFFIX}" for number in range(50)]
    seen = status(*(peer(name, number + 2) for number, name in enumerate(names)))
    device: Any = FakeDevice(seen)
    with anyio.fail_after(SECONDS):
        found = await find(device, Policy(), seen)
    assert most == AT_ONCE
    assert [one.peer.name for one in found.confirmed] == names[:40]
    assert found.skipped == 10
    assert MAX_ASKED > 100


async def test_asking_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(_device: object, _address: str, _seconds: float) -> AgentCard:
        await anyio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(client, "card_of", hangs)
    seen = status(peer(f"cc-a.{SUFFIX}", 2))
    device: Any = FakeDevice(seen)
    with anyio.move_on_after(0.05) as bound:
        await find(device, Policy(), seen)
    assert bound.cancelled_caught
