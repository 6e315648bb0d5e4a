"""The child of `bench.agents`: a process with agents and no MCP, who take as many messages as come.

`python -m bench.talking COUNT`. Its first line is {"addresses": [...]}, one for each agent. It reads commands from
stdin, one JSON object a line: {"do": "send", "to": ADDRESS, "count": N} has the first agent deliver N messages, one
after the other, and is answered with {"seconds": S, "ids": [...]}; {"do": "take"} with {"ids": [...]}, the unread
messages of the first agent in their order. It logs out at the end of its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from bench.driven import LOGOUT_SECONDS
from cctailscale import __version__
from cctailscale.agents import client
from cctailscale.agents.inbox import Inbox
from cctailscale.agents.policy import Policy
from cctailscale.agents.rate import Rate
from cctailscale.agents.server import AgentServer
from cctailscale.agents.store import LIMITS
from cctailscale.agents.wire import PORT, PROTOCOL, AgentCard, Message
from cctailscale.config import load_settings
from cctailscale.redact import Redactor
from cctailscale.tailnet.attempt import unheard
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.listener import Listener
from cctailscale.tailnet.node import Node

UNLIMITED = 10**9
DELIVER_SECONDS = 10.0


@contextlib.asynccontextmanager
async def talking(environ: dict[str, str]) -> AsyncIterator[tuple[Device, Inbox]]:
    """One agent, put together as `agents.agent` does it, but for the limit on messages."""
    loaded = load_settings(environ)
    async with Node.opened(loaded, Redactor(*loaded.settings.secrets())) as node:
        device = await node.device(unheard)
        since = datetime.now(UTC)

        def card() -> AgentCard:
            return AgentCard(name=node.hostname or "", version=__version__, protocol=PROTOCOL, since=since)

        async with (
            Inbox.opened(loaded.settings.state_dir / "inbox.db") as inbox,
            AgentServer.opened(inbox, Policy(), card, Rate(UNLIMITED, UNLIMITED)) as server,
            Listener.opened(device.handle, PORT) as listener,
            anyio.create_task_group() as serving,
        ):
            serving.start_soon(listener.serve, partial(server.serve, device))
            yield device, inbox
            await node.stop(LOGOUT_SECONDS)
            serving.cancel_scope.cancel()


async def serve(count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        agents: list[tuple[Device, Inbox]] = []
        for number in range(count):
            state = Path(os.environ["TS_STATE_DIR"]) / str(number)
            environ = dict(os.environ) | {"TS_STATE_DIR": str(state), "CLAUDE_CODE_SESSION_ID": str(number)}
            agents.append(await stack.enter_async_context(talking(environ)))
        answer({"addresses": [await _address(device) for device, _ in agents]})
        device, inbox = agents[0]
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            if command["do"] == "send":
                answer(await _send(device, command["to"], command["count"]))
            else:
                answer({"ids": [message.id for message in await inbox.take(LIMITS.unread)]})


async def _send(device: Device, to: str, count: int) -> dict[str, Any]:
    messages = [Message.new(f"Number {number}", "Is main green at your end?") for number in range(count)]
    began = time.perf_counter()
    for message in messages:
        await client.deliver(device, to, message, DELIVER_SECONDS)
    return {"seconds": time.perf_counter() - began, "ids": [message.id for message in messages]}


async def _address(device: Device) -> str:
    me = await device.me()
    assert me is not None
    return me.node.addresses[0].partition("/")[0]


def answer(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
