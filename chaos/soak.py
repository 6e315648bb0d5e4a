"""As much work as agents do in an hour, and nothing wrong meanwhile: what they hold then is what they held before.

A step is a call of each agent: 1,200 of them are one in three seconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bench.process import memory
from chaos.crew import Crew
from chaos.plan import Plan
from chaos.run import Say, running

# The default of TS_TEAM_LEASE, with which a follower polls its lead every 10 s.
LEASE_SECONDS = 90
# Until what is idle has gone: a pool of HTTP connections looks every 30 s for what it has kept for as long, and the
# other end gives a connection up after 60 s.
REST_SECONDS = 70.0
# Each poll takes the connection of the pool that was idle longest, so that three to a lead, of 30 s, never get old; one
# to LocalAPI, which is used now and then, has both its ends in the process. A connection is two descriptors.
SPARE_FDS = 6
# A pool of threads is as large as it once had to be.
SPARE_THREADS = 6
# Of the lead: with the history of the tasks that are made meanwhile.
SPARE_MIB = 8.0


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
    async with running(plan, say, LEASE_SECONDS) as run:
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
