"""Port forwards: listeners on 127.0.0.1 whose connections go to hosts on the tailnet."""

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
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from cctailscale.audit import OFF, Audit
from cctailscale.call import answering, carried
from cctailscale.errors import (
    CcTailscaleError,
    ForwardsFull,
    NoSuchForward,
    NotOnTailnet,
    OwnNode,
    PortTaken,
    TimedOut,
)
from cctailscale.tailnet.attempt import unheard
from cctailscale.tailnet.peers import router_of, with_port
from cctailscale.tailnet.splice import Splice, close
from cctailscale.tailnet.vigil import Vigil

if TYPE_CHECKING:
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.dial import Address
    from cctailscale.tailnet.node import Node, Report

log = logging.getLogger(__name__)

MAX_FORWARDS = 32
# Of each forward; one more is closed at once.
MAX_CONNECTIONS = 256
# A local program waits for its connection meanwhile; most give up by then.
CONNECT_SECONDS = 15.0
# An accept fails when no descriptor is free; the next one may be in a moment.
ACCEPT_PAUSE_SECONDS = 0.1


@dataclass(kw_only=True)
class Traffic:
    """What a forward carries, in whichever direction it goes. Byte counts are seen from here: `sent` to the tailnet.

    `local_port` is on 127.0.0.1. `scope` is what ends the forward, `closed` is set when it has ended.
    """

    id: str
    local_port: int
    created_at: float = field(default_factory=time.time)
    splices: set[Splice] = field(default_factory=set)
    connecting: int = 0
    total: int = 0
    last_error: str | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    closed: anyio.Event = field(default_factory=anyio.Event)
    _sent: int = 0  # of connections that have ended
    _received: int = 0

    @property
    def local(self) -> str:
        """Its end on this machine."""
        return f"127.0.0.1:{self.local_port}"

    @property
    def connections(self) -> int:
        """How many there are now, those that are not through yet included."""
        return self.connecting + len(self.splices)

    @property
    def sent(self) -> int:
        return self._sent + sum(splice.sent for splice in self.splices)

    @property
    def received(self) -> int:
        return self._received + sum(splice.received for splice in self.splices)

    def ended(self, splice: Splice) -> None:
        """Takes a connection off that has ended; its counts stay."""
        self.splices.discard(splice)
        self._sent += splice.sent
        self._received += splice.received
        self.last_error = splice.error or self.last_error


@dataclass(kw_only=True)
class Forward(Traffic):
    """One listener on 127.0.0.1 and its connections."""

    host: str  # as it was given; resolved for each connection
    port: int
    target: str  # with the full name, to be shown
    listener: socket.socket
    turned_away: int = 0  # beyond MAX_CONNECTIONS


