"""A cc-tailscale process with an MCP client at its other end, as the SDK makes them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import anyio
import anyio.abc
from mcp import ClientSession, StdioServerParameters
from mcp.client.extension import NotificationBinding
from mcp.client.stdio import stdio_client
from mcp_types import TextContent
from pydantic import BaseModel

CHANNEL = "notifications/claude/channel"
# For one call, join included: everything is on this machine.
CALL_SECONDS = 30.0
LEAVE_SECONDS = 10.0
HINT_SECONDS = 5.0
# More than anybody here leaves unread.
MAX_HINTS = 16


@dataclass(frozen=True)
class Answer:
    """What a tool call brought: the text that the model reads, the data beside it, and how long it took."""

    text: str
    is_error: bool
    data: dict[str, Any]
    milliseconds: float


class Hint(BaseModel):
    """What a channel tells Claude without being asked: a line, and the attributes of its tag."""

    content: str
    meta: dict[str, str] = {}


class Agent:
    """One process and its client, held by a task of their own, so that agents can come and go in any order."""

    session: ClientSession
    version: str
    tools: list[str]
    answered_ms: float  # from the start of the process to the answer to `initialize`

    def __init__(self, user: str, environ: dict[str, str], log: TextIO) -> None:
        self.user = user
        self._pid_file = Path(environ["HOME"]) / "pid"
        self._environ = environ
        self._log = log
        self._leave = anyio.Event()
        self._gone = anyio.Event()
        self._told, self._hints = anyio.create_memory_object_stream[Hint](MAX_HINTS)

    @classmethod
    async def started(cls, tasks: anyio.abc.TaskGroup, user: str, environ: dict[str, str], log: TextIO) -> Agent:
        """Starts cc-tailscale in the `environ` of a `user`, its stderr in `log`, and shakes hands."""
        agent = cls(user, environ, log)
        await tasks.start(agent._hold)
        return agent

    async def _hold(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        # The SDK does not tell whom it has started; a shell that becomes the server does.
        arguments = ["-c", 'echo $$ >"$0"; exec "$@"', str(self._pid_file), *command_line()]
        server = StdioServerParameters(command="sh", args=arguments, env=self._environ)
        channel = NotificationBinding(method=CHANNEL, params_type=Hint, handler=self._told.send)
        began = time.perf_counter()
        try:
            async with (
                self._told,
                self._hints,
                stdio_client(server, self._log) as (read_stream, write_stream),
                ClientSession(read_stream, write_stream, CALL_SECONDS, notification_bindings=[channel]) as self.session,
            ):
                self.version = (await self.session.initialize()).server_info.version
                self.answered_ms = (time.perf_counter() - began) * 1000
                self.tools = [tool.name for tool in (await self.session.list_tools()).tools]
                task_status.started()
                await self._leave.wait()
        finally:
            self._gone.set()

    async def call(self, tool: str, arguments: dict[str, Any], on_progress: Callable[[str], None]) -> Answer:
        """Calls a tool; `on_progress` gets the stages that it reports on the way."""

        async def progressed(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK's
            on_progress(message or "")

        began = time.perf_counter()
        result = await self.session.call_tool(tool, arguments, progress_callback=progressed)
        text = "\n".join(item.text for item in result.content if isinstance(item, TextContent))
        passed = (time.perf_counter() - began) * 1000
        return Answer(text, bool(result.is_error), result.structured_content or {}, passed)

    async def hint(self) -> Hint:
        """The next thing that the server tells without being asked."""
        with anyio.fail_after(HINT_SECONDS):
            return await self._hints.receive()

    async def leave(self) -> int:
        """Hangs up, which closes the server's stdin, and waits for its end. The moment of it, Unix nanoseconds."""
        moment = time.time_ns()
        self._leave.set()
        with anyio.fail_after(LEAVE_SECONDS):
            await self._gone.wait()
        return moment

    async def kill(self) -> None:
        """Kills the server with SIGKILL: it can say goodbye to nobody."""
        os.kill(int(self._pid_file.read_text()), signal.SIGKILL)
        await self.leave()


def command_line() -> list[str]:
    """The installed console script; the module where only the checkout is on the path."""
    beside = Path(sys.executable).parent
    script = shutil.which("cc-tailscale", path=str(beside))
    return [script] if script else [sys.executable, "-m", "cctailscale"]
