"""From the first tool call to an answer out of the tailnet, beside a bare tsnet program's join."""

from __future__ import annotations

import tempfile
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
    stored: list[float] = []
    for _ in range(rounds):
        status.append(await _first_call(lab, "tailscale_status", {}))
        bare.append(_bare(lab))
        with tempfile.TemporaryDirectory(prefix="cc-tailscale-bench-") as folder:
            stored.append(_bare(lab, "-dir", folder))
        fetch.append(await _first_call(lab, "tailscale_fetch", {"url": f"http://{PEER}/"}))
    subject.add("first tailscale_status", "ms", status)
    subject.add("first tailscale_fetch", "ms", fetch)
    subject.add("bare tsnet, state in memory", "ms", bare)
    subject.add("bare tsnet, state on disk as ours", "ms", stored)
    subject.add("tailscale_status / in memory, by round", "x", ratios(status, bare), Goal(2))
    subject.add("tailscale_status / on disk, by round", "x", ratios(status, stored))
    subject.add("tailscale_fetch / in memory, by round", "x", ratios(fetch, bare))
    return subject


def _bare(lab: Lab, *arguments: str) -> float:
    with lab.helper("-join-only", *arguments) as (line, _):
        milliseconds: float = line["start_ms"]
        return milliseconds


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