class Forwards:
    """The forwards of one session. `opened` owns them: all end with it.

    Each connection asks the node for its device and resolves the name anew, so that a forward goes on when the device
    was replaced or the name has moved.
    """

    def __init__(self, node: Node, tasks: anyio.abc.TaskGroup, audit: Audit) -> None:
        self._node = node
        self._audit = audit
        self._tasks = tasks
        self._vigil = Vigil()
        self._forwards: dict[str, Forward] = {}
        self._numbers = itertools.count(1)
        self._changing = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def opened(cls, node: Node, audit: Audit = OFF) -> AsyncIterator[Forwards]:
        """No forwards yet. On the way out all listeners are closed and all connections reset."""
        async with anyio.create_task_group() as tasks:
            forwards = cls(node, tasks, audit)
            tasks.start_soon(forwards._vigil.run)
            try:
                yield forwards
            finally:
                tasks.cancel_scope.cancel()

    def all(self) -> list[Forward]:
        """Those that are open, the oldest first."""
        return list(self._forwards.values())

    async def create(self, host: str, port: int, local_port: int, report: Report) -> tuple[Forward, bool]:
        """A forward from 127.0.0.1:`local_port` (0: any that is free) to `port` of `host`; whether it is a new one.

        The same target gives the forward that there is. The node joins if it has not. Raises what `Node.device` and
        `Dialer.resolve` raise, OwnNode, NotOnTailnet, ForwardsFull, PortTaken.
        """
        async with self._changing:
            device = await self._node.device(report)
            addresses = await device.dialer.resolve(host)
            first = await self._same(device, addresses, port)
            if first is not None:
                return first, False
            if len(self._forwards) >= MAX_FORWARDS:
                raise ForwardsFull(MAX_FORWARDS)
            await self._check(device, addresses, with_port(host, port))
            listener = _listen(local_port)
            target = with_port(_full_name(device, host), port)
            forward = Forward(
                id=f"f{next(self._numbers)}",
                local_port=listener.getsockname()[1],
                host=host,
                port=port,
                target=target,
                listener=listener,
            )
            self._forwards[forward.id] = forward
            self._tasks.start_soon(self._serve, forward)
            return forward, True

    async def _same(self, device: Device, addresses: list[Address], port: int) -> Forward | None:
        """The forward that goes to that port of that host now, by whatever name or address."""
        wanted = await _identity(device, addresses)
        for forward in self.all():
            if forward.port == port:
                try:
                    theirs = await _identity(device, await device.dialer.resolve(forward.host))
                except CcTailscaleError:  # the name is gone
                    continue
                if theirs == wanted:
                    return forward
        return None

    async def _check(self, device: Device, addresses: list[Address], target: str) -> None:
        """Raises what a connection to there would end with, as far as that can be known without one."""
        status = await device.api.shared_status()
        if any(str(address) in status.tailscale_ips for address in addresses):
            raise OwnNode(target)
        if self._node.settings.allow_host_network:
            return
        for address in addresses:
            if await device.whois(str(address)) is not None or router_of(status, str(address)):
                return
        raise NotOnTailnet(target)

    async def close(self, forward_id: str) -> Forward:
        """Closes a forward and resets its connections. Raises NoSuchForward."""
        forward = self._forwards.get(forward_id)
        if forward is None:
            raise NoSuchForward(forward_id, tuple(self._forwards))
        forward.scope.cancel()
        await forward.closed.wait()
        return forward

    # ---- connections ------------------------------------------------------------------------------------------------

    async def _serve(self, forward: Forward) -> None:
        try:
            with forward.scope:
                async with anyio.create_task_group() as carrying:
                    while True:
                        await self._accept(forward, carrying)
        finally:
            forward.listener.close()
            del self._forwards[forward.id]
            forward.closed.set()

    async def _accept(self, forward: Forward, carrying: anyio.abc.TaskGroup) -> None:
        try:
            local, _ = await asyncio.get_running_loop().sock_accept(forward.listener)
        except OSError as error:
            forward.last_error = f"A connection could not be taken: {error.strerror}."
            await anyio.sleep(ACCEPT_PAUSE_SECONDS)
            return
        if forward.connections >= MAX_CONNECTIONS:
            forward.turned_away += 1
            close(local, orderly=False)
            return
        forward.total += 1
        forward.connecting += 1
        carrying.start_soon(self._carry, forward, local)

    async def _carry(self, forward: Forward, local: socket.socket) -> None:
        """One connection from its beginning to its end. Never raises: what went wrong stands in the forward."""
        try:
            with answering(None) as work:
                async with self._audit.entry(
                    "connection", work, direction="to_tailnet", forward=forward.id, asked=forward.target
                ) as entry:
                    entry.update(await self._spliced(forward, local))
        except CcTailscaleError as error:
            forward.last_error = str(error)
        except Exception as error:  # one connection must not end the others
            log.exception("a forwarded connection failed in an unforeseen way")
            forward.last_error = f"An unforeseen failure ({type(error).__name__}); the log has more."
        finally:
            close(local, orderly=False)  # if it is not closed yet, it has not been joined to anything

    async def _spliced(self, forward: Forward, local: socket.socket) -> dict[str, str]:
        """How it ended, for the audit log."""
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                device = await self._node.device(unheard)
                addresses = await device.dialer.resolve(forward.host)
                remote = await device.dialer.connect_first(addresses, forward.port)
        except TimeoutError as error:
            raise TimedOut(with_port(forward.host, forward.port), CONNECT_SECONDS) from error
        finally:
            forward.connecting -= 1
        splice = Splice(local, remote)
        forward.splices.add(splice)
        self._vigil.watch(splice, device, addresses)
        try:
            await splice.run()
        finally:
            self._vigil.forget(splice)
            forward.ended(splice)
            carried(splice.sent, splice.received)
        return outcome_of(splice)


def outcome_of(splice: Splice) -> dict[str, str]:
    """For the audit log: why a connection broke off; nothing, if it came to its end."""
    return {"outcome": "failed", "error": splice.error} if splice.error else {}


async def _identity(device: Device, addresses: list[Address]) -> str:
    """What two ways to name one host have in common: the device's stable id, or the first address behind a router."""
    known = await device.whois(str(addresses[0]))
    return known.node.stable_id if known else str(addresses[0])


def _full_name(device: Device, host: str) -> str:
    """The full name in small letters, or the address. Raises BadName."""
    from cctailscale.tailnet.dial import literal_address  # aiohttp comes with it: not before `initialize` is answered

    literal = literal_address(host)
    return str(literal) if literal else device.dialer.full_names(host)[0].lower()


def _listen(port: int) -> socket.socket:
    """A listener on 127.0.0.1. Raises PortTaken."""
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise PortTaken(port, os.strerror(error.errno) if error.errno else str(error)) from error
    listener.setblocking(False)
    return listener
