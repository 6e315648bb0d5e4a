"""What tailscale_status says about this node, field by field."""

from __future__ import annotations

import datetime

from cctailscale import __version__
from tests.agent import Agent
from tests.inprocess import event
from tests.localnet import Localnet

DAY = datetime.timedelta(days=1)


async def test_status_says_where_the_node_stands(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    own_tailnet.admin("PUT", "/settings", {"key_expiry_seconds": int(DAY.total_seconds()), "health": ["Disk is hot"]})
    own_tailnet.admin("POST", "/fake-peers", {"count": 2, "online": False})  # every third, from the first on
    with own_tailnet.peer("web"):
        async with Agent.started(own_environ) as agent:
            await agent.status()
            (device,) = own_tailnet.agents()
            status = await agent.status()
            assert await agent.stop() == 0
    expiry = datetime.datetime.fromisoformat(status.pop("key_expiry"))
    assert abs(expiry - datetime.datetime.now(datetime.UTC) - DAY) < datetime.timedelta(minutes=1)
    assert "Disk is hot" in " ".join(status.pop("health"))
    assert 0 <= status.pop("uptime_ms") < 60_000
    assert status.pop("tailscale_version").startswith("1.102.5-cctailscale")
    assert status == {
        "state": "running", "problem": None, "login_url": None, "warnings": [], "version": __version__,
        "hostname": device["hostname"], "magic_dns_name": device["name"], "ips": device["addresses"],
        "tailnet": "example.com", "control_url": own_tailnet.control_url, "tags": [], "owner": "alice@example.com",
        "peers_online": 2, "peers_total": 3,
    }  # fmt: skip


async def test_a_tagged_device_has_tags_in_place_of_an_owner_and_no_expiry(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with Agent.started(environ | {"TS_AUTHKEY": tailnet.key(tags=["tag:agent"])}) as agent:
        status = await agent.status()
        assert (status["tags"], status["owner"], status["key_expiry"]) == (["tag:agent"], None, None)
        assert await agent.stop() == 0
        await event(tailnet, "removed", status["hostname"])
