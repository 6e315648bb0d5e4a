"""This session as an agent: its inbox, what it answers to others, and its port on the tailnet.

Nothing is opened before the node runs or a tool asks for the inbox. The inbox and the server outlive a device: each
device that serves gets a listener of its own in front of the same server.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread

from cctailscale import __version__, naming
from cctailscale.audit import OFF, Audit
from cctailscale.errors import CcTailscaleError, NodeClosed, plain

if TYPE_CHECKING:
    from cctailscale.agents.hints import Hint
    from cctailscale.agents.inbox import Inbox
    from cctailscale.agents.policy import Policy
    from cctailscale.agents.server import AgentServer
    from cctailscale.agents.wire import AgentCard
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.node import Node

log = logging.getLogger(__name__)

# For somebody who fixes what was wrong with the inbox's file, or another process that lets go of it.
TRY_AGAIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Desk:
    """What an agent works with, once it is open."""

    inbox: Inbox
    server: AgentServer
    policy: Policy


class Agent:
    """Made by `opened`, which also ends it."""

    def __init__(self, node: Node, tasks: anyio.abc.TaskGroup, audit: Audit) -> None:
        self._node = node
        self._audit = audit
        self._tasks = tasks
        self._desk: Desk | None = None
        self._opening = anyio.Lock()
        self._ready = anyio.Event()  # the desk is open
        self.status = ""  # the line that others see
        self.team: str | None = None  # the name of the team that it belongs to
        self._project = ""
        self._since = datetime.now(UTC)

    @classmethod
    @asynccontextmanager
    async def opened(cls, node: Node, audit: Audit = OFF) -> AsyncIterator[Agent]:
        """An agent that others reach as soon as `node` runs."""
        async with anyio.create_task_group() as tasks:
            agent = cls(node, tasks, audit)
            tasks.start_soon(agent._begin)
            try:
                yield agent
            finally:
                tasks.cancel_scope.cancel()

    async def desk(self) -> Desk:
        """Inbox, server and policy, opened with the first call. Raises SettingsError, InboxUnusable."""
        async with self._opening:
            if self._desk is None:
                self._desk = await self._tasks.start(self._hold)
                self._ready.set()
            return self._desk

    def card(self) -> AgentCard:
        """What this agent says about itself."""
        from cctailscale.agents.wire import MAX_PROJECT_CHARS, MAX_STATUS_CHARS, MAX_TEAM_CHARS, PROTOCOL, AgentCard

        return AgentCard(
            name=self._node.hostname or "",
            version=__version__,
            protocol=PROTOCOL,
            project=plain(self._project, MAX_PROJECT_CHARS),
            status=plain(self.status, MAX_STATUS_CHARS),
            team=None if self.team is None else plain(self.team, MAX_TEAM_CHARS),
            since=self._since,
        )

    async def hints(self) -> AsyncIterator[Hint]:
        """What a client is told without asking (TS_CHANNELS), from the moment the inbox is open. Endless."""
        from cctailscale.agents import hints

        await self._ready.wait()
        assert self._desk is not None
        async for hint in hints.hints(self._desk.inbox, with_body=self._node.settings.channels == "body"):
            yield hint

    async def _begin(self) -> None:
        """Opens the desk when the node runs, so that others can write to a session that has used no such tool."""
        await self._node.next_device(None)
        while True:
            try:
                await self.desk()
            except CcTailscaleError as error:
                log.warning("this agent cannot take messages: %s", error)
            else:
                return
            await anyio.sleep(TRY_AGAIN_SECONDS)

    async def _hold(self, *, task_status: anyio.abc.TaskStatus[Desk]) -> None:
        # aiohttp's server comes with them: not before `initialize` is answered.
        from cctailscale.agents.inbox import Inbox
        from cctailscale.agents.place import identity, sweep
        from cctailscale.agents.policy import Policy
        from cctailscale.agents.server import AgentServer
        from cctailscale.agents.unread import keep

        settings = self._node.checked_settings()
        self._project = await anyio.to_thread.run_sync(naming.project_name, settings.project_dir)
        policy = Policy(settings.allow_from)
        async with (
            Inbox.claimed(settings) as inbox,
            AgentServer.opened(inbox, policy, self.card, audit=self._audit) as server,
            anyio.create_task_group() as listening,
        ):
            task_status.started(Desk(inbox, server, policy))
            listening.start_soon(keep, inbox, identity(settings))
            listening.start_soon(sweep, settings)
            device = None
            while True:
                device = await self._node.next_device(device)
                self._since = datetime.now(UTC)
                listening.start_soon(self._listen, server, device)

    async def _listen(self, server: AgentServer, device: Device) -> None:
        from cctailscale.agents.wire import PORT
        from cctailscale.tailnet.listener import Listener

        try:
            async with Listener.opened(device.handle, PORT) as listener:
                await listener.serve(partial(server.serve, device))
        except NodeClosed:
            log.debug("the device was closed before it was listened on")
        except CcTailscaleError as error:
            log.warning("other agents cannot reach this one: %s", error)
        except Exception:  # a defect in there must not end the session
            log.exception("other agents cannot reach this one any more")
