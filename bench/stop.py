"""From the signal to the moment when control removes the device, with a control server that is quick or late."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass

from bench.figures import Goal, Subject
from bench.lab import TYPESCRIPT, Lab, joined
from tests.agent import Agent

# Claude Code's stop sequence: SIGINT, and after these pauses SIGTERM and SIGKILL.
TERM_AFTER_SECONDS = 0.1
KILL_AFTER_SECONDS = 0.4
REMOVED_SECONDS = 5.0
LATE_MS = 1000


@dataclass(frozen=True)
class Stopped:
    """In ms from the first signal. `removed` is None if the device was still there after REMOVED_SECONDS."""

    removed: float | None
    ended: float
    killed: bool


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "stop",
        "Claude Code's sequence to a joined cc-tailscale: SIGINT, 100 ms, SIGTERM, 400 ms, SIGKILL, the later ones "
        "only to a process that still runs. `gone` is the removal by control's own clock; `ended` the process's end. "
        f"Late: control answers the logout, or everything, after {LATE_MS} ms.",
    )
    for name, faults in (
        ("control quick", {}),
        ("logout late", {"logout_delay_ms": LATE_MS}),
        ("control late", {"delay_ms": LATE_MS}),
    ):
        stops = [await _stop_one(lab, faults) for _ in range(rounds)]
        gone = [stop.removed for stop in stops if stop.removed is not None]
        if gone:
            subject.add(f"{name}: gone", "ms", gone, Goal(300, of="worst"))
        subject.add(f"{name}: ended", "ms", [stop.ended for stop in stops])
        subject.add(f"{name}: killed", "of " + str(rounds), [sum(stop.killed for stop in stops)])
        subject.add(f"{name}: devices left behind", "", [sum(stop.removed is None for stop in stops)], Goal(0))
    if lab.typescript is not None:
        stops = [await _stop_typescript(lab) for _ in range(rounds)]
        gone = [stop.removed for stop in stops if stop.removed is not None]
        if gone:
            subject.add(f"{TYPESCRIPT}, control quick: gone", "ms", gone)
        subject.add(f"{TYPESCRIPT}, control quick: devices left behind", "", [rounds - len(gone)])
    return subject


async def _stop_one(lab: Lab, faults: dict[str, int]) -> Stopped:
    async with lab.agent() as agent:
        return await _stopped(lab, agent, await joined(agent), faults)


async def _stop_typescript(lab: Lab) -> Stopped:
    async with lab.joined_typescript() as agent:
        assert agent is not None
        # The helper takes its name from the process that started it.
        return await _stopped(lab, agent, f"baseline-{agent.pid}", {})


async def _stopped(lab: Lab, agent: Agent, hostname: str, faults: dict[str, int]) -> Stopped:
    before = lab.tailnet.last_event()
    lab.tailnet.faults(**faults)
    try:
        signalled_ns, began = time.time_ns(), time.perf_counter()
        killed = await _signal_in_turn(agent)
        ended = (time.perf_counter() - began) * 1000
        try:
            event = lab.tailnet.wait_for("removed", hostname, after=before, seconds=REMOVED_SECONDS)
        except TimeoutError:
            return Stopped(None, ended, killed)
        return Stopped((event["time_ns"] - signalled_ns) / 1e6, ended, killed)
    finally:
        lab.tailnet.faults()


async def _signal_in_turn(agent: Agent) -> bool:
    """Sends the sequence until the process has ended; whether it took the SIGKILL."""
    for number, seconds in ((signal.SIGINT, TERM_AFTER_SECONDS), (signal.SIGTERM, KILL_AFTER_SECONDS)):
        agent.process.send_signal(number)
        try:
            await asyncio.wait_for(agent.process.wait(), seconds)
        except TimeoutError:
            continue
        return False
    agent.process.kill()
    await agent.process.wait()
    return True
