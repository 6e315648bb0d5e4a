"""A process with a node and nothing of MCP, to measure below the tool, which caps an answer at 400 kB."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

PROGRAM = ("bench.driven",)
# For a gibibyte on a machine that is busy.
ANSWER_SECONDS = 180.0
END_SECONDS = 15.0
# Of an answer: some ten thousand samples.
LINE_BYTES = 4 << 20


class Driver:
    """The running child; see `bench.driven`. `ready` is the first line that it wrote."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.ready: dict[str, Any] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def joined(cls, settings: dict[str, str], program: Sequence[str] = PROGRAM) -> AsyncIterator[Driver]:
        """A child whose node runs: a module, and its arguments. It logs out at the end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *program),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "TS_DISABLE_PORTMAPPER": "1"} | settings,
            limit=LINE_BYTES,
        )
        driver = cls(process)
        try:
            driver.ready = await driver._answer()
            yield driver
            assert process.stdin is not None
            process.stdin.close()
            await asyncio.wait_for(process.wait(), END_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def move(self, how: Literal["http", "raw", "upload"], count: int) -> float:
        """Seconds for `count` bytes from the peer, or to it."""
        return float((await self.ask({"do": how, "bytes": count}))["seconds"])

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """What the child answers to a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_SECONDS)
        if not line:
            raise RuntimeError(f"the process with the node ended with {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
