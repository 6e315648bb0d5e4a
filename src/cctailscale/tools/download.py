"""An answer's body into a file of the project, with progress."""

from pathlib import Path

import anyio

from cctailscale.savefile import Saving, saving
from cctailscale.tailnet.dial import Dialer
from cctailscale.tailnet.fetch import Answer, Request, fetch
from cctailscale.tools.progress import Progress

# Progress is for people: more often than this it only costs.
REPORT_SECONDS = 0.5


async def download(
    dialer: Dialer, request: Request, project: Path, path: str, progress: Progress, *, overwrite: bool
) -> tuple[Answer, str]:
    """Fetches into `path` below `project`; the answer, and a sentence that says what became of its body.

    Raises what `fetch` and `saving` raise; then, and for an answer that is no success, there is no file.
    """
    async with saving(project, path, overwrite=overwrite) as file:
        answer = await fetch(dialer, request, _Reported(file, progress))
        if not answer.saved:
            return answer, f"Nothing was saved: {answer.status} is no success."
        await file.keep()
        return answer, f"Saved to {path}: {file.size} bytes, SHA-256 {file.sha256}."


class _Reported:
    """A file that reports how it grows."""

    def __init__(self, file: Saving, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._total: int | None = None
        self._next = anyio.current_time() + REPORT_SECONDS

    async def expect(self, count: int) -> None:
        self._total = count
        await self._file.expect(count)

    async def write(self, data: bytes) -> None:
        await self._file.write(data)
        if anyio.current_time() >= self._next:
            self._next = anyio.current_time() + REPORT_SECONDS
            of = "" if self._total is None else f" of {self._total}"
            await self._progress.moved(self._file.size, self._total, f"{self._file.size}{of} bytes")
