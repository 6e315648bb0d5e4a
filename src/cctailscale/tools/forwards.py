"""The tool for port forwards: services of the tailnet for programs on this machine."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from cctailscale.errors import BadCall
from cctailscale.tailnet.forward import MAX_CONNECTIONS, Forward, Forwards
from cctailscale.tailnet.node import Node
from cctailscale.tailnet.peers import MAX_PORT
from cctailscale.tools.diagnostics import Host, Port
from cctailscale.tools.progress import Progress

EXAMPLE = 'For example action="create", host="db", port=5432; action="list"; action="close", id="f1".'


class ForwardRow(BaseModel):
    """One forward."""

    id: str
    local: str = Field(description="where programs on this machine connect to")
    target: str = Field(description="host:port on the tailnet; the name is resolved anew for each connection")
    created: datetime
    age_ms: int
    connections: int = Field(description="open now")
    connections_total: int
    connections_turned_away: int = Field(description=f"beyond the {MAX_CONNECTIONS} that one forward carries at once")
    sent_bytes: int = Field(description="to the tailnet")
    received_bytes: int = Field(description="from the tailnet")
    last_error: str | None = Field(description="what the last connection that failed ended with")


class PortForward(BaseModel):
    """What was done."""

    id: str | None = Field(default=None, description="of the forward that was created, found or closed")
    local: str | None = Field(default=None, description='its local end, "127.0.0.1:PORT"')
    note: str | None = None
    forwards: list[ForwardRow] | None = Field(default=None, description="with action list: all that are open")
    notice: str | None = Field(default=None, description="present while control does not answer")


class PortForwarding:
    """The tool; its docstring is what Claude reads."""

    def __init__(self, node: Node, forwards: Forwards) -> None:
        self._node = node
        self._forwards = forwards

    async def tailscale_port_forward(
        self,
        ctx: Context[Any],
        action: Literal["create", "list", "close"],
        host: Annotated[Host | None, Field(description="create: short or full MagicDNS name, or address")] = None,
        port: Annotated[Port | None, Field(description="create: the port on that host")] = None,
        local_port: Annotated[int, Field(ge=0, le=MAX_PORT, description="create: on 127.0.0.1; 0: a free one")] = 0,
        id: Annotated[str | None, Field(description="close: from create or list")] = None,  # noqa: A002 - Claude's word
    ) -> PortForward:
        """Makes a TCP service of the tailnet reachable at 127.0.0.1:PORT, for psql, curl, a browser or other programs.

        While a forward is open, any local user of this machine can connect to it, and reaches the service as this
        device. It ends with close or with the session. Creating one does not connect to the service yet: if it does
        not work, action list tells in last_error why.
        """
        if action == "list":
            rows = [_row(forward) for forward in self._forwards.all()]
            return PortForward(forwards=rows, notice=await self._node.notice())
        if action == "close":
            if id is None:
                raise BadCall("The action close needs id.", EXAMPLE)
            closed = await self._forwards.close(id)
            note = f"Closed; it went to {closed.target}."
            return PortForward(id=closed.id, local=closed.local, note=note, notice=await self._node.notice())
        if host is None or port is None:
            raise BadCall("The action create needs host and port.", EXAMPLE)
        forward, new = await self._forwards.create(host, port, local_port, Progress(ctx))
        note = _note(forward, new, local_port)
        return PortForward(id=forward.id, local=forward.local, note=note, notice=await self._node.notice())


def _note(forward: Forward, new: bool, local_port: int) -> str:
    if new:
        return f"Goes to {forward.target}. Any local user can connect to it until it is closed."
    if local_port in (0, forward.local_port):
        return f"There was a forward to {forward.target} already; this is it."
    return (
        f"There was a forward to {forward.target} already; this is it. For the local port {local_port}, close it first."
    )


def _row(forward: Forward) -> ForwardRow:
    return ForwardRow(
        id=forward.id,
        local=forward.local,
        target=forward.target,
        created=datetime.fromtimestamp(int(forward.created_at), UTC),
        age_ms=round((time.time() - forward.created_at) * 1000),
        connections=forward.connections,
        connections_total=forward.total,
        connections_turned_away=forward.turned_away,
        sent_bytes=forward.sent,
        received_bytes=forward.received,
        last_error=forward.last_error,
    )
