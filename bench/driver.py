"""A process with a node and nothing of MCP, to measure below the tool, which caps an answer at 400 kB."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Literal

COMMAND = (sys.executable, "-m", "bench.driven")
# For a gibibyte on a machine that is busy.
ANSWER_SECONDS = 180.0
END_SECONDS = 15.0


class Driver:
    """The running child; see `bench.driven`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    @contextlib.asynccontextmanager
    async def joined(cls, settings: dict[str, str]) -> AsyncIterator[Driver]:
        """A child whose node runs. It logs out at the end."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "TS_DISABLE_PORTMAPPER": "1"} | settings,
        )
        driver = cls(process)
        try:
            await driver._answer()
            yield driver
            assert process.stdin is not None
            process.stdin.close()
            await asyncio.wait_for(process.wait(), END_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def download(self, how: Literal["http", "raw"], count: int) -> float:
        """Seconds for `count` bytes."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": how, "bytes": count}).encode() + b"\n")
        return float((await self._answer())["seconds"])

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_SECONDS)
        if not line:
            raise RuntimeError(f"the process with the node ended with {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
