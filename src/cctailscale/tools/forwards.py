"""The tool for port forwards: services of the tailnet for programs here, and a program here for the tailnet."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from cctailscale.agents.inbound import InboundForward
from cctailscale.errors import BadCall, NoSuchForward, plain
from cctailscale.tailnet.forward import Forward
from cctailscale.tailnet.peers import MAX_PORT
from cctailscale.tools.diagnostics import Host, Port
from cctailscale.tools.progress import Progress

if TYPE_CHECKING:
    from cctailscale.agents.inbound import InboundForwards, Visit
    from cctailscale.tailnet.forward import Forwards
    from cctailscale.tailnet.node import Node

EXAMPLE = (
    'For example action="create", host="db", port=5432; action="create", direction="from_tailnet", port=8080, '
    'local_port=3000; action="list"; action="close", id="f1".'
)
# Of one forward. A browser opens six; all forwards together have to fit into a result.
MAX_PEERS = 20
Direction = Literal["to_tailnet", "from_tailnet"]


class PeerRow(BaseModel):
    """An open connection from the tailnet."""

    name: str = Field(description="of the device, verified as owner and tags are")
    owner: str | None = None
    tags: list[str] = []
    since: datetime
    sent_bytes: int = Field(description="to the peer")
    received_bytes: int = Field(description="from the peer")


class ForwardRow(BaseModel):
    """One forward."""

    id: str
    direction: Direction
    local: str = Field(description="the end on this machine: to_tailnet where programs connect to, else the program")
    target: str = Field(description="host:port on the tailnet; from_tailnet: this node, where peers connect to")
    created: datetime
    age_ms: int
    connections: int = Field(description="open now")
    connections_total: int
    connections_turned_away: int = Field(description="beyond what one forward, or one peer, may have open at once")
    sent_bytes: int = Field(description="to the tailnet")
    received_bytes: int = Field(description="from the tailnet")
    last_error: str | None = Field(description="what the last connection that failed ended with")
    peers: list[PeerRow] | None = Field(
        default=None, description=f"from_tailnet: who is connected, the latest first, at most {MAX_PEERS}"
    )
    refused_total: int | None = Field(default=None, description="from_tailnet: connections of peers that may not")
    last_refusal: str | None = Field(default=None, description="from_tailnet: who that was last, why, what to add")


class PortForward(BaseModel):
    """What was done."""

    id: str | None = Field(default=None, description="of the forward that was created, found or closed")
    local: str | None = Field(default=None, description='its end on this machine, "127.0.0.1:PORT"')
    target: str | None = Field(default=None, description='its end on the tailnet, "HOST:PORT"')
    note: str | None = None
    forwards: list[ForwardRow] | None = Field(default=None, description="with action list: all that are open")
    notice: str | None = Field(default=None, description="present while control does not answer")


class PortForwarding:
    """The tool; its docstring is what Claude reads."""

    def __init__(self, node: Node, outbound: Forwards, inbound: InboundForwards) -> None:
        self._node = node
        self._outbound = outbound
        self._inbound = inbound

    async def tailscale_port_forward(
        self,
        ctx: Context[Any],
        action: Literal["create", "list", "close"],
        direction: Annotated[
            Direction, Field(description="create: to a service of the tailnet, or from the tailnet to a program here")
        ] = "to_tailnet",
        host: Annotated[
            Host | None, Field(description="create, to_tailnet: short or full MagicDNS name, or address")
        ] = None,
        port: Annotated[
            Port | None, Field(description="create: on that host; from_tailnet: on this node, for peers to connect to")
        ] = None,
        local_port: Annotated[
            int, Field(ge=0, le=MAX_PORT, description="create: on 127.0.0.1; to_tailnet: 0 takes a free one")
        ] = 0,
        id: Annotated[str | None, Field(description="close: from create or list")] = None,  # noqa: A002 - Claude's word
    ) -> PortForward:
        """Makes a TCP service of the tailnet reachable at 127.0.0.1:PORT, for psql, curl, a browser or other programs.

        While a forward is open, any local user of this machine can connect to it, and reaches the service as this
        device. It ends with close or with the session. Creating one does not connect to the service yet: if it does
        not work, action list tells in last_error why.

        direction from_tailnet is the other way: a port of this node goes to a program on this machine's 127.0.0.1, a
        dev server shown to a colleague for example. Only if the user asks for it; it is off unless they have set
        TS_ALLOW_INBOUND_FORWARD=1. Who may send messages to this agent can connect: the user's own devices, those that
        share a tag, TS_ALLOW_FROM, grants; the tailnet's policy has to allow the port as well. The program sees
        connections from 127.0.0.1, and may trust them more than it should. action list shows who is connected.
        """
        if action == "list":
            done = PortForward(forwards=[_row(forward) for forward in self._all()])
        elif action == "close":
            done = await self._close(id)
        elif direction == "from_tailnet":
            done = await self._show(host, port, local_port, Progress(ctx))
        else:
            done = await self._open(host, port, local_port, Progress(ctx))
        return done.model_copy(update={"notice": await self._node.notice()})

    async def _open(self, host: str | None, port: int | None, local_port: int, progress: Progress) -> PortForward:
        if host is None or port is None:
            raise BadCall("The action create needs host and port.", EXAMPLE)
        forward, new = await self._outbound.create(host, port, local_port, progress)
        return _made(forward, _note(forward, new, local_port))

    def _all(self) -> list[Forward | InboundForward]:
        return [*self._outbound.all(), *self._inbound.all()]

    async def _close(self, forward_id: str | None) -> PortForward:
        if forward_id is None:
            raise BadCall("The action close needs id.", EXAMPLE)
        forwards = {forward.id: forward for forward in self._all()}
        forward = forwards.get(forward_id)
        if isinstance(forward, InboundForward):
            await self._inbound.close(forward)
            return _made(forward, f"Closed; {forward.target} does not lead to this machine any more.")
        if forward is None:
            raise NoSuchForward(forward_id, tuple(forwards))
        await self._outbound.close(forward_id)
        return _made(forward, f"Closed; it went to {forward.target}.")

    async def _show(self, host: str | None, port: int | None, local_port: int, progress: Progress) -> PortForward:
        if host is not None or port is None or not local_port:
            raise BadCall("With from_tailnet, the action create needs port and local_port, and no host.", EXAMPLE)
        forward, new = await self._inbound.create(port, local_port, progress)
        first = "" if new else "There was this forward already. "
        note = (
            f"{first}{forward.target} on the tailnet goes to {forward.local}. Who may send messages to this agent can "
            "connect until it is closed; the program sees them come from 127.0.0.1."
        )
        return _made(forward, note)


def _made(forward: Forward | InboundForward, note: str) -> PortForward:
    return PortForward(id=forward.id, local=forward.local, target=forward.target, note=note)


def _note(forward: Forward, new: bool, local_port: int) -> str:
    if new:
        return f"Goes to {forward.target}. Any local user can connect to it until it is closed."
    if local_port in (0, forward.local_port):
        return f"There was a forward to {forward.target} already; this is it."
    return (
        f"There was a forward to {forward.target} already; this is it. For the local port {local_port}, close it first."
    )


def _row(forward: Forward | InboundForward) -> ForwardRow:
    row = ForwardRow(
        id=forward.id,
        direction="to_tailnet",
        local=forward.local,
        target=forward.target,
        created=_time(forward.created_at),
        age_ms=round((time.time() - forward.created_at) * 1000),
        connections=forward.connections,
        connections_total=forward.total,
        connections_turned_away=forward.turned_away,
        sent_bytes=forward.sent,
        received_bytes=forward.received,
        last_error=forward.last_error,
    )
    if isinstance(forward, InboundForward):
        row.direction = "from_tailnet"
        row.peers = [_peer(visit) for visit in reversed(forward.visits[-MAX_PEERS:])]
        row.refused_total = forward.refusals.count
        row.last_refusal = next((str(one.refused) for one in forward.refusals.peers), None)
    return row


def _peer(visit: Visit) -> PeerRow:
    return PeerRow(
        name=plain(visit.peer.name),
        owner=plain(visit.peer.login) if visit.peer.login else None,
        tags=[plain(tag) for tag in visit.peer.tags],
        since=_time(visit.since),
        sent_bytes=visit.splice.sent,
        received_bytes=visit.splice.received,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
