"""What this agent answers to others: HTTP/1.1 on the connections that a listener hands over.

Each request passes the same gate, in this order: is it meant for this node, and not sent by a browser's page; who is
at the other end, by WhoIs (for what a team asks often, within the last second); may they do that, by `Policy`; have
they not sent too much of late. Only then its body is read and a handler sees it. What a request says about its sender
is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import anyio
from aiohttp import web

from cctailscale.agents.connection import Connection, answer, refuse
from cctailscale.agents.policy import Action, Policy, Principal, Refused, principal
from cctailscale.agents.rate import Rate
from cctailscale.agents.refusals import Refusals
from cctailscale.agents.wire import PROTOCOL, AgentCard, Message
from cctailscale.audit import OFF, Audit
from cctailscale.call import answering, carried
from cctailscale.documents import ID_PATTERN, MAX_DOCUMENT_BYTES
from cctailscale.errors import BadDocument, CcTailscaleError, InboxFull, InboxUnusable, MessageConflict, shown_address

if TYPE_CHECKING:
    from cctailscale.agents.inbox import Inbox
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.models import WhoIs

log = logging.getLogger(__name__)

# A message that is being stored gets so long to be stored and acknowledged when the server ends.
FINISH_SECONDS = 1.0

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:[0-9]{1,5})?")
_VERSION = re.compile(r"/v([0-9]{1,9})(/.*)?")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has passed the gate. `body` is empty for GET; `parts` is what the groups of the path hold.

    `query` is what follows the question mark, as it was sent.
    """

    me: Principal
    peer: Principal
    body: bytes
    parts: tuple[str, ...]
    query: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One thing that can be asked for. `path` is a pattern for the whole path.

    `action`: what the policy has to allow; None: any action will do. `rated`: it counts as a message for `Rate`.
    `waits`: it may wait for something to happen, which ends with the connection and with the server.
    `often`: so often that who asks is not found out anew for each request (`Connection.ends`).
    `handle` answers within NEXT_REQUEST_SECONDS; the errors of `_refusal` need no care there.
    """

    method: Literal["GET", "POST"]
    path: str
    action: Action | None
    handle: Callable[[Call], Awaitable[web.Response]]
    rated: bool = False
    waits: bool = False
    often: bool = False


class AgentServer:
    """Made by `opened`, which also ends it. It outlives a device: a new one has its connections served by the same.

    `endpoints` may be added to. `refusals` are those of the policy.
    """

    def __init__(
        self, inbox: Inbox, policy: Policy, card: Callable[[], AgentCard], rate: Rate, audit: Audit = OFF
    ) -> None:
        self.refusals = Refusals()
        self.endpoints = [
            Endpoint("GET", "/v1/agent", None, self._agent),
            Endpoint("POST", "/v1/messages", "message", self._message, rated=True),
            Endpoint("GET", f"/v1/messages/({ID_PATTERN.strip('^$')})", "message", self._receipt),
        ]
        self._inbox = inbox
        self._policy = policy
        self._card = card
        self._rate = rate
        self._audit = audit
        self._http = web.Server(self._answer)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        inbox: Inbox,
        policy: Policy,
        card: Callable[[], AgentCard],
        rate: Rate | None = None,
        audit: Audit = OFF,
    ) -> AsyncIterator[Self]:
        """A server without connections yet: see `serve`. `card` gives what GET /v1/agent says, as it is now."""
        server = cls(inbox, policy, card, rate or Rate(), audit)
        try:
            yield server
        finally:
            for connection in server._http.connections:
                cast("Connection", connection).stop_waiting()
            with anyio.CancelScope(shield=True):
                await server._http.shutdown(FINISH_SECONDS)

    async def serve(self, device: Device, sock: socket.socket, peer: str) -> None:
        """Answers on one connection until it ends; cancelled, it resets it.

        `sock` is connected and non-blocking and belongs to the server from now on. `peer` is the "ip:port" that the
        listener of `device` gave with it: who that is, `device` is asked for each request.
        """
        connection = Connection(self._http, device, peer)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        try:
            await connection.closed.wait()
        finally:
            connection.reset()
            with anyio.CancelScope(shield=True):
                await connection.closed.wait()

    # ---- the gate ---------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        """The answer, and a line about it in the audit log."""
        connection = cast("Connection", request.protocol)
        with answering(None) as work:
            async with self._audit.entry(
                "request",
                work,
                method=request.method,
                path=shown_address(_path(request)),
                peer={"address": connection.peer},
            ) as entry:
                try:
                    response = await self._answered(request, connection, entry)
                finally:
                    carried(0, request.content.total_bytes)
                carried(response.content_length or 0, 0)
                entry.update(status=response.status, outcome=_outcome(response.status))
                return response

    async def _answered(self, request: web.BaseRequest, connection: Connection, entry: dict[str, Any]) -> web.Response:
        if request.content.is_eof():
            connection.request_is_here()
        try:
            response = await self._admitted(request, connection, entry)
        except CcTailscaleError as error:
            response = _refusal(error)
        except ConnectionError:  # it has ended; aiohttp sees to it
            raise
        except Exception:  # a defect in one request must not show more than that
            log.exception("a request from %s failed in an unforeseen way", connection.peer)
            response = refuse(500, "defect", "This agent failed in an unforeseen way. Try again later.")
        if request.content.is_eof():
            connection.request_is_here()
        else:  # what is left of it would be taken for the next request
            response.force_close()
        return response

    async def _admitted(self, request: web.BaseRequest, connection: Connection, entry: dict[str, Any]) -> web.Response:
        endpoint, parts = self._endpoint(request)
        here, who = await connection.ends(may_be_known=endpoint is not None and endpoint.often)
        if here is None:
            return refuse(503, "not_running", "This agent's node is not on the tailnet. Try again later.")
        stray = _stray(request, here)
        if stray is not None:
            return stray
        me, peer = principal(here), principal(who, connection.peer)
        entry["peer"] = peer.audited(connection.peer)
        refused = self._refused(me, peer, endpoint.action if endpoint else None)
        if refused is not None:
            connection.forget_ends()
            self.refusals.note(peer, refused)
            return refuse(403, "refused", str(refused))
        if endpoint is None:
            return _nothing_there(request)
        wait = self._rate.take(peer.node_id) if endpoint.rated else 0.0
        if wait:
            return refuse(429, "too_many", "That is more than one message a second. Wait, then go on.", wait=wait)
        call = Call(me, peer, b"", parts, request.raw_path.partition("?")[2])
        if not endpoint.waits:
            return await self._handled(request, connection, endpoint, call)
        with connection.waiting():
            return await self._handled(request, connection, endpoint, call)
        return refuse(503, "not_running", "This agent is leaving the tailnet. Try again later.")

    async def _handled(
        self, request: web.BaseRequest, connection: Connection, endpoint: Endpoint, call: Call
    ) -> web.Response:
        if endpoint.method == "GET":
            return await endpoint.handle(call)
        unfit = _unfit(request)
        if unfit is not None:
            return unfit
        body = await request.read()
        connection.request_is_here()
        return await endpoint.handle(replace(call, body=body))

    def _endpoint(self, request: web.BaseRequest) -> tuple[Endpoint | None, tuple[str, ...]]:
        for endpoint in self.endpoints:
            found = re.fullmatch(endpoint.path, _path(request))
            if found and endpoint.method == request.method:
                return endpoint, found.groups()
        return None, ()

    def _refused(self, me: Principal, peer: Principal, action: Action | None) -> Refused | None:
        refused = self._policy.decide(me, peer, action or "message")
        if action is None and self._policy.decide(me, peer, "team") is None:
            return None
        return refused

    # ---- handlers ---------------------------------------------------------------------------------------------------

    async def _agent(self, call: Call) -> web.Response:
        may_message = self._policy.decide(call.me, call.peer, "message") is None
        return answer(self._card().model_copy(update={"may_message": may_message}).to_json())

    async def _message(self, call: Call) -> web.Response:
        receipt = await self._inbox.put(call.peer, Message.from_json(call.body))
        return answer(receipt.to_json(), 202)

    async def _receipt(self, call: Call) -> web.Response:
        receipt = await self._inbox.receipt_of(call.peer.node_id, call.parts[0])
        if receipt is None:
            return refuse(404, "not_found", "You have sent no message with that id here.")
        return answer(receipt.to_json())


def _path(request: web.BaseRequest) -> str:
    """As it was sent. Nothing is decoded or resolved in it, so that no two paths mean the same."""
    return request.raw_path.partition("?")[0]


def _stray(request: web.BaseRequest, here: WhoIs) -> web.Response | None:
    """The answer to a request that a browser's page sent, or that is meant for another server."""
    # Pages cannot suppress these, and no agent sends them.
    if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
        return refuse(403, "cross_origin", "This is no service for browsers.")
    # A page whose name was made to point here (DNS rebinding) has its own name in Host.
    if not _is_called(request.headers.get("Host", ""), here):
        return refuse(421, "wrong_host", "The header Host names none of this node's names and addresses.")
    return None


