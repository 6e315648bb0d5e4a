"""Forwards from the tailnet: a port of this node whose connections go to a port of this machine's 127.0.0.1.

Who may connect is who may send messages here (`policy`), decided for each connection from the address that Go gave with
it, before a byte is exchanged, and looked at again as long as it is open. Off unless TS_ALLOW_INBOUND_FORWARD is set.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc

from cctailscale.audit import OFF, Audit
from cctailscale.call import answering, carried
from cctailscale.errors import CcTailscaleError, ForwardsFull, InboundOff, PortUnfit
from cctailscale.tailnet.forward import Traffic, outcome_of
from cctailscale.tailnet.listener import Listener
from cctailscale.tailnet.splice import Splice, close
from cctailscale.tailnet.vigil import Vigil

if TYPE_CHECKING:
    from cctailscale.agents.policy import Policy, Principal, Refused
    from cctailscale.agents.refusals import Refusals
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.forward import Forwards
    from cctailscale.tailnet.node import Node, Report

log = logging.getLogger(__name__)

# What is shown is a few services, and the list of them and of their connections has to stay readable.
MAX_FORWARDS = 8
# On loopback; a service whose backlog is full does not answer.
CONNECT_SECONDS = 5.0
# A grant that is taken back ends what it opened within this. WhoIs is answered from memory.
DECIDE_AGAIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Visit:
    """An open connection and the peer that WhoIs says it is from. `since` is in seconds since the epoch."""

    peer: Principal
    since: float
    splice: Splice


@dataclass(kw_only=True)
class InboundForward(Traffic):
    """One port on the tailnet and its connections. `name` is this node's, once it is known."""

    port: int
    refusals: Refusals
    name: str = ""
    visits: list[Visit] = field(default_factory=list)  # the oldest first
    listeners: list[Listener] = field(default_factory=list)
    _turned_away: int = 0

    @property
    def target(self) -> str:
        """Where peers connect to."""
        return f"{self.name}:{self.port}"

    @property
    def turned_away(self) -> int:
        """Beyond the limits of the listener."""
        return self._turned_away + sum(listener.turned_away for listener in self.listeners)

    def left(self, listener: Listener) -> None:
        """Takes a listener off whose device has closed; its count stays."""
        self.listeners.remove(listener)
        self._turned_away += listener.turned_away


