"""As much work as agents do in an hour, and nothing wrong meanwhile: what they hold then is what they held before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bench.process import memory
from chaos.crew import Crew
from chaos.plan import Plan
from chaos.run import Say, running

# Longer than a process keeps anything after the last call: idle connections stay for a minute at most.
REST_SECONDS = 70.0
# A follower's kept connections take turns, so that none gets old; there are as many as it once had calls at a time, at
# two descriptors each. A pool of threads is as large as it once had to be.
SPARE_FDS = 16
SPARE_THREADS = 6
# Of the lead: with the history of the tasks that are made meanwhile.
SPARE_MIB = 16.0


@dataclass(frozen=True)
class Held:
    """What a process holds at a moment; memory as PSS, in MiB."""

    fds: int
    threads: int
    memory: float

    @classmethod
    def by(cls, pid: int) -> Held:
        counts = [len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("fd", "task")]
        return cls(*counts, memory(pid).pss)

    def more_than(self, before: Held) -> list[str]:
        """What is more than it may be, in words."""
        allowed = {"fds": SPARE_FDS, "threads": SPARE_THREADS, "memory": SPARE_MIB}
        return [
            f"{what}: {getattr(before, what):g} before, {getattr(self, what):g} after"
            for what, spare in allowed.items()
            if getattr(self, what) > getattr(before, what) + spare
        ]


async def soak(plan: Plan, say: Say) -> list[str]:
    """Plays a plan, a quarter of it to get warm; what agents hold more at its end, and what else does not hold."""
    async with running(plan, say) as run:
        warm = len(plan.steps) // 4
        await run.through(plan.steps[:warm])
        before = await _at_rest(run.crew)
        await run.through(plan.steps[warm:])
        after = await _at_rest(run.crew)
        wrong = []
        for name, held in after.items():
            say(f"{name}: {before[name]} before, {held} after")
            wrong += [f"left over: {name} holds more {what}" for what in held.more_than(before[name])]
        return wrong + await run.ended()


async def _at_rest(crew: Crew) -> dict[str, Held]:
    await asyncio.sleep(REST_SECONDS)
    return {member.worker.name: Held.by(member.agent.pid) for member in crew.members if member.agent is not None}
