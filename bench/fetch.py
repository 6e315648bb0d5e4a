"""One small answer: through the tool and MCP, and raw through the SOCKS port of a bare tsnet program."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import socks
from bench.figures import Goal, Subject, differences
from bench.lab import PEER, Lab
from tests.agent import Agent

BODY_BYTES = 1024
PATH = f"/bytes?n={BODY_BYTES}&type=text/plain"
PORT = 80
REQUESTS_A_ROUND = 30
WARM_UP_REQUESTS = 20


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "fetch",
        f"GET of {BODY_BYTES} bytes from the same peer, one at a time, in turns. Tool: tools/call to its result at the "
        "client. Raw: request to the last byte, through the helper's SOCKS port. A new connection is one to a name "
        "that was not used before, its lookup included.",
    )
    count = rounds * REQUESTS_A_ROUND
    names = [f"{PEER}-{number}.{lab.tailnet.magic_dns_suffix}" for number in range(WARM_UP_REQUESTS + count)]
    records = [{"name": name, "value": lab.peer_address} for name in names]
    lab.tailnet.admin("PUT", "/dns", {"extra_records": records})
    with lab.helper() as (helper, _):
        async with lab.joined_agent() as agent:
            with contextlib.closing(socks.connect(helper, PEER, PORT)) as kept:
                again = await _pairs(agent, [PEER] * len(names), lambda _: _raw(kept))
            anew = await _pairs(agent, names, lambda name: _raw_anew(helper, name))
    lab.tailnet.admin("PUT", "/dns", {"extra_records": []})
    for kind, (ours, theirs), goal in (("keep-alive", again, Goal(2)), ("new connection", anew, None)):
        subject.add(f"{kind}: tool", "ms", ours)
        subject.add(f"{kind}: raw through the helper", "ms", theirs)
        subject.add(f"{kind}: tool - raw, by request", "ms", differences(ours, theirs), goal)
    return subject


async def _pairs(agent: Agent, hosts: Sequence[str], raw: Callable[[str], float]) -> tuple[list[float], list[float]]:
    """Milliseconds of one request to each host each way, in turns; the first ones only warm both up."""
    ours: list[float] = []
    theirs: list[float] = []
    for host in hosts:
        ours.append(await _tool(agent, host))
        theirs.append(raw(host))
    return ours[WARM_UP_REQUESTS:], theirs[WARM_UP_REQUESTS:]


async def _tool(agent: Agent, host: str) -> float:
    began = time.perf_counter()
    result = await agent.call("tailscale_fetch", url=f"http://{host}{PATH}")
    passed = (time.perf_counter() - began) * 1000
    if result.is_error or "HTTP/1.1 200 OK" not in result.text:
        raise RuntimeError(result.text)
    return passed


def _raw(sock: socket.socket) -> float:
    began = time.perf_counter()
    if socks.get(sock, PEER, PATH) != BODY_BYTES:
        raise RuntimeError("the raw request brought another body")
    return (time.perf_counter() - began) * 1000


def _raw_anew(helper: Mapping[str, Any], host: str) -> float:
    began = time.perf_counter()
    with socks.connect(helper, host, PORT) as sock:
        _raw(sock)
        return (time.perf_counter() - began) * 1000
