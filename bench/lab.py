"""Where everything is measured: one local tailnet and one peer for all that is compared."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import rivals
from bench.process import settled
from bench.rivals import Helper, Tailscaled, TypeScript
from tests.agent import Agent
from tests.localnet import Localnet

PEER = "web"
# Who is compared, as the tables call them: the rivals (a), (b) and (c).
OURS = "cc-tailscale"
TYPESCRIPT = "TypeScript + helper"
TAILSCALED = "tailscaled + curl"
GO = "bare tsnet"
SERVER = (sys.executable, "-m", "cctailscale")
# What the first tool call needs is loaded after `initialized`; the Go node and aiohttp are mapped then.
PRELOADED = ("_libtailscale", "_http_parser")


@dataclass(frozen=True)
class Joined:
    """Everybody who is compared, with a node that runs. `typescript` is None where it is not installed."""

    ours: Agent
    typescript: Agent | None
    tailscaled: Tailscaled
    helper: Helper
    folder: Path

    @property
    def servers(self) -> dict[str, Agent]:
        """The MCP servers among them."""
        return {OURS: self.ours} | ({TYPESCRIPT: self.typescript} if self.typescript else {})

    @property
    def pids(self) -> dict[str, int]:
        servers = {name: agent.pid for name, agent in self.servers.items()}
        return servers | {TAILSCALED: self.tailscaled.pid, GO: self.helper.pid}


class Lab:
    """A tailnet with the peer `web`, and fresh surroundings for each process."""

    def __init__(self, tailnet: Localnet, peer: dict[str, Any], folder: Path) -> None:
        self.tailnet = tailnet
        self.peer_address: str = peer["ips"][0]
        self.typescript = TypeScript.found()
        self._folder = folder
        self._numbers = itertools.count(1)

    @classmethod
    @contextlib.contextmanager
    def opened(cls) -> Iterator[Lab]:
        with (
            tempfile.TemporaryDirectory(prefix="cc-tailscale-bench-") as folder,
            Localnet.started() as tailnet,
            tailnet.peer(PEER) as peer,
        ):
            yield cls(tailnet, peer, Path(folder))

    def environ(self) -> dict[str, str]:
        """The settings of a session that nobody had before: a device of its own."""
        folder = self._folder / str(next(self._numbers))
        (folder / "project").mkdir(parents=True)
        return {
            "TS_AUTHKEY": self.tailnet.auth_key,
            "TS_CONTROL_URL": self.tailnet.control_url,
            "TS_STATE_DIR": str(folder / "state"),
            "CLAUDE_PROJECT_DIR": str(folder / "project"),
            "HOME": str(folder),
            "USER": "bench",
        }

    def agent(self, environ: dict[str, str] | None = None) -> AbstractAsyncContextManager[Agent]:
        """A cc-tailscale process that has answered `initialize`, in surroundings of its own if none are given."""
        return Agent.started(environ or self.environ(), command=SERVER)

    @contextlib.asynccontextmanager
    async def joined_agent(self, environ: dict[str, str] | None = None) -> AsyncIterator[Agent]:
        """As `agent`, with its node running. It leaves in peace at the end."""
        async with self.agent(environ) as agent:
            await joined(agent)
            yield agent
            await left(agent)

    @contextlib.asynccontextmanager
    async def joined_typescript(self) -> AsyncIterator[Agent | None]:
        """The server in TypeScript with its helper's node running; None where it is not installed."""
        if self.typescript is None:
            yield None
            return
        environ = self.typescript.environ(self.environ())
        async with Agent.started(environ, command=self.typescript.command) as agent:
            await agent.succeed("tailscale_status")
            yield agent
            if agent.process.returncode is None:
                await left(agent)

    @contextlib.asynccontextmanager
    async def everybody(self) -> AsyncIterator[Joined]:
        """All who are compared, side by side on the tailnet."""
        with self.helper() as helper, self.tailscaled() as tailscaled:
            environ = self.environ()
            project = Path(environ["CLAUDE_PROJECT_DIR"])
            async with self.joined_agent(environ) as ours, self.joined_typescript() as typescript:
                yield Joined(ours, typescript, tailscaled, helper, project)

    def helper(self, *arguments: str) -> AbstractContextManager[Helper]:
        """The bare tsnet program, with its SOCKS port."""
        flags = ["-control", self.tailnet.control_url, "-authkey", self.tailnet.auth_key]
        return rivals.helper(*flags, "-hostname", f"helper-{next(self._numbers)}", *arguments)

    def tailscaled(self) -> AbstractContextManager[Tailscaled]:
        """Tailscale's daemon in userspace mode, with its SOCKS port."""
        return rivals.tailscaled(self.environ(), f"tailscaled-{next(self._numbers)}")


async def preloaded(agent: Agent) -> None:
    """Returns once the agent has loaded what its first tool call needs, and rests."""
    await settled(agent.pid, *PRELOADED)


async def joined(agent: Agent) -> str:
    """Has the agent join; its hostname."""
    status = await agent.status()
    if status["state"] != "running":
        raise RuntimeError(f"the node does not run: {status}")
    hostname: str = status["hostname"]
    return hostname


async def left(agent: Agent) -> None:
    """Ends an agent in peace, so that its device is gone before the next round."""
    code = await agent.stop()
    if code != 0:
        raise RuntimeError(f"the server ended with {code}: {agent.stderr[-2000:]}")
