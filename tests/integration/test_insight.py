"""The log of the real process, on the local tailnet."""

from __future__ import annotations

import asyncio

from tests.agent import Agent
from tests.unit.test_logs import read

# ---- the log ---------------------------------------------------------------------------------------------------------


async def test_every_line_of_the_log_is_of_its_form_and_has_the_call_that_caused_it(environ: dict[str, str]) -> None:
    async with Agent.started(environ | {"TS_LOG_LEVEL": "debug"}) as agent:
        await agent.request("tools/list")  # so that the call is not the first request
        number, answer = agent.begin("tools/call", {"name": "tailscale_status", "arguments": {}})
        await asyncio.wait_for(answer, 20)
        await agent.send_raw(b"no JSON\n")
        await agent.request("ping")
        assert await agent.stop() == 0
    fields = [read(line) for line in agent.stderr.splitlines()]
    (joining,) = [line for line in fields if line["msg"].startswith("joined the tailnet of ")]
    assert joining["call"] == str(number)
    assert (joining["level"], joining["source"]) == ("info", "tailnet.node")
    (stray,) = [line for line in fields if "no JSON-RPC" in line["msg"]]
    assert stray["level"] == "warning"
    assert "call" not in stray


async def test_the_log_is_as_loud_as_asked_for(environ: dict[str, str]) -> None:
    async with Agent.started(environ | {"TS_LOG_LEVEL": "error"}) as agent:
        await agent.succeed("tailscale_status")
        assert await agent.stop() == 0
    assert agent.stderr == ""
