"""Whatever arguments a tool is called with, its answer is a result or an error that was meant, and comes in time.

The arguments are made of the tool's own schema. The server runs on, and holds nothing more afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tests import schemas
from tests.agent import Agent, Json
from tests.conftest import environ_for
from tests.localnet import Localnet

TOOLS = (
    "acl_check", "agents", "cert", "check_messages", "connect_test", "devices", "dns_lookup", "fetch", "netcheck",
    "ping", "port_forward", "send_message", "status", "task_create", "task_list", "task_update", "team_create",
    "team_info", "team_join", "team_leave", "whois",
)  # fmt: skip
# What would make a call take as long as it is told to.
SMALL: dict[str, Any] = {"wait_seconds": 0.01, "timeout_seconds": 2, "timeout": 2, "count": 1}
ANSWER_SECONDS = 30
CALLS = 60
# An error is some sentences, whatever was asked.
MAX_ERROR_CHARS = 6_000
# Connections that wait to be used again.
SPARE_FDS = 8


class Server:
    """One process for all tools, and what it held before."""

    def __init__(self, agent: Agent, tools: dict[str, Json]) -> None:
        self.agent, self.tools = agent, tools
        self.fds = fds(agent)

    async def sound(self) -> None:
        """The server is there, and has no more open than before but for what it keeps for a while."""
        await self.agent.succeed("tailscale_port_forward", action="list")
        assert "Traceback" not in self.agent.stderr
        async with asyncio.timeout(ANSWER_SECONDS):
            while fds(self.agent) > self.fds + SPARE_FDS:  # noqa: ASYNC110 - another process: there is no event
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module", params=["joined", "not joined"])
async def server(
    request: pytest.FixtureRequest, tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    environ = environ_for(tailnet, tmp_path_factory.mktemp("agent")) | {"TS_ENABLE_TEAMS": "1"}
    where: Literal["joined", "not joined"] = request.param
    if where == "not joined":  # somebody would have to log in
        del environ["TS_AUTHKEY"]
    async with Agent.started(environ) as agent:
        tools = {tool["name"].removeprefix("tailscale_"): tool for tool in (await agent.request("tools/list"))["tools"]}
        await agent.call("tailscale_fetch", url="http://web/")
        yield Server(agent, tools)


async def test_each_tool_is_looked_at_here(server: Server) -> None:
    assert set(server.tools) == set(TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
async def test_no_arguments_make_a_tool_hang_break_or_leak(server: Server, tool: str) -> None:
    for arguments in schemas.calls(server.tools[tool]["inputSchema"], SMALL, CALLS):
        result = await server.agent.call(f"tailscale_{tool}", ANSWER_SECONDS, **arguments)
        assert "Error executing tool" not in result.text, arguments
        if result.is_error:
            assert all(c in "\n\t" or c.isprintable() for c in result.text), arguments
            assert len(result.text) < MAX_ERROR_CHARS, arguments
    await server.sound()


def fds(agent: Agent) -> int:
    return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