class InboundForwards:
    """The forwards from the tailnet of one session. `opened` owns them: all end with it.

    Each is there again on a device that takes the place of the one before.
    """

    def __init__(self, node: Node, outbound: Forwards, tasks: anyio.abc.TaskGroup, audit: Audit) -> None:
        self._node = node
        self._audit = audit
        self._outbound = outbound
        self._tasks = tasks
        self._vigil = Vigil()
        self._forwards: dict[str, InboundForward] = {}
        self._numbers = itertools.count(1)
        self._changing = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def opened(cls, node: Node, outbound: Forwards, audit: Audit = OFF) -> AsyncIterator[InboundForwards]:
        """No forwards yet. `outbound` are those to the tailnet, whose local ends are not shown."""
        async with anyio.create_task_group() as tasks:
            forwards = cls(node, outbound, tasks, audit)
            tasks.start_soon(forwards._vigil.run)
            try:
                yield forwards
            finally:
                tasks.cancel_scope.cancel()

    def all(self) -> list[InboundForward]:
        """Those that are open, the oldest first."""
        return list(self._forwards.values())

    async def create(self, port: int, local_port: int, report: Report) -> tuple[InboundForward, bool]:
        """A forward from `port` of this node to 127.0.0.1:`local_port`; whether it is a new one.

        The same two ports give the forward that there is. The node joins if it has not. Nothing has to listen on
        `local_port` yet. Raises InboundOff, PortUnfit, ForwardsFull, what `Node.device` raises, NodeFailed.
        """
        from cctailscale.agents.refusals import Refusals

        if not self._node.checked_settings().allow_inbound_forward:
            raise InboundOff
        async with self._changing:
            first = self._check(port, local_port)
            if first is not None:
                return first, False
            device = await self._node.device(report)
            forward = InboundForward(
                id=f"i{next(self._numbers)}", local_port=local_port, port=port, refusals=Refusals()
            )
            await self._tasks.start(self._hold, forward, device)
            return forward, True

    def _check(self, port: int, local_port: int) -> InboundForward | None:
        """The forward of these two ports, if there is one. Raises PortUnfit, ForwardsFull."""
        from cctailscale.agents.wire import PORT

        if port == PORT:
            raise PortUnfit(f"Port {port}", "of this node is the one on which agents talk", "Choose another port.")
        for forward in self.all():
            if forward.port == port and forward.local_port == local_port:
                return forward
            if forward.port == port:
                problem = f"of this node goes to {forward.local} already (the forward {forward.id})"
                raise PortUnfit(f"Port {port}", problem, "Choose another port, or close that forward first.")
        lent = self._lent(local_port)
        if lent is not None:
            problem = f"is the local end of the forward {lent}: who connects would go on with this node's identity"
            raise PortUnfit(f"127.0.0.1:{local_port}", problem, "Name the port of a program on this machine.")
        if len(self._forwards) >= MAX_FORWARDS:
            raise ForwardsFull(MAX_FORWARDS, "from the tailnet")
        return None

    def _lent(self, local_port: int) -> str | None:
        """The forward to the tailnet that listens on this port. It may have been made after ours."""
        return next((forward.id for forward in self._outbound.all() if forward.local_port == local_port), None)

    async def close(self, forward: InboundForward) -> None:
        """Closes a forward and ends its connections."""
        forward.scope.cancel()
        await forward.closed.wait()

    # ---- listening --------------------------------------------------------------------------------------------------

    async def _hold(self, forward: InboundForward, device: Device, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Listens on `device`, then on each that takes its place, until the forward is closed."""
        try:
            with forward.scope:
                async with (
                    Listener.opened(device.handle, forward.port) as listener,
                    anyio.create_task_group() as serving,
                ):
                    await _named(forward, device)
                    self._forwards[forward.id] = forward
                    task_status.started()
                    serving.start_soon(self._serve, forward, device, listener)
                    while True:
                        device = await self._node.next_device(device)
                        serving.start_soon(self._serve_anew, forward, device)
        finally:
            self._forwards.pop(forward.id, None)
            forward.closed.set()

    async def _serve_anew(self, forward: InboundForward, device: Device) -> None:
        try:
            async with Listener.opened(device.handle, forward.port) as listener:
                await _named(forward, device)
                await self._serve(forward, device, listener)
        except CcTailscaleError as error:
            forward.last_error = str(error)

    async def _serve(self, forward: InboundForward, device: Device, listener: Listener) -> None:
        """Serves one device until it closes. Never raises: what went wrong stands in the forward."""
        forward.listeners.append(listener)
        try:
            await listener.serve(partial(self._visited, forward, device))
        except Exception as error:  # a defect in there must not end the session
            log.exception("a forward from the tailnet failed in an unforeseen way")
            forward.last_error = f"An unforeseen failure ({type(error).__name__}); the log has more."
        finally:
            forward.left(listener)

    # ---- connections ------------------------------------------------------------------------------------------------

    async def _visited(self, forward: InboundForward, device: Device, remote: socket.socket, address: str) -> None:
        """One connection from its beginning to its end. `address` is the peer's "ip:port"."""
        about = {"direction": "from_tailnet", "forward": forward.id, "target": forward.target}
        try:
            with answering(None) as work:
                async with self._audit.entry("connection", work, **about, peer={"address": address}) as entry:
                    await self._let_in(forward, device, remote, address, entry)
        except CcTailscaleError as error:  # the device is closing, or does not say who it is
            forward.last_error = str(error)
        finally:
            close(remote, orderly=False)

    async def _let_in(
        self, forward: InboundForward, device: Device, remote: socket.socket, address: str, entry: dict[str, Any]
    ) -> None:
        """Joins a connection to the program, if its peer may; `entry` is told who it was, and what became of it."""
        peer, refused = await self._decide(device, address)
        entry["peer"] = peer.audited(address)
        if refused is not None:
            forward.refusals.note(peer, refused)
            entry["outcome"] = "refused"
            return
        forward.total += 1
        local = await self._connected(forward)
        if local is None:
            entry.update(outcome="failed", error=forward.last_error)
            return
        splice = Splice(local, remote)
        try:
            await self._spliced(forward, device, Visit(peer, time.time(), splice), address)
        finally:
            carried(splice.sent, splice.received)
        entry.update(outcome_of(splice))

    async def _decide(self, device: Device, address: str) -> tuple[Principal, Refused | None]:
        """Who is at the other end, and why they may not connect. Raises NodeClosed, NodeFailed, TimedOut."""
        from cctailscale.agents.policy import principal

        me, peer = principal(await device.me()), principal(await device.whois(address), address)
        return peer, self._policy().decide(me, peer, "message")

    def _policy(self) -> Policy:
        from cctailscale.agents.policy import Policy

        return Policy(self._node.settings.allow_from)

    async def _connected(self, forward: InboundForward) -> socket.socket | None:
        """A connection to the program on this machine; None, and the forward says why, if it takes none."""
        lent = self._lent(forward.local_port)
        if lent is not None:
            forward.last_error = f"{forward.local} is now the local end of the forward {lent}, which is not shown."
            return None
        local = socket.socket()
        local.setblocking(False)
        forward.connecting += 1
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(local, ("127.0.0.1", forward.local_port))
        except OSError as error:  # TimeoutError is one
            local.close()
            reason = os.strerror(error.errno) if error.errno else f"no answer within {CONNECT_SECONDS:g} s"
            forward.last_error = (
                f"{forward.local} takes no connection: {reason}. Start the program that is to be shown; one that "
                "listens on ::1 alone has to listen on 127.0.0.1."
            )
            return None
        except BaseException:
            local.close()
            raise
        finally:
            forward.connecting -= 1
        return local

    async def _spliced(self, forward: InboundForward, device: Device, visit: Visit, address: str) -> None:
        splice = visit.splice
        forward.splices.add(splice)
        forward.visits.append(visit)
        self._vigil.watch(splice, device, [ip_address(address.rpartition(":")[0].strip("[]"))])
        try:
            async with anyio.create_task_group() as deciding:
                deciding.start_soon(self._decide_again, device, visit, address)
                await splice.run()
                deciding.cancel_scope.cancel()
        finally:
            self._vigil.forget(splice)
            forward.visits.remove(visit)
            forward.ended(splice)

    async def _decide_again(self, device: Device, visit: Visit, address: str) -> None:
        """Ends a connection whose peer may not connect any more, or has lost its address to somebody else."""
        while True:
            await anyio.sleep(DECIDE_AGAIN_SECONDS)
            try:
                peer, refused = await self._decide(device, address)
            except CcTailscaleError as error:
                visit.splice.reset(f"it is not known any more who is there: {error.happened}")
                return
            if refused is not None or peer.node_id != visit.peer.node_id:
                visit.splice.reset(str(refused) if refused else "the peer's address now belongs to another device")
                return


async def _named(forward: InboundForward, device: Device) -> None:
    me = await device.me()
    forward.name = me.node.name if me else forward.name
