"""From the first tool call to an answer out of the tailnet, beside a bare tsnet program's join."""

from __future__ import annotations

import time

from bench.figures import Goal, Subject, ratios
from bench.lab import PEER, Lab, left, preloaded


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "join",
        "The first tool call of a fresh session, from its request to its answer at the client: MCP, claiming the state "
        "directory, start, login, map and the call's own work included. The process has loaded its modules and rests. "
        "Bare tsnet: from Server.Start to the state Running inside a Go program that is up. Each with a new device.",
    )
    status: list[float] = []
    fetch: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        status.append(await _first_call(lab, "tailscale_status", {}))
        with lab.helper("-join-only") as (line, _):
            bare.append(line["start_ms"])
        fetch.append(await _first_call(lab, "tailscale_fetch", {"url": f"http://{PEER}/"}))
    subject.add("first tailscale_status", "ms", status)
    subject.add("first tailscale_fetch", "ms", fetch)
    subject.add("bare tsnet", "ms", bare)
    subject.add("tailscale_status / bare tsnet, by round", "x", ratios(status, bare), Goal(2))
    subject.add("tailscale_fetch / bare tsnet, by round", "x", ratios(fetch, bare))
    return subject


async def _first_call(lab: Lab, tool: str, arguments: dict[str, str]) -> float:
    async with lab.agent() as agent:
        await preloaded(agent)
        began = time.perf_counter()
        result = await agent.succeed(tool, **arguments)
        passed = (time.perf_counter() - began) * 1000
        if result.structured is not None and result.structured["state"] != "running":
            raise RuntimeError(result.text)
        await left(agent)
        return passed
