"""One piece of work that any number of calls wait for: a join, or the replacement of a device."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio

from cctailscale.errors import CcTailscaleError

log = logging.getLogger(__name__)

# Says what is going on while a call waits.
Report = Callable[[str], Awaitable[None]]


async def unheard(stage: str) -> None:
    """A Report for who joins with nobody waiting."""
    log.debug("%s", stage)


class Attempt:
    """The work runs in `scope`; it is cancelled when the last call that waits for it is. `error` is how it ended."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.error: CcTailscaleError | None = None
        self._waiting = 0
        self._stage = "Starting the Tailscale node"
        self._stage_changed = anyio.Event()

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more: it is about to end, and is not to be joined."""
        return self.scope.cancel_called

    def say(self, stage: str) -> None:
        """Tells those who wait what is going on now."""
        self._stage = stage
        self._stage_changed.set()
        self._stage_changed = anyio.Event()

    async def wait(self, report: Report) -> None:
        """Waits for the end. Raises the error that the attempt ended with."""
        self._waiting += 1
        try:
            async with anyio.create_task_group() as reporting:
                reporting.start_soon(self._reported_to, report)
                await self.done.wait()
                reporting.cancel_scope.cancel()
        except BaseException:
            if self._waiting == 1 and not self.done.is_set():
                self.scope.cancel()
            raise
        finally:
            self._waiting -= 1
        if self.error is not None:
            raise self.error

    async def _reported_to(self, report: Report) -> None:
        """Tells each stage, until cancelled. That nobody listens any more must not end the work."""
        try:
            while True:
                changed = self._stage_changed
                await report(self._stage)
                await changed.wait()
        except Exception:
            log.debug("progress could not be reported", exc_info=True)
