"""The main job, from a client's point of view: join on the first call, fetch from a peer, leave."""

import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.agent import Agent
from tests.localnet import Localnet


async def test_the_first_call_joins_and_fetches_from_a_peer(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    with own_tailnet.peer("web"):
        async with Agent.started(own_environ) as agent:
            assert own_tailnet.agents() == []
            answer = await agent.succeed("tailscale_fetch", url="http://web/")
            (device,) = own_tailnet.agents()
        assert (
            f"Hello from web.{own_tailnet.magic_dns_suffix}. You are {device['name']} (alice@example.com)"
            in answer.text
        )
        assert any("Joining the tailnet" in stage for stage in answer.progress)


async def test_a_device_is_gone_a_moment_after_the_client_has_left(tailnet: Localnet, environ: dict[str, str]) -> None:
    async with Agent.started(environ) as agent:
        status = await agent.status()
        assert status["state"] == "running"
        assert await agent.stop() == 0
        removed = tailnet.wait_for("removed", status["hostname"])
        assert removed["hostname"] == status["hostname"]


async def test_the_sdk_client_does_the_main_job_too(tailnet: Localnet, environ: dict[str, str]) -> None:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "cctailscale"], env=environ | {"PATH": os.environ["PATH"]}
    )
    async with stdio_client(server) as (read_stream, write_stream), ClientSession(read_stream, write_stream) as session:
        await session.initialize()
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert {"tailscale_status", "tailscale_fetch"} <= names
        result = await session.call_tool("tailscale_fetch", {"url": "http://web:8080/bytes?n=5&type=text/plain"})
        assert not result.is_error
