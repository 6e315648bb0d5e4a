"""Sessions in teams on the local tailnet: each with a node, an inbox and a server of its own.

In this process, or (`killable`) in one of its own, which leads a team and can be stopped and killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.abc

from cctailscale.agents.agent import Agent, Desk
from cctailscale.agents.teamwork import Teamwork
from cctailscale.errors import LeadOffline, NoTeam
from cctailscale.tailnet.node import Node
from cctailscale.teams.commands import TaskCommand
from cctailscale.teams.model import Task
from cctailscale.teams.wire import TaskPage, TaskQuery
from tests.inprocess import node_in
from tests.localnet import Localnet
from tests.talking import settings

T = TypeVar("T")

# To a peer that was killed and is back: WireGuard gives the old session up within 15 s.
BOUND = 30.0
TEAM = "build"


@dataclass
class Session:
    """What a session's tools would work with."""

    node: Node
    agent: Agent
    teamwork: Teamwork

    async def desk(self) -> Desk:
        return await self.agent.desk()

    async def name(self) -> str:
        """Its device's MagicDNS name."""
        assert self.node.running_device is not None
        me = await self.node.running_device.me()
        assert me is not None
        return me.node.name

    async def do(self, command: TaskCommand) -> Task:
        gateway = await self.teamwork.gateway()
        task = await gateway.command(secrets.token_urlsafe(12), command)
        assert task is not None
        return task

    async def tasks(self, **query: object) -> TaskPage:
        return await (await self.teamwork.gateway()).tasks(TaskQuery.model_validate(query))

    async def told(self, words: str) -> str:
        """The message that has these words, once it is there; what came before it is read too."""
        inbox = (await self.desk()).inbox
        with anyio.fail_after(BOUND):
            while True:
                await inbox.wait_for_unread()
                for message in await inbox.take(100):
                    if words in message.body:
                        return message.body

    async def untold(self) -> list[str]:
        """The messages that wait."""
        return [message.body for message in await (await self.desk()).inbox.take(100)]


@asynccontextmanager
async def session(environ: dict[str, str]) -> AsyncIterator[Session]:
    async with node_in(environ) as node, Agent.opened(node) as agent, Teamwork.opened(node, agent) as teamwork:
        yield Session(node, agent, teamwork)


def of(tailnet: Localnet, folder: Path, name: str, **more: str) -> dict[str, str]:
    """The settings of a session that may be in a team."""
    return settings(tailnet, folder, name, TS_ENABLE_TEAMS="1", **more)


@asynccontextmanager
async def pair(ann: dict[str, str], ben: dict[str, str]) -> AsyncIterator[tuple[Session, Session]]:
    """A lead and a member."""
    async with session(ann) as lead, session(ben) as member:
        await lead.teamwork.create(TEAM)
        await member.teamwork.join(await lead.name())
        yield lead, member


async def once_back(call: Callable[[], Awaitable[T]]) -> T:
    """What a call gives once the lead is back."""
    with anyio.fail_after(BOUND):
        while True:
            try:
                return await call()
            except LeadOffline:
                pass


@dataclass
class Process:
    """A process that leads a team; `name` is its device's."""

    process: anyio.abc.Process
    name: str

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def killable(environ: dict[str, str]) -> AsyncIterator[Process]:
    """A lead in a process of its own: of the team that it led before, or of a new one."""
    command = [sys.executable, "-m", "tests.teaming"]
    # Of our own environment what a Python needs; the settings are the test's.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TS_", "CLAUDE_"))}
    async with await anyio.open_process(
        command, env=own | environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
    ) as process:
        assert process.stdout is not None
        try:
            with anyio.fail_after(BOUND):
                line = b""
                while not line.endswith(b"\n"):
                    line += await process.stdout.receive()
            yield Process(process, line.decode().strip())
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)


async def _lead() -> None:
    async with session(dict(os.environ)) as lead:
        try:
            await lead.teamwork.gateway()
        except NoTeam:
            await lead.teamwork.create(TEAM)
        sys.stdout.write(f"{await lead.name()}\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_lead)
