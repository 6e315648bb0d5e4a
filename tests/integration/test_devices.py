"""tailscale_devices, through the real process on the local tailnet."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import anyio
import pytest

from tests.agent import Agent, Result
from tests.conftest import environ_for
from tests.localnet import Localnet


@pytest.fixture(scope="module")
async def agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


async def listed(agent: Agent, **arguments: Any) -> dict[str, Any]:
    structured = (await agent.succeed("tailscale_devices", **arguments)).structured
    assert structured is not None
    return structured


async def row_of(agent: Agent, name: str, fact: str = "name") -> dict[str, Any]:
    """The row of a device once it has `fact`. The list may be a second old, and no event tells when it is not."""
    with anyio.fail_after(5):
        while True:
            for row in (await listed(agent, filter=f"{name}."))["devices"]:
                if fact in row:
                    found: dict[str, Any] = row
                    return found
            await anyio.sleep(0.05)


def tokens(result: Result) -> int:
    """What the model reads, at four characters a token."""
    return len(json.dumps(result.structured, separators=(",", ":"))) // 4


async def test_this_node_is_first_and_marked_and_a_peer_has_its_facts(tailnet: Localnet, agent: Agent) -> None:
    me = await agent.status()
    found = await listed(agent)
    web = tailnet.node("web")
    rows = found["devices"]
    assert rows[0]["name"] == me["magic_dns_name"]
    assert rows[0]["this_node"] is True
    (row,) = [row for row in rows if row["name"] == web["name"]]
    assert row.pop("path", "direct ").startswith(("direct ", "DERP "))
    assert row == {
        "name": web["name"],
        "addresses": web["addresses"],
        "os": "linux",
        "owner": "alice@example.com",
        "online": True,
    }
    assert found["total"] == len(rows)
    assert found["cursor"] is None
    assert "notice" not in found


async def test_a_tagged_device_shows_its_tags_and_another_person_s_device_its_owner(
    tailnet: Localnet, agent: Agent
) -> None:
    tagged, bobs = tailnet.key(tags=["tag:ci", "tag:db"]), tailnet.key(user="bob@example.com")
    with tailnet.peer("builder", key=tagged), tailnet.peer("bobs", key=bobs):
        builder, his = await row_of(agent, "builder"), await row_of(agent, "bobs")
        assert builder["tags"] == ["tag:ci", "tag:db"]
        assert "owner" not in builder
        assert his["owner"] == "bob@example.com"
        assert "tags" not in his


async def test_a_peer_s_path_is_shown_once_there_was_traffic(agent: Agent) -> None:
    await agent.succeed("tailscale_ping", host="web", count=1)
    assert (await row_of(agent, "web", "path"))["path"].startswith(
        ("direct 127.0.0.1:", "direct 10.99.0.1:", "DERP lo")
    )


async def test_approved_routes_are_shown(tailnet: Localnet, agent: Agent) -> None:
    with tailnet.peer("gateway", "-routes", "10.88.0.0/24"):
        tailnet.admin("POST", "/nodes/gateway/routes", {"approve": ["10.88.0.0/24"]})
        assert (await row_of(agent, "gateway", "routes"))["routes"] == ["10.88.0.0/24"]


async def test_a_device_that_offers_itself_as_exit_node_says_so_and_has_no_route_for_that(
    tailnet: Localnet, agent: Agent
) -> None:
    everything = ["0.0.0.0/0", "::/0"]
    with tailnet.peer("exit", "-routes", ",".join(everything)):
        tailnet.admin("POST", "/nodes/exit/routes", {"approve": everything})
        row = await row_of(agent, "exit", "exit_node")
        assert row["exit_node"] is True
        assert "routes" not in row


async def test_no_match_is_an_empty_list(agent: Agent) -> None:
    assert await listed(agent, filter="no-such-device") == {"total": 0, "online": 0, "devices": [], "cursor": None}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"limit": 0}, "limit: input should be greater than or equal to 1"),
        ({"limit": 101}, "limit: input should be less than or equal to 100"),
        ({"cursor": "next"}, "cursor: string should match pattern"),
        ({"filter": "x" * 201}, "filter: string should have at most 200 characters"),
    ],
)
async def test_a_wrong_argument_is_refused_with_what_is_right(
    agent: Agent, arguments: dict[str, Any], reason: str
) -> None:
    assert reason in await agent.fail("tailscale_devices", **arguments)


async def test_two_thousand_devices_fit_what_claude_reads_and_are_all_found_by_paging(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.admin("POST", "/fake-peers", {"count": 2000})
    async with Agent.started(own_environ) as agent:
        await agent.status()
        page = await agent.succeed("tailscale_devices", limit=50)
        assert page.structured is not None
        assert len(page.structured["devices"]) == 50
        assert page.structured["total"] == 2001
        assert tokens(page) < 8000
        names: list[str] = []
        cursor, pages = None, 0
        assert tokens(await agent.succeed("tailscale_devices", limit=100)) < 8000
        while pages == 0 or cursor is not None:
            found = await listed(agent, limit=100, cursor=cursor)
            names += [row["name"] for row in found["devices"]]
            cursor, pages = found["cursor"], pages + 1
        assert pages == 21
        assert len(names) == len(set(names)) == 2001
        offline = [row for row in page.structured["devices"] if not row["online"]]
        assert all(datetime.fromisoformat(row["last_seen"]).tzinfo is not None for row in offline)
        online = await listed(agent, online_only=True, limit=1)
        assert online["total"] == online["online"] == page.structured["online"] < 2001
        tagged = await listed(agent, filter="tag:db linux", limit=1)
        assert 200 < tagged["total"] < 400
