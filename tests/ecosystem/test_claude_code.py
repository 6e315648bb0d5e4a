"""The real Claude Code: it takes the plug-in, sees the server connected, and is told by the hook that messages wait."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import pytest

from cctailscale.agents import place, unread
from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Principal
from cctailscale.agents.wire import Message
from cctailscale.config import load_settings
from tests.ecosystem.model import Model, text, tool
from tests.ecosystem.outside import ROOT, SERVER, Outside
from tests.localnet import Localnet

PLUGIN = "cc-tailscale@cc-tailscale"
SERVER_OF_PLUGIN = "plugin:cc-tailscale:tailscale"
CHECK, STATUS = (f"mcp__plugin_cc-tailscale_tailscale__tailscale_{name}" for name in ("check_messages", "status"))
BOB = Principal("n9", "cc-bob-app-3c4d.tail1234.ts.net", "bob@example.com")
LINE = "Tailnet: 1 unread message from cc-bob-app-3c4d.tail1234.ts.net (1)."


def folder(environ: dict[str, str]) -> Path:
    return Path(environ["CLAUDE_PROJECT_DIR"])


def no_device_was_made(tailnet: Localnet, environ: dict[str, str]) -> bool:
    """Whether no device has ever joined, and no session's directory is left."""
    return tailnet.nodes() == [] and tailnet.last_event() == 0 and not [*Path(environ["TS_STATE_DIR"]).glob("cc-*")]


@pytest.fixture
def with_uvx(own_environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment in which `uvx cc-tailscale` is this checkout, and leaves the key that it was given in `key`."""
    (tmp_path / "bin").mkdir()
    script = f"""#!/bin/sh
while [ "$1" != cc-tailscale ]; do shift; done
shift
[ $# -gt 0 ] || printf %s "$TS_AUTHKEY" > "{tmp_path}/key"
exec {sys.executable} -m cctailscale "$@"
"""
    (tmp_path / "bin" / "uvx").write_text(script)
    (tmp_path / "bin" / "uvx").chmod(0o755)
    return own_environ | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


# ---- by hand


async def test_a_server_that_was_added_is_connected_and_leaves_no_device_behind(
    outside: Outside, own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    given = [
        word for name, value in own_environ.items() if name.startswith("TS_") for word in ("-e", f"{name}={value}")
    ]
    project = folder(own_environ)
    added = await outside.claude(own_environ, project, "mcp", "add", "tailscale", *given, "--", *SERVER)
    assert added.code == 0, added.err
    listed = await outside.claude(own_environ, project, "mcp", "list")
    assert f"tailscale: {' '.join(SERVER)} - ✔ Connected" in listed.out
    got = await outside.claude(own_environ, project, "mcp", "get", "tailscale")
    assert "Status: ✔ Connected" in got.out
    assert no_device_was_made(own_tailnet, own_environ)


# ---- as a plug-in


@pytest.mark.parametrize("what", [".", ".claude-plugin/plugin.json", ".claude-plugin/marketplace.json"])
async def test_claude_code_finds_nothing_wrong_with_the_plugin(outside: Outside, tmp_path: Path, what: str) -> None:
    ran = await outside.claude({"HOME": str(tmp_path)}, ROOT, "plugin", "validate", "--strict", "--json", what)
    told = json.loads(ran.out)
    assert (ran.code, told["success"], told["strict"]) == (0, True, True)
    assert told["manifest"]["errors"] == told["manifest"]["warnings"] == []
    assert [part for part in told["contents"] if part.get("errors") or part.get("warnings")] == []


async def test_the_plugins_server_is_connected_with_the_key_that_was_kept_as_a_secret(
    outside: Outside, own_tailnet: Localnet, with_uvx: dict[str, str], tmp_path: Path
) -> None:
    key = with_uvx.pop("TS_AUTHKEY")
    install = ("plugin", "install", "cc-tailscale", "--marketplace", str(ROOT))
    installed = await outside.claude(with_uvx, folder(with_uvx), *install, "--config", f"auth_key={key}")
    assert installed.code == 0, installed.err
    listed = await outside.claude(with_uvx, folder(with_uvx), "mcp", "list")
    assert f"{SERVER_OF_PLUGIN}: uvx cc-tailscale - ✔ Connected" in listed.out
    assert (tmp_path / "key").read_text() == key
    assert [file for file in tmp_path.rglob("*settings*.json") if key in file.read_text()] == []
    assert no_device_was_made(own_tailnet, with_uvx)


async def test_claude_is_told_by_the_hook_before_the_prompt_and_after_the_turn_and_reads_what_waits(
    outside: Outside, own_tailnet: Localnet, with_uvx: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "authkey").write_text(with_uvx.pop("TS_AUTHKEY"))
    (tmp_path / "authkey").chmod(0o600)
    with_uvx["TS_AUTHKEY_FILE"] = str(tmp_path / "authkey")
    session = str(uuid.uuid4())
    settings = load_settings(with_uvx | {"CLAUDE_CODE_SESSION_ID": session}).settings
    async with Inbox.claimed(settings) as inbox:
        await inbox.put(BOB, Message.new("Port", "It listens on 8443."))
        unread.write(inbox.folder, unread.Unread(place.identity(settings), 1, ((BOB.name, 1),)))
    answers = text("Nothing to do."), tool(CHECK), tool(STATUS), text("It is 8443.")
    async with Model.running(*answers) as model:
        environ = with_uvx | {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "made-up"}
        words = ("--print", "Hello.", "--session-id", session, "--plugin-dir", str(ROOT))
        ran = await outside.claude(environ, folder(environ), *words, "--allowedTools", f"{CHECK},{STATUS}")
    assert (ran.code, ran.out.strip()) == (0, "It is 8443."), ran.err
    prompt, stop, reading, last = model.asked
    assert prompt.count(LINE) == 1
    assert stop.count(LINE) == 2
    assert "It listens on 8443." not in stop
    assert "It listens on 8443." in reading
    assert json.loads(json.loads(last)[-1]["content"][0]["content"])["state"] == "running"
    assert last.count(LINE) == 2  # and the turn ended for good
    assert unread.read(settings.state_dir) == []
    own_tailnet.wait_for("removed")
    assert own_tailnet.agents() == []
