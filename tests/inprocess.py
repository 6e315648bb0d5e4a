"""The node in this process, for what is the node's and not the server's: cheaper than a process for each test.

The extension and the tailnet are the real ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio

from cctailscale.config import load_settings
from cctailscale.redact import Redactor
from cctailscale.tailnet.dial import Dialer
from cctailscale.tailnet.fetch import Answer, Request, fetch
from cctailscale.tailnet.node import Node
from tests.localnet import Localnet

STOP_SECONDS = 5.0


@contextlib.asynccontextmanager
async def node_in(environ: dict[str, str]) -> AsyncIterator[Node]:
    """A node with the settings of `environ`, stopped at the end as the server stops it."""
    loaded = load_settings(environ)
    async with Node.opened(loaded, Redactor(*loaded.settings.secrets())) as node:
        try:
            yield node
        finally:
            with anyio.CancelScope(shield=True):
                await node.stop(STOP_SECONDS)


class Stages(list[str]):
    """The stages that a call was told; an awaitable for each."""

    def __init__(self) -> None:
        super().__init__()
        self._grown = anyio.Event()

    async def __call__(self, stage: str) -> None:
        self.append(stage)
        self._grown.set()
        self._grown = anyio.Event()

    async def wait_for(self, wanted: str, seconds: float = 20) -> None:
        with anyio.fail_after(seconds):
            while not any(wanted in stage for stage in self):
                await self._grown.wait()


async def unheard(stage: str) -> None:
    """Takes a stage, and does nothing with it."""


async def get(dialer: Dialer, url: str, seconds: float = 10) -> Answer:
    return await fetch(dialer, Request(url, "GET", {}, None, seconds, 10_000))


async def event(tailnet: Localnet, kind: str, hostname: str | None = None, **bounds: Any) -> dict[str, Any]:
    """`Localnet.wait_for` beside the event loop."""
    return await anyio.to_thread.run_sync(lambda: tailnet.wait_for(kind, hostname, **bounds), abandon_on_cancel=True)


def kinds(tailnet: Localnet, hostname: str, *, after: int = 0) -> list[str]:
    """What has happened to the devices of that name, in order."""
    events = tailnet.admin("GET", f"/events?after={after}&wait_ms=0&hostname={hostname}")["events"]
    return [event["kind"] for event in events]


def state_folders(environ: dict[str, str]) -> list[str]:
    """The sessions' directories in the state root, and in each its devices' folders: "cc-x-0a1b/device-1"."""
    root = Path(environ["TS_STATE_DIR"])
    return sorted(str(path.relative_to(root)) for path in root.glob("*/device-*")) if root.is_dir() else []


def session_folders(environ: dict[str, str]) -> list[str]:
    """Everything in the state root but the folder of inboxes."""
    root = Path(environ["TS_STATE_DIR"])
    return sorted(path.name for path in root.iterdir() if path.name != "inboxes") if root.is_dir() else []


def inbox_folders(environ: dict[str, str]) -> list[str]:
    """The inboxes in the state root. One with nothing in it goes with its session, unless that was killed."""
    return sorted(path.name for path in Path(environ["TS_STATE_DIR"], "inboxes").glob("*"))
