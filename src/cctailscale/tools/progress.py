"""What a call tells while it runs."""

from typing import Any

from mcp.server.mcpserver import Context


class Progress:
    """MCP progress of one call; without a progress token it goes nowhere. Called with a stage, it reports that."""

    def __init__(self, ctx: Context[Any]) -> None:
        self._ctx = ctx
        self._steps = 0

    async def __call__(self, stage: str) -> None:
        self._steps += 1
        await self._ctx.report_progress(self._steps, None, stage)

    async def moved(self, done: int, total: int | None, stage: str) -> None:
        """Reports `done` of `total` bytes. The number that is sent has to grow, so the stages before count with it."""
        await self._ctx.report_progress(self._steps + done, None if total is None else self._steps + total, stage)
