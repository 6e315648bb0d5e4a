"""How packets go to a peer where that is not simply direct: through DERP at first, or through a peer relay."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import anyio

from tests.agent import Agent, Json
from tests.localnet import Localnet

CLIENT, TARGET = "tailscale.com/cap/relay", "tailscale.com/cap/relay-target"


async def test_a_path_that_becomes_direct_during_a_ping_is_said_to(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    with own_tailnet.peer("roamer", "-relayed") as roamer:
        async with Agent.started(own_environ) as agent:
            arguments = {"name": "tailscale_ping", "arguments": {"host": "roamer", "count": 10}}
            number, answer = agent.begin("tools/call", arguments)
            await agent.progressed(number, "Ping 2 of 10")
            os.kill(roamer["pid"], signal.SIGUSR1)
            found = (await answer)["structuredContent"]
    first = found["became_direct"]
    assert 2 < first <= 10
    paths = [reply["path"] for reply in found["replies"]]
    assert {path.partition(" ")[0] for path in paths[: first - 1]} == {"DERP"}
    assert {path.partition(" ")[0] for path in paths[first - 1 :]} == {"direct"}


async def test_a_peer_that_is_reached_through_a_peer_relay_is_said_to_be(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    grants = [
        {"src": ["*"], "dst": ["relay"], "app": {CLIENT: [{}]}},
        {"src": ["relay"], "dst": ["*"], "app": {TARGET: [{}]}},
    ]
    own_tailnet.admin("PUT", "/policy", {"grants": grants})
    with own_tailnet.peer("relay", "-relay"), own_tailnet.peer("roamer", "-relayed") as roamer:
        async with Agent.started(own_environ) as agent:
            path = await path_that_is(agent, "peer relay ")
            assert re.fullmatch(r"peer relay \S+:\d+:vni:\d+", path)
            tried = await answered(agent, "connect_test", host="roamer", port=80)
            assert (tried["reachable"], tried["path"]) == (True, path)
            (row,) = (await answered(agent, "devices", filter="roamer"))["devices"]
            assert row["path"] == path
            os.kill(roamer["pid"], signal.SIGUSR1)
            await path_that_is(agent, "direct ")


async def path_that_is(agent: Agent, kind: str) -> str:
    """The path to "roamer" once it is of that kind: each ping has the node look for a better one."""
    with anyio.fail_after(30):
        while True:
            for reply in (await answered(agent, "ping", host="roamer", count=2))["replies"]:
                path: str = reply.get("path", "")
                if path.startswith(kind):
                    return path


async def answered(agent: Agent, tool: str, **arguments: Any) -> Json:
    structured = (await agent.succeed(f"tailscale_{tool}", **arguments)).structured
    assert structured is not None
    return structured
