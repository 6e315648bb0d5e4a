"""Agents that talk to each other: real processes on the local tailnet, and what tests ask of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cctailscale.agents.wire import PORT, AgentCard, Message, Receipt
from tests.agent import Agent, Json
from tests.conftest import environ_for
from tests.localnet import Localnet
from tests.scripted import ScriptedPeer, http

# A peer that was killed and is back: WireGuard notices within 15 s (KeepaliveTimeout + RekeyTimeout) that the old
# session leads nowhere, if control's news of it comes too late.
BOUND = 30.0
CHANNEL = "notifications/claude/channel"
JSON = "application/json"


def settings(tailnet: Localnet, folder: Path, name: str, **more: str) -> dict[str, str]:
    """The environment of an agent called `cc-{name}-…`, of alice@example.com unless it has another key."""
    home = folder / name
    home.mkdir(exist_ok=True)
    project = home / f"{name}-project"
    project.mkdir(exist_ok=True)
    environ = environ_for(tailnet, home) | {"USER": name, "CLAUDE_PROJECT_DIR": str(project)}
    return environ | {"CLAUDE_CODE_SESSION_ID": f"session-of-{name}"} | more


@asynccontextmanager
async def joined(environ: dict[str, str], **how: Any) -> AsyncIterator[tuple[Agent, str]]:
    """A running agent and its MagicDNS name; `how` is for Agent.started."""
    async with Agent.started(environ, **how) as agent:
        yield agent, await name_of(agent)


async def name_of(agent: Agent) -> str:
    """The MagicDNS name of an agent, which joins for it."""
    status = await agent.status()
    assert status["state"] == "running", status
    name: str = status["magic_dns_name"]
    return name


async def agents(agent: Agent, **arguments: Any) -> Json:
    """What tailscale_agents says."""
    listed = (await agent.succeed("tailscale_agents", **arguments)).structured
    assert listed is not None
    return listed


async def answering(agent: Agent, *names: str) -> Json:
    """What tailscale_agents says once all these agents answer."""
    async with asyncio.timeout(BOUND):
        while True:
            listed = await agents(agent)
            if set(names) <= {row["name"] for row in listed["agents"] if not row.get("this_agent")}:
                return listed


async def sent(agent: Agent, **arguments: Any) -> Json:
    """What tailscale_send_message says of a message that somebody has."""
    result = (await agent.succeed("tailscale_send_message", **arguments)).structured
    assert result is not None
    return result


async def outcomes(agent: Agent, to: Any, **arguments: Any) -> dict[str, str]:
    """The outcome of a message for each of its recipients; somebody has it."""
    result = await sent(agent, to=to, **({"subject": "Build", "body": "Is it green?"} | arguments))
    return {one["to"]: one["outcome"] for one in result["recipients"]}


async def checked(agent: Agent, **arguments: Any) -> str:
    """What tailscale_check_messages says."""
    return (await agent.succeed("tailscale_check_messages", **arguments)).text


async def told(agent: Agent, words: str) -> str:
    """What tailscale_check_messages says once these words are in it; what came before it is read too."""
    async with asyncio.timeout(BOUND):
        while words not in (text := await checked(agent)):  # noqa: ASYNC110 - the event is another process's
            await asyncio.sleep(0.1)
    return text


async def did(agent: Agent, tool: str, /, **arguments: Any) -> Json:
    """What a tool for teams answers."""
    answer = (await agent.succeed(f"tailscale_{tool}", **arguments)).structured
    assert answer is not None
    return answer


async def did_again(agent: Agent, tool: str, /, **arguments: Any) -> Json:
    """What a tool for teams answers once the lead is back; until then it says that the lead is offline."""
    async with asyncio.timeout(BOUND):
        while (answer := await agent.call(f"tailscale_{tool}", **arguments)).is_error:
            assert "has been offline since" in answer.text
    assert answer.structured is not None
    return answer.structured


async def history(agent: Agent, task: str) -> list[Json]:
    """What happened to a task, the latest last."""
    entries: list[Json] = (await did(agent, "task_update", action="update", id=task))["history"]
    return entries


async def lapsed(lead: Agent, task: str, seconds: float = BOUND) -> str:
    """Why the task's owner has lost its claim, once it has: by nobody."""
    async with asyncio.timeout(seconds):
        while (last := (await history(lead, task))[-1])["what"] != "claim lost":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
    assert "by" not in last
    reason: str = last["reason"]
    return reason


async def until(true: Callable[[], bool], seconds: float = BOUND) -> None:
    """Waits for what has no event: lines that a process has written."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


def pushed(agent: Agent) -> list[Json]:
    """The parameters of the hints that this agent's client was sent, in order."""
    return [note["params"] for note in agent.notifications if note["method"] == CHANNEL]


@asynccontextmanager
async def scripted(tailnet: Localnet, folder: Path, hostname: str) -> AsyncIterator[ScriptedPeer]:
    """A peer that looks like an agent, of alice@example.com; the test says what it answers."""
    async with ScriptedPeer.joined(tailnet, hostname, folder / hostname) as peer:
        peer.answer("/v1/agent", answer(card(hostname)))
        await peer.serve_http(PORT)
        yield peer


def card(name: str, **more: Any) -> AgentCard:
    facts = {"name": name, "version": "1.0", "protocol": 1, "since": datetime.now(UTC), "may_message": True}
    return AgentCard(**(facts | more))


def receipt(message: Message | Json) -> Receipt:
    """That this message is stored."""
    number = message.id if isinstance(message, Message) else message["id"]
    return Receipt(id=number, state="delivered", delivered=datetime.now(UTC))


def answer(document: AgentCard | Receipt | Json, status: str = "200 OK", content_type: str = JSON) -> bytes:
    """An answer with a document of the protocol, as bytes."""
    body = json.dumps(document) if isinstance(document, dict) else document.to_json()
    return http(body, status, Content_Type=content_type)


def refusal(status: str, error: str, message: str, **more: Any) -> bytes:
    return answer({"error": error, "message": message} | more, status)
