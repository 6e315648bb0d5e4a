"""The MCP inspector and the TypeScript SDK drive every tool, on the local tailnet."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cctailscale import __version__
from tests.conftest import environ_for
from tests.ecosystem.outside import SERVER, Outside, calls
from tests.localnet import Localnet
from tests.talking import joined, settings

PROGRAM = Path(__file__).parent / "client.mjs"


@pytest.fixture(scope="module")
async def ann(outside: Outside, tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The name of another agent, to write to."""
    async with joined(settings(tailnet, tmp_path_factory.mktemp("ann"), "ann")) as (_, name):
        yield name


async def test_the_inspector_has_nothing_to_say_about_the_tools_schemas(
    outside: Outside, environ: dict[str, str]
) -> None:
    ran = await outside.inspector(environ, "--method", "tools/list", "--strict", "--format", "json")
    assert (ran.code, ran.err) == (0, "")  # a warning would stand in the latter
    assert {tool["name"] for tool in json.loads(ran.out)["result"]["tools"]} == set(calls(""))


@pytest.mark.parametrize("tool", calls(""))
async def test_the_inspector_drives_each_tool(
    outside: Outside, tailnet: Localnet, environ: dict[str, str], ann: str, tool: str
) -> None:
    arguments = json.dumps(calls(ann)[tool])
    words = (
        "--method",
        "tools/call",
        "--tool-name",
        tool,
        "--tool-args-json",
        arguments,
        "--format",
        "json",
        "--quiet",
    )
    ran = await outside.inspector(environ, *words)
    assert ran.code == 0, ran.err or ran.out
    result = json.loads(ran.out)["result"]
    assert not result.get("isError"), result
    assert result["content"]


async def test_the_typescript_sdk_drives_every_tool_on_one_connection_and_leaves_no_device(
    outside: Outside, tailnet: Localnet, tmp_path: Path, ann: str
) -> None:
    environ = environ_for(tailnet, tmp_path) | {"TS_HOSTNAME": "cc-from-typescript"}
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
