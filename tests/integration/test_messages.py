"""Messages between real processes: found, delivered, read, answered, and refused where the policy says so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet

BOUND = 20.0
CHANNEL = "notifications/claude/channel"


def settings(tailnet: Localnet, folder: Path, name: str, **more: str) -> dict[str, str]:
    """The environment of an agent called `cc-{name}-…`, of alice@example.com unless it has another key."""
    home = folder / name
    home.mkdir(exist_ok=True)
    project = home / f"{name}-project"
    project.mkdir(exist_ok=True)
    environ = environ_for(tailnet, home) | {"USER": name, "CLAUDE_PROJECT_DIR": str(project)}
    return environ | {"CLAUDE_CODE_SESSION_ID": f"session-of-{name}"} | more


@asynccontextmanager
async def joined(environ: dict[str, str]) -> AsyncIterator[tuple[Agent, str]]:
    """A running agent and its MagicDNS name."""
    async with Agent.started(environ) as agent:
        status = await agent.status()
        assert status["state"] == "running", status
        yield agent, status["magic_dns_name"]


async def answering(agent: Agent, *names: str) -> dict[str, Any]:
    """What tailscale_agents says once all these agents answer."""
    async with asyncio.timeout(BOUND):
        while True:
            listed = (await agent.succeed("tailscale_agents")).structured
            assert listed is not None
            if set(names) <= {row["name"] for row in listed["agents"] if not row.get("this_agent")}:
                return listed


async def sent(agent: Agent, **arguments: Any) -> dict[str, Any]:
    result = (await agent.succeed("tailscale_send_message", **arguments)).structured
    assert result is not None
    return result


async def test_two_agents_find_each_other_and_talk(tailnet: Localnet, tmp_path: Path) -> None:
    async with (
        joined(settings(tailnet, tmp_path, "ann")) as (ann, her),
        joined(settings(tailnet, tmp_path, "ben")) as (ben, his),
    ):
        listed = await answering(ann, his)
        (row,) = [row for row in listed["agents"] if row["name"] == his]
        assert row["project"] == "ben-project"
        assert row["owner"] == "alice@example.com"
        assert row["we_may_message_it"]
        assert row["it_may_message_this_agent"]
        assert listed["agents"][0]["this_agent"]

        question = await sent(ann, to=his, subject="Port?", body="Which port does the API have?")
        assert question["delivered_count"] == 1
        text = (await ben.succeed("tailscale_check_messages")).text
        assert f"From {her} (alice@example.com), verified" in text
        assert "Which port does the API have?" in text
        (number,) = re.findall(r"\bid ([\w-]+);", text)
        assert number == question["id"]

        answer = await sent(ben, to=her, subject="Re: Port?", body="8080", in_reply_to=number)
        text = (await ann.succeed("tailscale_check_messages")).text
        assert "8080" in text
        assert f"in reply to {number}" in text
        assert re.search(rf"{number} to {re.escape(his)}: read ", text)
        assert answer["thread"]
        assert "No new messages." in (await ann.succeed("tailscale_check_messages")).text
