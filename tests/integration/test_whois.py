"""tailscale_whois, through the real process on the local tailnet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet

FORMS = (
    "Give a short name (web), a full name (web.tail1234.ts.net), an IPv4 address (100.64.0.1) "
    "or an IPv6 address (fd7a:115c:a1e0::1)."
)


@pytest.fixture(scope="module")
async def agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


async def who(agent: Agent, address: str) -> dict[str, Any]:
    structured = (await agent.succeed("tailscale_whois", address=address)).structured
    assert structured is not None
    return structured


@pytest.mark.parametrize(
    "form",
    [
        "web", "WEB", "web.", "web:80", "web.tail1234.ts.net", "web.tail1234.ts.net.", "web.tail1234.ts.net:443",
        "{0}", "{0}:80", "{1}", "[{1}]", "[{1}]:80",
    ],
)  # fmt: skip
async def test_a_device_is_found_in_each_form_that_a_person_writes(tailnet: Localnet, agent: Agent, form: str) -> None:
    web = tailnet.node("web")
    found = await who(agent, form.format(*web["addresses"]))
    expiry = datetime.fromisoformat(found.pop("key_expiry"))
    assert abs(expiry - datetime.fromisoformat(web["key_expiry"])).total_seconds() < 2
    assert expiry > datetime.now(UTC)
    assert found == {
        "name": web["name"],
        "stable_id": web["stable_id"],
        "addresses": web["addresses"],
        "os": "linux",
        "owner": {"login": "alice@example.com", "display_name": "Alice"},
        "online": True,
    }


async def test_this_node_knows_itself(agent: Agent) -> None:
    me = await agent.status()
    found = await who(agent, me["magic_dns_name"])
    assert found["this_node"] is True
    assert found["addresses"] == me["ips"]


async def test_a_tagged_device_has_tags_and_no_owner_and_never_expires(tailnet: Localnet, agent: Agent) -> None:
    with tailnet.peer("robot", key=tailnet.key(tags=["tag:ci"])):
        found = await who(agent, "robot")
        assert found["tags"] == ["tag:ci"]
        assert "owner" not in found
        assert "key_expiry" not in found


async def test_the_capabilities_that_the_policy_grants_are_shown_at_once(tailnet: Localnet, agent: Agent) -> None:
    me = await agent.status()
    assert "capabilities" not in await who(agent, "web")
    capabilities = {"example.com/cap/deploy": [{"stage": "test"}]}
    granted = [{"src": ["web"], "dst": [me["magic_dns_name"]], "app": capabilities}]
    tailnet.admin("PUT", "/policy", {"grants": granted})
    try:
        found: dict[str, Any] = {}
        with anyio.fail_after(5):
            while "capabilities" not in found:  # a change of the policy alone raises no event at the node
                found = await who(agent, "web")
        assert found["capabilities"] == capabilities
    finally:
        tailnet.admin("PUT", "/policy", {})


async def test_a_device_that_went_offline_was_last_seen_then(
    own_tailnet: Localnet, own_environ: dict[str, str], tmp_path: Path
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    with own_tailnet.peer("laptop", "-ephemeral=false", "-dir", str(tmp_path)):
        pass
    own_tailnet.wait_for("offline", "laptop")
    async with Agent.started(own_environ) as agent:
        found = await who(agent, "laptop")
        assert found["online"] is False
        assert before <= datetime.fromisoformat(found["last_seen"]) <= datetime.now(UTC)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "8.8.8.8:53", "127.0.0.1", "100.100.100.100"])
async def test_an_address_outside_the_tailnet_is_no_device_s(agent: Agent, address: str) -> None:
    text = await agent.fail("tailscale_whois", address=address)
    assert text.startswith(f"No device of this tailnet has the address {address.removesuffix(':53')}.")
    assert "tailscale_devices lists them" in text


async def test_an_address_behind_a_subnet_router_names_the_router(tailnet: Localnet, agent: Agent) -> None:
    with tailnet.peer("router", "-routes", "10.66.0.0/24"):
        tailnet.admin("POST", "/nodes/router/routes", {"approve": ["10.66.0.0/24"]})
        text = ""
        with anyio.fail_after(5):
            while "subnet router" not in text:  # the node learns of the approval a moment later, and says so nowhere
                text = await agent.fail("tailscale_whois", address="10.66.0.7")
                await anyio.sleep(0.05)
        assert text == (
            "No device of this tailnet has the address 10.66.0.7. It is behind the subnet router "
            "router.tail1234.ts.net: hosts there are no devices of the tailnet. "
            "Ask about router.tail1234.ts.net instead."
        )


@pytest.mark.parametrize(
    ("address", "happened"),
    [
        ("a host", "a host is neither a name nor an address in its usual form."),
        ("x" * 300, "xxx"),
        ("100.64.0.0/10", "100.64.0.0/10 is neither a name nor an address in its usual form."),
        ("http://web/", "http://web/ has a port that is no number from 1 to 65535."),
        ("web:0", "web:0 has a port that is no number from 1 to 65535."),
        ("web:65536", "web:65536 has a port that is no number from 1 to 65535."),
        ("", "An empty text is neither a name nor an address in its usual form."),
    ],
)
async def test_what_has_no_form_of_an_address_is_refused_with_the_forms(
    agent: Agent, address: str, happened: str
) -> None:
    text = await agent.fail("tailscale_whois", address=address)
    assert text.startswith(happened)
    assert text.endswith(FORMS)


async def test_more_than_a_name_can_have_is_refused(agent: Agent) -> None:
    assert "at most 1000 characters" in await agent.fail("tailscale_whois", address="x" * 1001)


async def test_a_name_that_nobody_has_is_said(agent: Agent) -> None:
    assert (await agent.fail("tailscale_whois", address="nobody")).startswith("The tailnet has no name nobody.")
