"""What a call tells while it runs."""

from typing import Any

from mcp.server.mcpserver import Context

from cctailscale.tailnet.attempt import Report


class ShellContext(Context[Any]):
    """The context of a call that comes from a shell and not over MCP: each stage of its progress goes to `report`."""

    _report: Report

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    async def report_progress(
        self,
        progress: float,  # noqa: ARG002 - the SDK's signature
        total: float | None = None,  # noqa: ARG002
        message: str | None = None,
    ) -> None:
        await self._report(message or "")


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
