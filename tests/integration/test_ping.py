"""tailscale_ping: every kind, every form of a host, and what lost pings come to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet, running


@pytest.fixture(scope="module")
async def agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


@pytest.fixture(scope="module")
def relayed(tailnet: Localnet) -> Iterator[dict[str, Any]]:
    """A peer that uses no UDP, so that everything goes through DERP."""
    flags = ["-control", tailnet.control_url, "-authkey", tailnet.auth_key, "-hostname", "relayed"]
    with running("peer", *flags, environ={"TS_DEBUG_ALWAYS_USE_DERP": "1"}) as (ready, _):
        yield ready


async def pinged(agent: Agent, **arguments: Any) -> dict[str, Any]:
    structured = (await agent.succeed("tailscale_ping", **arguments)).structured
    assert structured is not None
    return structured


@pytest.mark.parametrize("kind", ["disco", "tsmp", "icmp", "peerapi"])
async def test_each_kind_of_ping_gives_latencies_and_the_path(tailnet: Localnet, agent: Agent, kind: str) -> None:
    web = tailnet.node("web")
    found = await pinged(agent, host="web", type=kind, count=3)
    assert (found["name"], found["address"], found["type"]) == (web["name"], web["addresses"][0], kind)
    assert [reply["number"] for reply in found["replies"]] == [1, 2, 3]
    times = [reply["latency_ms"] for reply in found["replies"]]
    assert (found["min_ms"], found["max_ms"]) == (min(times), max(times))
    assert min(times) <= found["avg_ms"] <= max(times)
    assert (found["sent"], found["received"], found["loss_percent"]) == (3, 3, 0)
    assert found["replies"][-1]["path"].startswith(("direct 127.0.0.1:", "direct 10.99.0.1:"))
    assert "explanation" not in found


async def test_a_peer_behind_derp_only_is_reached_through_a_region(agent: Agent, relayed: dict[str, Any]) -> None:
    found = await pinged(agent, host="relayed", count=2)
    assert {reply["path"] for reply in found["replies"]} <= {"DERP lo1", "DERP lo2", "DERP lo3"}
    assert "became_direct" not in found


async def test_each_ping_is_told_as_progress(agent: Agent) -> None:
    result = await agent.succeed("tailscale_ping", host="web", count=2)
    told = [stage for stage in result.progress if stage.startswith("Ping ")]
    assert [stage.partition(":")[0] for stage in told] == [
        "Ping 1 of 2 to web.tail1234.ts.net",
        "Ping 2 of 2 to web.tail1234.ts.net",
    ]
    assert " ms, " in told[0]


async def test_a_peer_that_never_answers_is_all_loss_and_says_what_that_means(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.admin("POST", "/fake-peers", {"count": 1, "online": True})
    (fake,) = own_tailnet.nodes()
    async with Agent.started(own_environ) as agent:
        found = await pinged(agent, host=fake["addresses"][0], count=2, timeout_seconds=0.5)
        assert found["replies"] == [{"number": 1}, {"number": 2}]
        assert (found["sent"], found["received"], found["loss_percent"]) == (2, 0, 100)
        assert "min_ms" not in found
        assert found["explanation"].startswith("No ping was answered: the device is offline or asleep")


async def test_a_device_that_is_offline_is_said_to_be(
    own_tailnet: Localnet, own_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("laptop")
    with own_tailnet.peer("laptop", "-ephemeral=false", "-dir", str(folder)):
        pass
    own_tailnet.wait_for("offline", "laptop")
    async with Agent.started(own_environ) as agent:
        found = await pinged(agent, host="laptop", count=1, timeout_seconds=0.5)
        assert found["explanation"].startswith("The device is offline; control last saw it at 20")


async def test_this_node_itself_is_nothing_to_ping(agent: Agent) -> None:
    me = await agent.status()
    for host in (me["magic_dns_name"], *me["ips"]):
        found = await pinged(agent, host=host)
        assert (found["sent"], found["replies"]) == (0, [])
        assert found["explanation"] == "That is the device that you run on; there is nothing to measure."


async def test_an_address_that_no_peer_has_is_not_on_the_tailnet(agent: Agent) -> None:
    for address in ("8.8.8.8", "127.0.0.1", "100.127.1.1"):
        assert (await agent.fail("tailscale_ping", host=address)).startswith(f"{address} is not on the tailnet.")


async def test_a_cancelled_series_of_pings_ends_and_the_next_works(agent: Agent) -> None:
    arguments = {"name": "tailscale_ping", "arguments": {"host": "web", "count": 20}}
    number, answer = agent.begin("tools/call", arguments)
    await agent.progressed(number, "Ping 1 of 20")
    await agent.cancel(number)
    assert (await pinged(agent, host="web", count=1))["received"] == 1
    assert not any("Ping 20 of 20" in stage for stage in agent._progress[number])
    answer.cancel()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"host": "web", "type": "udp"}, "type: input should be 'disco', 'tsmp', 'icmp' or 'peerapi'"),
        ({"host": "web", "count": 0}, "count: input should be greater than or equal to 1"),
        ({"host": "web", "count": 21}, "count: input should be less than or equal to 20"),
        ({"host": "web", "timeout_seconds": 0}, "timeout_seconds: input should be greater than 0"),
        ({"host": "web", "timeout_seconds": 61}, "timeout_seconds: input should be less than or equal to 60"),
        ({"host": "nobody"}, "The tailnet has no name nobody."),
    ],
)
async def test_wrong_arguments_are_refused_with_what_is_right(
    agent: Agent, arguments: dict[str, Any], reason: str
) -> None:
    assert reason in await agent.fail("tailscale_ping", **arguments)
