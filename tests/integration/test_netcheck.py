"""tailscale_netcheck, with the local tailnet's three DERP regions."""

from __future__ import annotations

from tests.agent import Agent
from tests.localnet import Localnet


async def test_the_network_is_described_and_every_region_measured(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    async with Agent.started(own_environ) as agent:
        result = await agent.succeed("tailscale_netcheck")
        found = result.structured
        assert found is not None
        assert (found["udp"], found["ipv4"], found["ipv6"]) == (True, True, False)
        assert found["mapped_ipv4"].startswith("127.0.0.1:")
        assert found["nat"] == "none: this machine has its public address itself"
        assert found["preferred_derp"] in {"lo1", "lo2", "lo3"}
        assert {region["name"] for region in found["regions"]} == {"Loopback One", "Loopback Two", "Loopback Three"}
        times = [region["latency_ms"] for region in found["regions"]]
        assert times == sorted(times)
        assert all(0 < time < 1000 for time in times)
        assert "Measuring the way to the DERP regions" in result.progress


async def test_it_needs_no_control_once_joined(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    async with Agent.started(own_environ) as agent:
        await agent.status()
        own_tailnet.faults(outage=True)
        found = (await agent.succeed("tailscale_netcheck")).structured
        assert found is not None
        assert len([region for region in found["regions"] if region["latency_ms"] is not None]) == 3
