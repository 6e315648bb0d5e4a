"""`cc-tailscale login`: a person logs in once, and the project's device stays for its sessions."""

from __future__ import annotations

import argparse
from typing import Any

import anyio.to_thread

from cctailscale.commands.calls import Tools
from cctailscale.commands.render import rendered
from cctailscale.commands.screen import Screen
from cctailscale.config import Settings
from cctailscale.errors import DeviceInUse
from cctailscale.tailnet.session import Session

# For a person with a password, a second factor and perhaps an administrator to ask, unless TS_JOIN_TIMEOUT says else.
LOGIN_SECONDS = 600.0
# The device that the server has in this project with TS_EPHEMERAL=false. A key is not used: it is a person who logs in.
STORED: dict[str, Any] = {"ephemeral": False} | dict.fromkeys(
    ("auth_key", "auth_key_file", "client_secret", "client_secret_file")
)


async def logged_in(arguments: argparse.Namespace, screen: Screen, tools: Tools) -> int:
    """0 once the device is logged in. Raises DeviceInUse, and what `Tools.joined` raises."""
    settings = tools.parts.loaded.check()
    in_use = await anyio.to_thread.run_sync(Session.in_use, settings)
    if in_use is not None:
        raise DeviceInUse(in_use)
    already = await tools.parts.node.attempt(tools.progress) is not None
    await tools.joined(_seconds(settings))
    status = await tools.call("tailscale_status")
    tools.progress.pause()
    if arguments.json:
        screen.result_json(status.model_dump(mode="json"))
    else:
        screen.result(*rendered(status, screen))
    screen.note("This device was logged in already." if already else "This device is logged in now.", "bold green")
    screen.note(f"With TS_EPHEMERAL=false, Claude Code's sessions in {settings.project_dir} use it.", "dim")
    return 0


def _seconds(settings: Settings) -> float:
    return settings.join_timeout if "TS_JOIN_TIMEOUT" in settings.given else LOGIN_SECONDS
