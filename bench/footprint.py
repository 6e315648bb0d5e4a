"""The memory of all processes of each: idle, after a gibibyte, and ten seconds later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.figures import Goal, Subject, ratios
from bench.lab import OURS, TAILSCALED, TYPESCRIPT, Lab
from bench.process import pss, settled
from bench.save import FILE_BYTES, GIB, ways_to_save

FILES = GIB // FILE_BYTES
LATER_SECONDS = 10.0
MAX_ROUNDS = 3
IDLE, LOADED, LATER = "idle", "after 1 GiB", f"{LATER_SECONDS:g} s later"


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "footprint",
        "PSS (smaps_rollup) of a server and all that it has started: cc-tailscale is one process, TypeScript two; of "
        f"tailscaled without curl; of the bare tsnet program. Idle: joined, at rest. Then {FILES} files of "
        f"{FILE_BYTES // (1 << 20)} MiB came one after the other.",
    )
    samples: dict[str, dict[str, list[float]]] = {}
    for _ in range(min(rounds, MAX_ROUNDS)):
        await _round(lab, samples)
    for when in (IDLE, LOADED, LATER):
        for name in samples:
            label = name if name != TAILSCALED else "tailscaled"
            subject.add(f"{when}: {label}", "MiB", samples[name][when])
    if TYPESCRIPT in samples:
        for when, goal in ((IDLE, Goal(1.15)), (LOADED, None), (LATER, Goal(0.5))):
            quotients = ratios(samples[OURS][when], samples[TYPESCRIPT][when])
            subject.add(f"{when}: {OURS} / {TYPESCRIPT}, by round", "x", quotients, goal)
    return subject


async def _round(lab: Lab, samples: dict[str, dict[str, list[float]]]) -> None:
    async with lab.everybody() as joined, asyncio.TaskGroup() as waiting:
        for name, save in ways_to_save(joined).items():
            pid = joined.pids[name]
            await settled(pid)
            noted = samples.setdefault(name, {IDLE: [], LOADED: [], LATER: []})
            noted[IDLE].append(pss(pid))
            await _times(FILES, save)
            noted[LOADED].append(pss(pid))
            # While the next one is measured: this one does nothing more.
            waiting.create_task(_note_later(pid, noted[LATER]))


async def _times(count: int, do: Callable[[], Awaitable[None]]) -> None:
    for _ in range(count):
        await do()


async def _note_later(pid: int, samples: list[float]) -> None:
    await asyncio.sleep(LATER_SECONDS)  # not a wait for something: the moment is what is asked for
    samples.append(pss(pid))
