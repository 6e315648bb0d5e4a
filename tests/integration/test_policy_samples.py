"""The policies that docs/keys.md and docs/security.md show do on a tailnet what they say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from cctailscale.agents.policy import Policy, principal
from cctailscale.agents.wire import CAPABILITY, PORT
from cctailscale.errors import ConnectionRefused, TimedOut
from cctailscale.tailnet.device import Device
from tests.callers import ALICE, BOB, Stage, addresses, answering, identity, line, message, until_known
from tests.policies import for_localnet, parsed, shown

EVE = "eve@example.com"
# Of a packet that is dropped nothing comes back. What is let through is refused, or taken, within milliseconds.
DROPPED_SECONDS = 0.5
(SAMPLE,) = [block for block in shown("keys.md") if "tests" in block]
AGENTS_ALONE, PEOPLE_TOO = [block for block in shown("security.md") if "grants" in block or "app" in block]


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage.opened(tmp_path_factory.mktemp("devices")) as stage:
        yield stage


def device_of(stage: Stage, who: str, number: int = 1) -> Awaitable[Device]:
    """A device with that tag, or of that person."""
    name = f"{who.replace(':', '-').partition('@')[0]}-{number}"
    return stage.device(name, tags=(who,)) if who.startswith("tag:") else stage.device(name, who)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it holds: no event tells that a change of the policy has arrived."""
    with anyio.fail_after(10):
        while not await condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def lets_in(source: Device, target: Device, port: int, seconds: float = DROPPED_SECONDS) -> bool:
    """Whether a connection's first packet gets through, whatever answers it."""
    address = addresses(await identity(target))[0]
    try:
        (await source.handle.dial(f"{address}:{port}", seconds)).close()
    except ConnectionRefused:
        return True
    except TimedOut:
        return False
    return True


async def until_open(source: Device, target: Device, port: int, expected: bool) -> None:
    """Returns once the port is open to `source`, or is not any more, as `expected`."""

    async def is_so() -> bool:
        return await lets_in(source, target, port) == expected

    await eventually(is_so)


def test_comments_and_trailing_commas_are_read_and_strings_are_kept() -> None:
    assert parsed('{"a": "//,]", /* x,] */ "b": [1, 2, // y\n ], }') == {"a": "//,]", "b": [1, 2]}
    with pytest.raises(ValueError, match="Expecting"):
        parsed('{"a": [1,, ]}')


@pytest.mark.parametrize("number", range(len(SAMPLE["tests"])))
async def test_the_tests_of_the_sample_hold_on_the_tailnet(stage: Stage, number: int) -> None:
    stage.tailnet.admin("PUT", "/policy", for_localnet(SAMPLE))
    test = SAMPLE["tests"][number]
    source = await device_of(stage, test["src"])
    for expected, targets in ((True, test["accept"]), (False, test["deny"])):
        for target in targets:
            whose, _, port = target.rpartition(":")
            there = await device_of(stage, whose, 2)
            await until_known(there, source)
            await until_known(source, there)
            await until_open(source, there, int(port), expected)


async def decided(agent: Device, peer: Device) -> dict[str, bool]:
    """What policy.py lets a peer do, by what WhoIs says of the two."""
    who = await agent.whois(addresses(await identity(peer))[0])
    me, they = principal(await identity(agent)), principal(who)
    return {action: Policy().decide(me, they, action) is None for action in ("message", "team")}


@pytest.mark.parametrize(
    ("policy", "people"),
    [
        (for_localnet(SAMPLE), {"message": True, "team": True}),
        (for_localnet(AGENTS_ALONE), {"message": False, "team": False}),
        (
            for_localnet(AGENTS_ALONE | {"grants": [*AGENTS_ALONE["grants"], PEOPLE_TOO]}, dev=[ALICE, BOB]),
            {"message": True, "team": False},
        ),
    ],
    ids=["keys.md", "security.md, agents", "security.md, people too"],
)
async def test_agents_and_the_people_of_the_group_may_write_and_nobody_else(
    stage: Stage, tmp_path: Path, policy: dict[str, Any], people: dict[str, bool]
) -> None:
    stage.tailnet.admin("PUT", "/policy", policy)
    agent, other = await device_of(stage, "tag:agent"), await device_of(stage, "tag:agent", 2)
    bob, eve = await device_of(stage, BOB), await device_of(stage, EVE)
    for peer in (other, bob, eve):
        await until_known(agent, peer)

    async def granted() -> bool:
        who = await agent.whois(addresses(await identity(bob))[0])
        return who is not None and (CAPABILITY in who.capabilities) == any(people.values())

    await eventually(granted)
    assert await decided(agent, other) == {"message": True, "team": True}
    assert await decided(agent, bob) == people
    assert await decided(agent, eve) == {"message": False, "team": False}
    async with answering(agent, tmp_path) as answerer:
        for peer in (other, bob) if people["message"] else (other,):
            await until_open(peer, agent, PORT, True)
            async with line(peer, answerer) as wire:
                assert (await wire.post(message())).status == 202
        await until_open(eve, agent, PORT, False)
