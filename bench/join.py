"""From the first tool call to an answer out of the tailnet, beside the joins of others."""

from __future__ import annotations

import tempfile
import time

from bench.figures import Goal, Subject, ratios
from bench.lab import PEER, TYPESCRIPT, Lab, left, preloaded
from bench.process import settled
from bench.rivals import TypeScript
from tests.agent import Agent


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "join",
        "The first tool call of a fresh session, from its request to its answer at the client: MCP, claiming the state "
        "directory, start, login, map and the call's own work included. The process has loaded its modules and rests. "
        "TypeScript: the same, its helper's start included. tailscaled: from its exec to the state Running. Bare "
        "tsnet: from Server.Up to Running inside a Go program that is up. Each with a new device.",
    )
    status: list[float] = []
    fetch: list[float] = []
    bare: list[float] = []
    stored: list[float] = []
    typescript: list[float] = []
    daemon: list[float] = []
    for _ in range(rounds):
        status.append(await _first_call(lab, "tailscale_status", {}))
        bare.append(_bare(lab))
        with tempfile.TemporaryDirectory(prefix="cc-tailscale-bench-") as folder:
            stored.append(_bare(lab, "-dir", folder))
        if lab.typescript is not None:
            typescript.append(await _first_call_of_typescript(lab, lab.typescript))
        with lab.tailscaled() as tailscaled:
            daemon.append(tailscaled.start_ms)
        fetch.append(await _first_call(lab, "tailscale_fetch", {"url": f"http://{PEER}/"}))
    subject.add("first tailscale_status", "ms", status)
    subject.add("first tailscale_fetch", "ms", fetch)
    subject.add("bare tsnet, state in memory", "ms", bare)
    subject.add("bare tsnet, state on disk as ours", "ms", stored)
    if typescript:
        subject.add(f"{TYPESCRIPT}: first tailscale_status", "ms", typescript)
        subject.add(f"tailscale_status / {TYPESCRIPT}, by round", "x", ratios(status, typescript))
    subject.add("tailscaled", "ms", daemon)
    subject.add("tailscale_status / in memory, by round", "x", ratios(status, bare), Goal(2))
    subject.add("tailscale_status / on disk, by round", "x", ratios(status, stored))
    subject.add("tailscale_fetch / in memory, by round", "x", ratios(fetch, bare))
    return subject


def _bare(lab: Lab, *arguments: str) -> float:
    with lab.helper(*arguments) as helper:
        return float(helper.line["start_ms"])


async def _first_call_of_typescript(lab: Lab, typescript: TypeScript) -> float:
    async with Agent.started(typescript.environ(lab.environ()), command=typescript.command) as agent:
        await settled(agent.pid)
        began = time.perf_counter()
        await agent.succeed("tailscale_status")
        passed = (time.perf_counter() - began) * 1000
        await left(agent)
        return passed


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
