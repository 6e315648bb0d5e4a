"""One connection to the agents' server: aiohttp's HTTP/1.1, with who is at the other end, and bounds in time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import anyio
from aiohttp import web

from cctailscale.agents.wire import MAX_HEADER_BYTES, MAX_HEADERS, MAX_REFUSAL_CHARS, Refusal
from cctailscale.errors import plain

if TYPE_CHECKING:
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.models import WhoIs

log = logging.getLogger(__name__)

# From its first byte to its last, headers and body. 64 KiB take a second on a bad line.
REQUEST_SECONDS = 10.0
# From one request to the next, the answer in between included. Longer than the pools of clients keep a connection
# (15 s in aiohttp), so that it is them who close it and no request meets a connection that is just being closed.
NEXT_REQUEST_SECONDS = 60.0
# After an answer that came before the whole body had: what still arrives is thrown away for so long, since a close
# would reset the connection before the answer is read.
LINGER_SECONDS = 1.0
# Commands to a team come many a second on one connection, and to ask for each who that is costs as much as to answer.
# An answer of this age will do for them: a policy that is changed needs some such time to get here.
KNOWN_SECONDS = 1.0
MAX_TARGET_BYTES = 2048


class Ends(NamedTuple):
    """Who a connection is between: this node, and the peer."""

    here: WhoIs | None
    peer: WhoIs | None


class Connection(web.RequestHandler):
    """The protocol of one connection. `peer` is "ip:port", as `device`, through which it came, has it from Go.

    It is always waiting for something that has a bound, and is reset when that has passed: a request to be here in
    full, or the next one to begin. `closed` is set at its end.
    """

    def __init__(self, server: web.Server, device: Device, peer: str) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            tcp_keepalive=False,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_TARGET_BYTES,
            max_headers=MAX_HEADERS,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,
        )
        self.device = device
        self.peer = peer
        self.closed = anyio.Event()
        self._reading = True
        self._waiting: anyio.CancelScope | None = None
        self._wire: asyncio.Transport | None = None
        self._bound: asyncio.TimerHandle | None = None
        self._known: tuple[float, WhoIs | None] | None = None  # when, and who the peer was

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        self._expect(REQUEST_SECONDS)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if data and not self._reading:
            self._reading = True
            self._expect(REQUEST_SECONDS)
        super().data_received(data)

    def request_is_here(self) -> None:
        """The request that is being answered has arrived in full."""
        self._reading = False
        self._expect(NEXT_REQUEST_SECONDS)

    async def ends(self, *, may_be_known: bool) -> Ends:
        """This node and who is at the other end, by WhoIs; None for this node, as long as it is not on the tailnet.

        `may_be_known`: what was found out within KNOWN_SECONDS will do. Raises what `Device.whois` raises.
        """
        now, known = asyncio.get_running_loop().time(), self._known
        if not may_be_known or known is None or now - known[0] >= KNOWN_SECONDS:
            self._known = known = None  # nor is it of use if there is no answer this time
        here = await self.device.me(KNOWN_SECONDS if may_be_known else 0.0)
        if here is None:
            return Ends(None, None)
        if known is None:
            self._known = known = (now, await self.device.whois(self.peer))
        return Ends(here, known[1])

    def forget_ends(self) -> None:
        """They are asked for anew with the next request: who was refused gets in as soon as it may."""
        self._known = None

    def _expect(self, seconds: float) -> None:
        if self._bound is not None:
            self._bound.cancel()
        if not self.closed.is_set():
            self._bound = asyncio.get_running_loop().call_later(seconds, self.reset)

    def reset(self) -> None:
        """Ends the connection now; what was not sent yet is dropped."""
        if self._wire is not None:
            self._wire.abort()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What is done within may wait for long; it is cancelled by `stop_waiting`, and by the connection's end."""
        with anyio.CancelScope() as self._waiting:
            if self.closed.is_set():
                self._waiting.cancel()
            yield

    def stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.closed.set()
        self.stop_waiting()
        if self._bound is not None:
            self._bound.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - the signature is aiohttp's
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """The answer to what is not sound HTTP. aiohttp's own quotes it, and logs a traceback each time."""
        log.debug("%s sent no sound HTTP: %s", self.peer, exc)
        refusal = refuse(status, "bad_request", "That is not sound HTTP/1.1, or passes a limit of it.")
        refusal.force_close()
        return refusal


def answer(document: bytes, status: int = 200) -> web.Response:
    """An answer with a document of wire.py."""
    # Without a name of ours aiohttp says its version and Python's.
    return web.Response(
        body=document, status=status, content_type="application/json", headers={"Server": "cc-tailscale"}
    )


def refuse(
    status: int, error: str, message: str, *, spoken: list[int] | None = None, wait: float | None = None
) -> web.Response:
    """An answer with a `Refusal`. `wait`: after how many seconds it is worth trying again."""
    refusal = Refusal(
        error=error,
        message=plain(message, MAX_REFUSAL_CHARS),
        spoken=spoken,
        retry_after_ms=None if wait is None else math.ceil(wait * 1000),
    )
    response = answer(refusal.to_json(), status)
    if wait is not None:
        response.headers["Retry-After"] = str(math.ceil(wait))
    return response
