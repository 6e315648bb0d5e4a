"""The MCP inspector and the TypeScript SDK drive every tool, on the local tailnet."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cctailscale import __version__
from tests.conftest import environ_for
from tests.ecosystem.outside import SERVER, Outside, calls
from tests.localnet import Localnet
from tests.talking import joined, settings

PROGRAM = Path(__file__).parent / "client.mjs"
WITH_TEAMS = {"TS_ENABLE_TEAMS": "1"}
FOR_TEAMS = [tool for tool in calls("") if tool.startswith(("tailscale_team_", "tailscale_task_"))]


@pytest.fixture(scope="module")
async def ann(outside: Outside, tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The name of another agent, to write to, which leads a team."""
    async with joined(settings(tailnet, tmp_path_factory.mktemp("ann"), "ann", **WITH_TEAMS)) as (agent, name):
        await agent.succeed("tailscale_team_create", name="release")
        yield name


async def inspected(outside: Outside, environ: dict[str, str], tool: str, arguments: Any) -> Any:
    """What a tool answers to the inspector, which starts the server for it and ends it."""
    call = ("--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    ran = await outside.inspector(environ, "--method", "tools/call", *call, "--format", "json", "--quiet")
    assert ran.code == 0, ran.err or ran.out
    result = json.loads(ran.out)["result"]
    assert not result.get("isError"), result
    return result


async def test_the_inspector_has_nothing_to_say_about_the_tools_schemas(
    outside: Outside, environ: dict[str, str]
) -> None:
    listing = ("--method", "tools/list", "--strict", "--format", "json")
    ran = await outside.inspector(environ | WITH_TEAMS, *listing)
    assert (ran.code, ran.err) == (0, "")  # a warning would stand in the latter
    assert {tool["name"] for tool in json.loads(ran.out)["result"]["tools"]} == set(calls(""))


@pytest.mark.parametrize("tool", [tool for tool in calls("") if tool not in FOR_TEAMS])
async def test_the_inspector_drives_each_tool(outside: Outside, environ: dict[str, str], ann: str, tool: str) -> None:
    assert (await inspected(outside, environ, tool, calls(ann)[tool]))["content"]


async def test_the_inspector_drives_the_tools_for_teams_in_sessions_that_go_on_where_the_last_one_ended(
    outside: Outside, environ: dict[str, str], ann: str
) -> None:
    told = {
        tool: (await inspected(outside, environ | WITH_TEAMS, tool, calls(ann)[tool]))["structuredContent"]
        for tool in FOR_TEAMS
    }
    assert told["tailscale_team_info"]["team"] == "release"
    assert told["tailscale_task_update"]["id"] == told["tailscale_task_create"]["id"]
    assert told["tailscale_team_create"]["your_role"] == "lead"


async def test_the_typescript_sdk_drives_every_tool_on_one_connection_and_leaves_no_device(
    outside: Outside, tailnet: Localnet, tmp_path: Path, ann: str
) -> None:
    environ = environ_for(tailnet, tmp_path) | WITH_TEAMS | {"TS_HOSTNAME": "cc-from-typescript"}
    before = tailnet.last_event()
    command, *args = SERVER
    given = {"modules": str(outside.modules), "command": command, "args": args, "env": environ, "calls": calls(ann)}
    ran = await outside.run({"HOME": str(tmp_path)}, PROGRAM, given=json.dumps(given))
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["server"]["version"] == __version__
    assert set(told["tools"]) == set(told["results"]) == set(calls(ann))
    assert {name for name, result in told["results"].items() if result.get("isError")} == set()
    assert "Hello from web." in told["results"]["tailscale_fetch"]["content"][0]["text"]
    assert told["results"]["tailscale_status"]["structuredContent"]["state"] == "running"
    tailnet.wait_for("removed", after=before)
    assert [node for node in tailnet.agents() if node["hostname"].startswith("cc-from-typescript")] == []
