"""A large file through each of them: how fast it comes, and what it costs of the CPUs."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from bench.figures import Goal, Subject, rates, ratios
from bench.lab import GO, OURS, PEER, TAILSCALED, TYPESCRIPT, Joined, Lab
from bench.process import MIB, cpu_seconds
from bench.turns import Way, in_turns
from tests.agent import Agent

FILE_BYTES = 256 * MIB
GIB = 1024 * MIB
URL = f"http://{PEER}/bytes?n={FILE_BYTES}"
MAX_ROUNDS = 5


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "save",
        f"A file of {FILE_BYTES // MIB} MiB from the same peer, {min(rounds, MAX_ROUNDS)} times in turns. The two MCP "
        "servers: save_to, tools/call to its result at the client; cc-tailscale's has SHA-256 and progress in it. "
        "curl: its start included. Bare tsnet: within the Go program. All into the same folder. CPU: user and system "
        "time of all processes of each, curl too, but not the peer's.",
    )
    async with lab.everybody() as joined:
        samples = await in_turns(_ways(joined), min(rounds, MAX_ROUNDS))
    seconds = {name: [batch[0] for batch in batches] for name, batches in samples.items()}
    cpu = {name: [batch[1] * GIB / FILE_BYTES for batch in batches] for name, batches in samples.items()}
    for name, passed in seconds.items():
        subject.add(name, "MiB/s", rates(FILE_BYTES, passed))
    for name, used in cpu.items():
        subject.add(f"{name}, CPU", "s/GiB", used)
    goals = {TAILSCALED: Goal(0.8, "at least"), GO: Goal(0.9, "at least")}
    for name in list(seconds)[1:]:
        subject.add(f"{OURS} / {name}, by round", "x", ratios(seconds[name], seconds[OURS]), goals.get(name))
    if TYPESCRIPT in cpu:
        subject.add(f"{OURS} / {TYPESCRIPT}, CPU, by round", "x", ratios(cpu[OURS], cpu[TYPESCRIPT]))
    return subject


def _ways(joined: Joined) -> dict[str, Way]:
    return {name: _metered(joined.pids[name], way) for name, way in ways_to_save(joined).items()}


def ways_to_save(joined: Joined) -> dict[str, Callable[[], Awaitable[None]]]:
    """One file, in each way; it is removed at once."""
    files = (joined.folder / f"file-{number}" for number in itertools.count(1))
    ways: dict[str, Callable[[], Awaitable[None]]] = {
        name: partial(_saved, agent, files) for name, agent in joined.servers.items()
    }
    ways[TAILSCALED] = lambda: asyncio.to_thread(_curled, joined, next(files))
    ways[GO] = lambda: asyncio.to_thread(_copied, joined, next(files))
    return ways


def _metered(pid: int, way: Callable[[], Awaitable[None]]) -> Way:
    """Seconds, and CPU seconds of the process and its children; the children of this process are curl."""

    async def measured() -> tuple[float, float]:
        curl, cpu, began = _children(), cpu_seconds(pid), time.perf_counter()
        await way()
        passed = time.perf_counter() - began
        return passed, cpu_seconds(pid) - cpu + _children() - curl

    return measured


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


async def _saved(agent: Agent, files: Iterator[Path]) -> None:
    file = next(files)
    await agent.succeed("tailscale_fetch", url=URL, save_to=str(file))
    _removed(file)


def _curled(joined: Joined, file: Path) -> None:
    joined.tailscaled.curl("--output", file, URL)
    _removed(file)


def _copied(joined: Joined, file: Path) -> None:
    joined.helper.floor(URL, save_to=file)
    _removed(file)


def _removed(file: Path) -> None:
    size = file.stat().st_size
    if size != FILE_BYTES:
        raise RuntimeError(f"{size} bytes came, not {FILE_BYTES}")
    file.unlink()
