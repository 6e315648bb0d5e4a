"""The real cc-tailscale process, spoken to over stdio by a client of its own: small, and free of the SDK under test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROTOCOL = "2025-11-25"
ANSWER_SECONDS = 40.0
STOP_SECONDS = 15.0
LINE_BYTES = 64 << 20

Json = dict[str, Any]


@dataclass
class Result:
    """A tool's result: what the model reads."""

    text: str
    is_error: bool
    structured: Json | None
    progress: list[str] = field(default_factory=list)


class RpcError(Exception):
    """A JSON-RPC error that the server answered with."""

    def __init__(self, error: Json) -> None:
        super().__init__(error.get("message"))
        self.code = error.get("code")


class Agent:
    """One process. `lines` holds every line of its stdout, `stderr` what it logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.lines: list[str] = []
        self.stderr = ""
        self.notifications: list[Json] = []
        self.initialized: Json = {}
        # What the client answers to the server's requests, by method (elicitation/create).
        self.handlers: dict[str, Callable[[Json], Awaitable[Json]]] = {}
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._progress: dict[int, list[str]] = {}
        self._progressed = asyncio.Event()
        self._last_id = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls,
        environ: dict[str, str],
        *,
        handshake: bool = True,
        capabilities: Json | None = None,
        cwd: Path | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "cctailscale"),
    ) -> AsyncIterator[Agent]:
        """Starts the server in `environ` (and nothing else but PATH). It is killed at the end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "TS_DISABLE_PORTMAPPER": "1"} | environ,
            cwd=cwd,
            limit=LINE_BYTES,
        )
        agent = cls(process)
        readers = [asyncio.create_task(agent._read()), asyncio.create_task(agent._read_errors())]
        try:
            if handshake:
                await agent.handshake(capabilities or {})
            yield agent
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
            await asyncio.wait(readers, timeout=5)
            for task in [*readers, *agent._tasks]:
                task.cancel()

    async def handshake(self, capabilities: Json) -> None:
        client = {"name": "test", "version": "1"}
        parameters = {"protocolVersion": PROTOCOL, "capabilities": capabilities, "clientInfo": client}
        self.initialized = await self.request("initialize", parameters)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def send(self, message: Json) -> None:
        await self.send_raw(json.dumps(message).encode() + b"\n")

    async def send_raw(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    def begin(self, method: str, parameters: Json | None = None) -> tuple[int, asyncio.Future[Json]]:
        """Registers a request; the caller sends it with the id. The future has the result, or RpcError."""
        self._last_id += 1
        number = self._last_id
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._progress[number] = []
        message = {"jsonrpc": "2.0", "id": number, "method": method}
        meta = {"_meta": {"progressToken": number}} if method == "tools/call" else {}
        message["params"] = (parameters or {}) | meta
        task = asyncio.create_task(self.send(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return number, self._waiting[number]

    async def request(self, method: str, parameters: Json | None = None, seconds: float = ANSWER_SECONDS) -> Json:
        _, answer = self.begin(method, parameters)
        return await asyncio.wait_for(answer, seconds)

    async def call(self, tool: str, /, seconds: float = ANSWER_SECONDS, **arguments: Any) -> Result:
        """Calls a tool and gives its result, error or not."""
        number, answer = self.begin("tools/call", {"name": tool, "arguments": arguments})
        result = await asyncio.wait_for(answer, seconds)
        text = "\n".join(item.get("text", "") for item in result["content"])
        return Result(text, result.get("isError", False), result.get("structuredContent"), self._progress[number])

    async def succeed(self, tool: str, /, **arguments: Any) -> Result:
        result = await self.call(tool, **arguments)
        assert not result.is_error, result.text
        return result

    async def fail(self, tool: str, /, **arguments: Any) -> str:
        """The text of the tool's error."""
        result = await self.call(tool, **arguments)
        assert result.is_error, f"no error but: {result.text}"
        return result.text

    async def status(self) -> Json:
        """The structured content of tailscale_status."""
        structured = (await self.succeed("tailscale_status")).structured
        assert structured is not None
        return structured

    async def progressed(self, number: int, wanted: str, seconds: float = ANSWER_SECONDS) -> None:
        """Waits until request `number` has reported a stage that holds `wanted`."""
        async with asyncio.timeout(seconds):
            while not any(wanted in stage for stage in self._progress[number]):
                self._progressed.clear()
                await self._progressed.wait()

    async def cancel(self, number: int) -> None:
        await self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})

    async def stop(self, how: signal.Signals | None = None, seconds: float = STOP_SECONDS) -> int:
        """Closes stdin, or sends a signal, and waits for the end; the exit code."""
        if how is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
        else:
            self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), seconds)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode())
            try:
                message = json.loads(line)
            except ValueError:
                continue  # kept in `lines`: a test looks there
            await self._take(message)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EOFError("the server closed its stdout"))
                answer.exception()  # somebody may not wait for it any more

    async def _take(self, message: Json) -> None:
        if "method" in message and "id" in message:
            handler = self.handlers.get(message["method"])
            if handler is not None:
                result = await handler(message.get("params", {}))
                await self.send({"jsonrpc": "2.0", "id": message["id"], "result": result})
            return
        if "method" in message:
            self.notifications.append(message)
            if message["method"] == "notifications/progress":
                stages = self._progress.get(message["params"]["progressToken"])
                if stages is not None:
                    stages.append(message["params"].get("message", ""))
                    self._progressed.set()
            return
        answer = self._waiting.get(message.get("id"))  # type: ignore[arg-type]
        if answer is not None and not answer.done():
            if "error" in message:
                answer.set_exception(RpcError(message["error"]))
            else:
                answer.set_result(message["result"])

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while part := await self.process.stderr.read(65536):
            self.stderr += part.decode(errors="replace")
