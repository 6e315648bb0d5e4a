"""A port of this node on the tailnet: connections that peers make to it, each with its peer's address.

It knows nothing of what is spoken on them. The address comes from Go in one message with the connection itself, so
that the two cannot be mixed up; what a connection or a header says about its other end is never asked.
"""

from __future__ import annotations

import array
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc

from cctailscale.call import answering
from cctailscale.errors import NodeFailed

if TYPE_CHECKING:
    from cctailscale.tailnet.binding import NodeHandle

log = logging.getLogger(__name__)

# Of one listener; one more is closed at once. A team of 200 has two of each member, one to wait on and one to ask on,
# and leaves a fifth to others. Each has a descriptor here and one in Go, which raises the limit of the process for them
# (RLIMIT_NOFILE) as far as it may.
MAX_CONNECTIONS = 512
# Of one address. A device has two: four devices leave at least half of the listener to all others.
MAX_PER_ADDRESS = 32
# For Go to give a port back; it does so at once, unless this machine has no time for it.
FREE_SECONDS = 1.0
# TAILSCALE_ACCEPT_BYTES in tailscale.h.
FRAME_BYTES: Final = 64

# macOS has no such flag; there close-on-exec is set a moment later.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_DESCRIPTOR_BYTES = array.array("i").itemsize

# Takes a connection, which is non-blocking, and its peer's "ip:port"; the connection is closed when it returns.
Serve = Callable[[socket.socket, str], Awaitable[None]]


class Listener:
    """One port that is listened on. Made by `opened`, which also ends it. `turned_away` counts beyond the limits."""

    def __init__(self, arrivals: socket.socket) -> None:
        self._arrivals = arrivals
        self._open: Counter[str] = Counter()  # connections, by address
        self.turned_away = 0

    @property
    def connections(self) -> int:
        """How many there are now."""
        return self._open.total()

    @classmethod
    @asynccontextmanager
    async def opened(cls, handle: NodeHandle, port: int) -> AsyncIterator[Listener]:
        """Listens on `port` of the node's addresses. Connections wait until `serve` takes them.

        At the end of the block the port is free again. Raises NodeClosed; NodeFailed, also where the port is in use.
        """
        with await handle.listen(port) as arrivals:
            arrivals.setblocking(False)
            listener = cls(arrivals)
            try:
                yield listener
            finally:
                await listener._free()

    async def _free(self) -> None:
        """Tells Go to listen no more, and waits until it has closed its end, which it does after that."""
        with anyio.move_on_after(FREE_SECONDS, shield=True), suppress(OSError, NodeFailed):
            self._arrivals.shutdown(socket.SHUT_WR)
            while (arrived := await self._next()) is not None:
                arrived[0].close()

    async def serve(self, serve: Serve) -> None:
        """Runs `serve` for each connection, as a task of its own, until the node closes; what is open ends then.

        An error in one connection is logged and ends that one. Raises NodeFailed if Go breaks its contract.
        """
        async with anyio.create_task_group() as serving:
            while (arrived := await self._next()) is not None:
                self._admit(*arrived, serve, serving)
            serving.cancel_scope.cancel()

    async def _next(self) -> tuple[socket.socket, str] | None:
        """The next connection and its peer; None when the node has closed."""
        while True:
            await anyio.wait_readable(self._arrivals)
            try:
                # Not socket.recv_fds: it ignores its flags, and children would inherit the descriptor.
                frame, control, flags, _ = self._arrivals.recvmsg(
                    FRAME_BYTES, socket.CMSG_LEN(_DESCRIPTOR_BYTES), _CLOSE_ON_EXEC
                )
            except BlockingIOError:
                continue
            connections = [socket.socket(fileno=descriptor) for descriptor in _descriptors(control)]
            if len(frame) == FRAME_BYTES and len(connections) == 1 and not flags & socket.MSG_CTRUNC:
                return connections[0], frame.rstrip(b"\0").decode("ascii")
            for connection in connections:
                connection.close()
            if not frame:
                return None
            if len(frame) < FRAME_BYTES:
                raise NodeFailed("a connection arrived in pieces")
            # The system had no descriptor left for it, and has closed the connection itself.
            log.warning("a connection from the tailnet was lost: this process has too many files open")

    def _admit(self, connection: socket.socket, peer: str, serve: Serve, serving: anyio.abc.TaskGroup) -> None:
        address = peer.rpartition(":")[0]
        if self.connections >= MAX_CONNECTIONS or self._open[address] >= MAX_PER_ADDRESS:
            self.turned_away += 1
            connection.close()
            return
        connection.setblocking(False)
        connection.set_inheritable(False)
        self._open[address] += 1
        serving.start_soon(self._serve, connection, peer, address, serve)

    async def _serve(self, connection: socket.socket, peer: str, address: str, serve: Serve) -> None:
        """One connection from its beginning to its end."""
        try:
            with answering(None):
                await serve(connection, peer)
        except Exception:  # one connection must not end the others
            log.exception("a connection from %s failed in an unforeseen way", address)
        finally:
            connection.close()
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message (SCM_RIGHTS); the system has opened them already."""
    found = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
