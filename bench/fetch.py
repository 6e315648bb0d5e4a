"""One small answer: through the tool and MCP, and raw through the SOCKS port of a bare tsnet program."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bench import socks
from bench.figures import Goal, Subject, differences
from bench.lab import PEER, Lab, joined, left
from tests.agent import Agent

BODY_BYTES = 1024
PATH = f"/bytes?n={BODY_BYTES}&type=text/plain"
# Far more than is on its way when the tool has seen enough.
CUT_PATH = "/bytes?n=4000000&type=text/plain"
PORT = 80
REQUESTS_A_ROUND = 30
WARM_UP_REQUESTS = 20


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "fetch",
        f"GET of {BODY_BYTES} bytes from the same peer, one at a time, in turns. Tool: tools/call to its result at the "
        "client. Raw: request to the last byte, through the helper's SOCKS port. A new connection includes SOCKS and "
        "the lookup of the name.",
    )
    count = rounds * REQUESTS_A_ROUND
    with lab.helper() as (helper, _):
        async with lab.agent() as agent:
            await joined(agent)
            with contextlib.closing(socks.connect(helper, PEER, PORT)) as kept:
                again = await _pairs(lambda: _tool_again(agent), lambda: _raw_again(kept), count)
            anew = await _pairs(lambda: _tool_anew(agent), lambda: _raw_anew(helper), count)
            await left(agent)
    for kind, (ours, theirs), goal in (("keep-alive", again, Goal(2)), ("new connection", anew, None)):
        subject.add(f"{kind}: tool", "ms", ours)
        subject.add(f"{kind}: raw through the helper", "ms", theirs)
        subject.add(f"{kind}: tool - raw, by request", "ms", differences(ours, theirs), goal)
    return subject


async def _pairs(
    tool: Callable[[], Awaitable[float]], raw: Callable[[], float], count: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of `count` requests each way, in turns, after some that warm both up."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(WARM_UP_REQUESTS + count):
        ours.append(await tool())
        theirs.append(raw())
    return ours[WARM_UP_REQUESTS:], theirs[WARM_UP_REQUESTS:]


async def _tool_again(agent: Agent) -> float:
    began = time.perf_counter()
    result = await agent.call("tailscale_fetch", url=f"http://{PEER}{PATH}")
    passed = (time.perf_counter() - began) * 1000
    if result.is_error or "HTTP/1.1 200 OK" not in result.text:
        raise RuntimeError(result.text)
    return passed


async def _tool_anew(agent: Agent) -> float:
    # An answer that is cut ends its connection, if there was more to come: no connection is left to be used again.
    await agent.succeed("tailscale_fetch", url=f"http://{PEER}{CUT_PATH}", max_bytes=1)
    return await _tool_again(agent)


def _raw_again(sock: socket.socket) -> float:
    began = time.perf_counter()
    if socks.get(sock, PEER, PATH) != BODY_BYTES:
        raise RuntimeError("the raw request brought another body")
    return (time.perf_counter() - began) * 1000


def _raw_anew(helper: Mapping[str, Any]) -> float:
    began = time.perf_counter()
    with socks.connect(helper, PEER, PORT) as sock:
        _raw_again(sock)
        return (time.perf_counter() - began) * 1000
