"""A plan, played: step by step, then all is well again, and what is left to do is done."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from chaos import checks
from chaos.crew import LEASE_SECONDS, LOOK_SECONDS, Crew, Member, together
from chaos.history import Operation
from chaos.plan import MAX_TASKS, Act, Fault, Plan, Step
from chaos.work import who
from tests import faulty
from tests.agent import Agent, Json
from tests.localnet import Localnet

# A step ends when its calls have, and after this in any case: who is not done then has no act in the next step.
STEP_SECONDS = 3.0
# Until everything is done that is left, once nothing is wrong any more. WireGuard gives a session that leads nowhere up
# within 15 s, a key is renewed and a lead found again within some more.
HEAL_SECONDS = 120.0
# The lead writes its time down before it commits, and may be stopped in between.
_LAPSE_EARLY_NS, _LAPSE_LATE_NS = 1_000_000_000, 60_000_000_000
_HOUR_NS = faulty.HOUR_SECONDS * 1_000_000_000

Say = Callable[[str], None]


@asynccontextmanager
async def running(plan: Plan, say: Say, lease_seconds: int = LEASE_SECONDS) -> AsyncIterator[Run]:
    """The crew of a plan, with the tasks of its beginning. It is left for `ended` to end it."""
    with (
        tempfile.TemporaryDirectory(prefix="cc-tailscale-chaos-") as folder,
        # Devices that are away are kept, as the real service does for half an hour and more.
        Localnet.started("-ephemeral-timeout", "1h") as tailnet,
        tailnet.peer("web"),
    ):
        async with Crew.joined(tailnet, Path(folder), plan.agents, lease_seconds) as crew:
            lead = crew.members[0]
            assert lead.agent is not None
            for number in range(1, plan.tasks + 1):
                await lead.worker.create(lead.agent, f"Number {number}")
            yield Run(crew, say)


async def play(plan: Plan, say: Say) -> list[str]:
    """What does not hold after the plan; nothing: all is well."""
    async with running(plan, say) as run:
        await run.through(plan.steps)
        return await run.ended()


class Run:
    """A crew, what is wrong with it, and who of it is at work."""

    def __init__(self, crew: Crew, say: Say) -> None:
        self.crew = crew
        self._say = say
        self._present: dict[int, list[Fault]] = {}  # by the step before which they are lifted
        self._busy: dict[int, asyncio.Task[None]] = {}

    async def through(self, steps: Sequence[Step]) -> None:
        for step in steps:
            await self._lift(step.number)
            self._begin(step.acts)
            await asyncio.sleep(step.after_ms / 1000 if step.faults else 0)
            for fault in step.faults:
                self._say(step.to_json())
                self._present.setdefault(fault.until, []).append(fault)
                await self.crew.begin(fault)
            await self._settled()

    async def ended(self) -> list[str]:
        """Lifts all faults, has everything done that is left, ends the agents in peace; what does not hold then."""
        crew = self.crew
        for number in sorted(self._present):
            await self._lift(number)
        await together(*(member.replaced() for member in crew.members))
        began = time.monotonic()
        final = await self._healed()
        calls = json.dumps(dict(sorted(crew.history.calls.items())))
        self._say(f"well again, and all done, after {time.monotonic() - began:.1f} s; calls: {calls}")
        for member in crew.members[::-1]:  # the lead last
            await member.end(None)
        return [*checks.wrong(crew, final), *checks.left_over(crew)]

    async def _lift(self, number: int) -> None:
        for fault in self._present.pop(number, ()):
            await self.crew.lift(fault)

    def _begin(self, acts: tuple[Act, ...]) -> None:
        """Each agent that is there and has nothing to do begins its act."""
        for act in acts:
            member = self.crew.members[act.agent]
            if member.agent is None or member.stopped or act.agent in self._busy:
                continue
            task = asyncio.create_task(member.perform(act))
            self._busy[act.agent] = task
            task.add_done_callback(lambda _, number=act.agent: self._busy.pop(number))  # type: ignore[misc]

    async def _settled(self) -> None:
        at_work = [task for number, task in self._busy.items() if not self.crew.members[number].stopped]
        if at_work:
            await asyncio.wait(at_work, timeout=STEP_SECONDS)

    async def _healed(self) -> list[Json]:
        """All messages are read and all tasks completed; the tasks, as the lead shows them at the end."""
        crew = self.crew
        try:
            async with asyncio.timeout(HEAL_SECONDS):
                if self._busy:
                    await asyncio.wait(self._busy.values())
                await together(*(member.join() for member in crew.members))
                await together(*(_done(member) for member in crew.members))
                await crew.seen()
        except TimeoutError:
            stuck = [f"{member.worker.name}: {member.worker.last}" for member in crew.members]
            crew.history.defects.append(f"not well again within {HEAL_SECONDS:g} s. {'; '.join(stuck)}")
        return await _tasks(crew)


async def _done(member: Member) -> None:
    """Claims and completes what is there, until the list says that nothing is left; then reads all messages."""
    agent, worker = member.agent, member.worker
    assert agent is not None
    while left := await _left(member):
        for task in left:
            await worker.task(agent, "claim", task)
            if task in worker.held:
                await worker.task(agent, "complete", task)
        await asyncio.sleep(LOOK_SECONDS)  # others have what is left
    while await worker.check(agent):
        pass


async def _left(member: Member) -> list[str]:
    """Tasks that are not completed, once the lead can be asked."""
    assert member.agent is not None
    while True:
        listed = (await member.agent.call("tailscale_task_list", limit=MAX_TASKS)).structured
        if listed is not None and "as_of" not in listed:
            return [row["id"] for row in listed["tasks"] if row["status"] != "completed"]
        await asyncio.sleep(LOOK_SECONDS)


async def _tasks(crew: Crew) -> list[Json]:
    """Every task as it is now, with its history; what was read goes into the history of operations too."""
    lead = crew.members[0].agent
    assert lead is not None
    found: list[Json] = []
    offset = time.time_ns() - time.monotonic_ns()
    async for row in _rows(lead):
        began = time.monotonic_ns()
        task = (await lead.succeed("tailscale_task_update", action="update", id=row["id"])).structured
        assert task is not None
        found.append(task)
        owner = who(task.get("owner") or "")
        read = Operation(row["id"], "read", "ann", True, "done", began, time.monotonic_ns(), owner, task["status"])
        crew.history.operations += [read, *_lapses(task, offset)]
    return found


async def _rows(agent: Agent) -> AsyncIterator[Json]:
    """Every task of the list, page by page."""
    given: Json = {}
    while True:
        page = (await agent.succeed("tailscale_task_list", limit=MAX_TASKS, **given)).structured
        assert page is not None
        for row in page["tasks"]:
            yield row
        if page["cursor"] is None:
            return
        given = {"cursor": page["cursor"]}


def _lapses(task: Json, offset: int) -> list[Operation]:
    """What nobody asked for: the claims that the lead gave back to all, at the times that it has written down."""
    lost = [entry for entry in task["history"] if entry["what"] == "claim lost"]
    times = [_by_a_right_clock(checks.nanoseconds(entry["at"]) - offset) for entry in lost]
    return [
        Operation(
            task["id"], "lapse", who(entry["owner"]), False, "done", at - _LAPSE_EARLY_NS, at + _LAPSE_LATE_NS
        )
        for entry, at in zip(lost, times, strict=True)
    ]  # fmt: skip


def _by_a_right_clock(at: int) -> int:
    """The lead's clock may have been wrong then, by a whole hour: more than any run lasts."""
    return at + round((time.monotonic_ns() - at) / _HOUR_NS) * _HOUR_NS
