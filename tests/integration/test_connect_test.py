"""tailscale_connect_test: reachable, and every reason why not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet, running


@pytest.fixture(scope="module")
async def agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


@pytest.fixture
def dropping(tailnet: Localnet) -> Iterator[None]:
    """An access rule that lets port 80 through and drops all else."""
    tailnet.admin("PUT", "/policy", {"rules": [{"src": ["*"], "dst": ["*:80"]}]})
    yield
    tailnet.admin("PUT", "/policy", {})


async def tried(agent: Agent, host: str, port: int, **more: Any) -> dict[str, Any]:
    structured = (await agent.succeed("tailscale_connect_test", host=host, port=port, **more)).structured
    assert structured is not None
    return structured


@pytest.mark.parametrize("form", ["web", "web.", "WEB.tail1234.ts.net", "web.tail1234.ts.net.", "{0}", "{1}", "[{1}]"])
async def test_a_port_that_is_open_is_reachable_in_each_form_of_the_host(
    tailnet: Localnet, agent: Agent, form: str
) -> None:
    web = tailnet.node("web")
    found = await tried(agent, form.format(*web["addresses"]), 80)
    assert found["reachable"] is True
    assert found["address"] == web["addresses"][1 if "1" in form and "{1}" in form else 0]
    assert 0 < found["connect_ms"] < 5000
    assert found["path"].startswith(("direct 127.0.0.1:", "direct 10.99.0.1:", "DERP lo"))
    assert "reason" not in found
    assert "explanation" not in found


async def test_a_closed_port_is_refused(agent: Agent) -> None:
    found = await tried(agent, "web", 4242)
    assert (found["reachable"], found["reason"]) == (False, "refused")
    assert "The device is reachable, but nothing listens on that port." in found["explanation"]
    assert found["path"].startswith(("direct ", "DERP lo"))


async def test_a_port_that_the_access_rules_drop_times_out_and_the_device_is_known_to_be_there(
    agent: Agent, tailnet: Localnet, dropping: None
) -> None:
    reason = ""
    with anyio.fail_after(20):
        while reason != "timed out":  # the change of the rules raises no event at the peer
            found = await tried(agent, "web", 7, timeout_seconds=1)
            reason = found.get("reason", "")
    assert found["reachable"] is False
    assert "gave no answer within 1 s (connecting)." in found["explanation"]
    assert "The device itself answers pings (" in found["explanation"]
    assert "access rules drop this port" in found["explanation"]
    assert (await tried(agent, "web", 80))["reachable"] is True
    tailnet.admin("PUT", "/policy", {})
    with anyio.fail_after(20):
        while not (await tried(agent, "web", 7, timeout_seconds=1))["reachable"]:
            pass


async def test_a_peer_that_does_not_answer_times_out_and_does_not_answer_pings_either(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.admin("POST", "/fake-peers", {"count": 1, "online": True})
    (fake,) = own_tailnet.nodes()
    async with Agent.started(own_environ) as agent:
        found = await tried(agent, fake["addresses"][0], 80, timeout_seconds=1)
        assert found["reason"] == "timed out"
        assert "It does not answer pings either: it is offline or asleep" in found["explanation"]
        assert "path" not in found


async def test_a_peer_behind_derp_only_is_said_to_be_relayed(agent: Agent, tailnet: Localnet) -> None:
    flags = ["-control", tailnet.control_url, "-authkey", tailnet.auth_key, "-hostname", "relayed-web"]
    with running("peer", *flags, environ={"TS_DEBUG_ALWAYS_USE_DERP": "1"}):
        found = await tried(agent, "relayed-web", 80)
        assert found["reachable"] is True
        assert found["path"].startswith("DERP lo")


async def test_a_name_that_nobody_has_is_a_reason(agent: Agent) -> None:
    found = await tried(agent, "nobody", 80)
    assert (found["reachable"], found["reason"]) == (False, "no such name")
    assert found["explanation"].startswith("The tailnet has no name nobody.")
    assert "address" not in found


@pytest.mark.parametrize("host", ["8.8.8.8", "127.0.0.1", "169.254.169.254", "100.127.1.1", "2001:db8::1"])
async def test_what_no_peer_owns_is_not_on_the_tailnet(agent: Agent, host: str) -> None:
    found = await tried(agent, host, 80)
    assert (found["reachable"], found["reason"], found["address"]) == (False, "not on the tailnet", host)
    assert "so nothing was sent" in found["explanation"]
    assert "path" not in found


async def test_this_node_is_no_place_to_test_from_itself(agent: Agent) -> None:
    me = await agent.status()
    for host in (me["magic_dns_name"], *me["ips"]):
        found = await tried(agent, host, 80)
        assert (found["reachable"], found["reason"]) == (False, "this node itself")