def _is_called(host: str, here: WhoIs) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    called, full_name = found[1].lower(), here.node.name.lower()
    if called.rstrip(".") in (full_name, full_name.partition(".")[0]):
        return True
    try:
        return ip_address(called.strip("[]")) in [ip_interface(address).ip for address in here.node.addresses]
    except ValueError:
        return False


def _unfit(request: web.BaseRequest) -> web.Response | None:
    """The answer to a body that is not going to be read."""
    if "Transfer-Encoding" in request.headers or request.content_length is None:
        return refuse(411, "length_required", "The header Content-Length has to say how long the body is.")
    if request.content_length > MAX_DOCUMENT_BYTES:
        return refuse(413, "too_large", f"The body has more than {MAX_DOCUMENT_BYTES} bytes.")
    charset = (request.charset or "utf-8").lower()
    if request.content_type != "application/json" or charset != "utf-8" or "Content-Encoding" in request.headers:
        return refuse(415, "wrong_type", "The body has to be application/json in UTF-8, without a Content-Encoding.")
    return None


def _nothing_there(request: web.BaseRequest) -> web.Response:
    version = _VERSION.fullmatch(_path(request))
    if version and int(version[1]) != PROTOCOL:
        message = f"This agent speaks version {PROTOCOL} of the protocol: paths begin with /v{PROTOCOL}/."
        return refuse(404, "unknown_version", message, spoken=[PROTOCOL])
    return refuse(404, "not_found", "There is nothing under that path and method.")


def _outcome(status: int) -> str:
    if status < 400:
        return "ok"
    return "refused" if status < 500 else "failed"


def _refusal(error: CcTailscaleError) -> web.Response:
    match error:
        case BadDocument():
            return refuse(400, "bad_document", str(error))
        case MessageConflict():
            return refuse(409, "id_taken", str(error))
        case InboxFull():
            return refuse(507, "inbox_full", str(error))
        case InboxUnusable():  # its text names a path of this machine
            log.error("a message could not be stored: %s", error)
            return refuse(507, "inbox_unusable", "This agent cannot store messages now; its user has to see to it.")
        case _:  # the device is closing, or does not say who asks
            log.info("a request could not be answered: %s", error)
            return refuse(503, "not_running", "This agent's node cannot say who you are just now. Try again later.")
