"""Teams whose processes are killed with -9: the lead's, a member's, both. No task is lost, none has two owners."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cctailscale.errors import LeadOffline
from cctailscale.teams.commands import Claim, Create
from cctailscale.teams.commands import TaskCommand as Command
from tests import faulty
from tests.agent import Agent
from tests.ledger import sound
from tests.localnet import Localnet
from tests.talking import did, did_again, history, joined, lapsed, settings, told
from tests.teaming import once_back, session

LEASE = 5
MEMBERS = 10
LIVES = 2


def of(tailnet: Localnet, folder: Path, name: str, lease: int = LEASE) -> dict[str, str]:
    return settings(tailnet, folder, name, TS_ENABLE_TEAMS="1", TS_TEAM_LEASE=str(lease))


# ---- the lead --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [Claim(), Create(subject="Another")], ids=["claim", "create"])
async def test_a_retry_gets_the_first_outcome_from_a_lead_that_was_killed_between_commit_and_answer(
    patient_tailnet: Localnet, tmp_path: Path, command: Command
) -> None:
    anns = of(patient_tailnet, tmp_path, "ann")
    async with session(of(patient_tailnet, tmp_path, "ben")) as ben:
        async with joined(anns, command=faulty.command("killed", 3)) as (ann, her):
            await did(ann, "team_create", name="build")
            for subject in ("One", "Two"):
                await did(ann, "task_create", subject=subject)
            await ben.teamwork.join(her)
            gateway = await ben.teamwork.gateway()
            with pytest.raises(LeadOffline, match="Whether this call was carried out is not known"):
                await gateway.command("the-same", command)
            assert await asyncio.wait_for(ann.process.wait(), 5) == -signal.SIGKILL
        before = sound(anns)
        async with joined(anns):
            task = await once_back(lambda: gateway.command("the-same", command))
            assert (task.id, task.owner) == (("task-1", "member-2") if isinstance(command, Claim) else ("task-3", None))
            assert sound(anns).tasks == before.tasks


async def test_what_a_lead_has_committed_and_not_answered_is_completed_once_when_it_is_back(
    patient_tailnet: Localnet, tmp_path: Path
) -> None:
    anns = of(patient_tailnet, tmp_path, "ann")
    async with joined(of(patient_tailnet, tmp_path, "ben")) as (ben, _):
        async with joined(anns, command=faulty.command("killed", 3)) as (ann, her):
            await did(ann, "team_create", name="build")
            await did(ann, "task_create", subject="One")
            await did(ben, "team_join", lead_hostname=her)
            await did(ben, "task_update", action="claim")
            text = await ben.fail("tailscale_task_update", action="complete", id="task-1", result="Done.")
            assert f"The lead {her} has been offline since" in text
            assert "is kept here and sent when the lead is back" in text
        async with joined(anns) as (ann, _):
            await told(ben, "is completed for the whole team now")
            assert [entry["what"] for entry in await history(ann, "task-1")] == ["created", "claimed", "completed"]
        sound(anns)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_lead_that_is_killed_while_it_writes_has_all_that_it_has_acknowledged(
    patient_tailnet: Localnet, tmp_path: Path, seed: int
) -> None:
    anns = of(patient_tailnet, tmp_path, "ann", lease=90)
    moments = random.Random(seed)
    made, claimed = set[str](), dict[str, str]()

    async def work(member: Agent, his: str) -> None:
        """Creates and claims until the lead is gone."""
        while True:
            for tool, more in (("task_create", {"subject": "One more"}), ("task_update", {"action": "claim"})):
                answer = await member.call(f"tailscale_{tool}", **more)
                if answer.is_error:
                    assert "has been offline since" in answer.text
                    return
                assert answer.structured is not None
                task = answer.structured["id"]
                if tool == "task_create":
                    made.add(task)
                else:
                    assert claimed.setdefault(task, his) == his

    async with (
        joined(of(patient_tailnet, tmp_path, "ben")) as (ben, his),
        joined(of(patient_tailnet, tmp_path, "cleo")) as (cleo, hers),
    ):
        for number in range(LIVES):
            async with joined(anns) as (ann, her):
                if number == 0:
                    await did(ann, "team_create", name="build")
                    for member in (ben, cleo):
                        await did(member, "team_join", lead_hostname=her)
                await asyncio.gather(*(did_again(member, "task_create", subject="Mine") for member in (ben, cleo)))
                each = ((ben, his), (cleo, hers)) * 4
                async with asyncio.TaskGroup() as tasks:
                    for member, name in each:
                        tasks.create_task(work(member, name))
                    await asyncio.sleep(moments.uniform(0.05, 0.5))
                    await ann.kill()
            team = sound(anns)
            names = {member.id: member.identity.name for member in team.members.values()}
            assert made <= team.tasks.keys()
            for task, owner in claimed.items():
                assert names[team.tasks[task].owner or ""] == owner
        assert len(claimed) > LIVES


async def test_members_that_wait_for_news_of_a_lead_that_is_killed_all_find_it_again(
    patient_tailnet: Localnet, tmp_path: Path
) -> None:
    anns = of(patient_tailnet, tmp_path, "ann", lease=90)
    async with AsyncExitStack() as stack:
        each = [of(patient_tailnet, tmp_path, f"m{number}") for number in range(MEMBERS)]
        joins = await asyncio.gather(*map(stack.enter_async_context, map(joined, each)))
        members = {name: agent for agent, name in joins}
        async with joined(anns) as (ann, her):
            await did(ann, "team_create", name="build")
            for _ in range(2 * MEMBERS):
                await did(ann, "task_create", subject="One of many")
            await asyncio.gather(*(did(member, "team_join", lead_hostname=her) for member in members.values()))
            first = await asyncio.gather(*(did(member, "task_update", action="claim") for member in members.values()))
            assert len({task["id"] for task in first}) == MEMBERS
            await ann.kill()
        async with joined(anns) as (ann, _):
            for number, name in enumerate(members, MEMBERS + 1):
                await did(ann, "task_update", action="claim", owner=name, id=f"task-{number}")
            await asyncio.gather(*(told(member, "was assigned to you by") for member in members.values()))
            for member in members.values():
                mine = await did(member, "task_list", owner="me")
                assert [task["status"] for task in mine["tasks"]] == ["in_progress", "in_progress"]
                for task in mine["tasks"]:
                    await did(member, "task_update", action="complete", id=task["id"])
        team = sound(anns)
        assert {task.status for task in team.tasks.values()} == {"completed"}


# ---- a member --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ephemeral_ms", "lease", "reason"),
    [(3_600_000, LEASE, f"not heard of for {LEASE} s"), (1_000, 90, "device has left the tailnet")],
    ids=["silent", "gone"],
)
async def test_the_claim_of_a_member_that_was_killed_is_another_s(
    own_tailnet: Localnet, tmp_path: Path, ephemeral_ms: int, lease: int, reason: str
) -> None:
    own_tailnet.admin("PUT", "/settings", {"ephemeral_timeout_ms": ephemeral_ms})
    anns, bens, cleos = (of(own_tailnet, tmp_path, name, lease) for name in ("ann", "ben", "cleo"))
    async with joined(anns) as (ann, her), joined(cleos) as (cleo, hers):
        await did(ann, "team_create", name="build")
        await did(ann, "task_create", subject="One")
        await did(cleo, "team_join", lead_hostname=her)
        async with joined(bens) as (ben, his):
            await did(ben, "team_join", lead_hostname=her)
            await did(ben, "task_update", action="claim")
            assert his in await cleo.fail("tailscale_task_update", action="claim", id="task-1")
            await ben.kill()
        assert await lapsed(ann, "task-1") == reason
        assert (await did(cleo, "task_update", action="claim"))["owner"] == hers
        async with joined(bens) as (ben, _):
            await told(ben, "You have lost your claim on task-1")
            text = await ben.fail("tailscale_task_update", action="complete", id="task-1")
            assert reason in text
            assert hers in text
        await did(cleo, "task_update", action="complete", id="task-1")
    sound(anns)


async def test_a_lead_and_a_member_that_are_killed_lose_nothing_and_the_member_has_a_full_lease(
    patient_tailnet: Localnet, tmp_path: Path
) -> None:
    anns, bens, cleos = (of(patient_tailnet, tmp_path, name) for name in ("ann", "ben", "cleo"))
    async with joined(cleos) as (cleo, _):
        async with joined(anns) as (ann, her), joined(bens) as (ben, _):
            await did(ann, "team_create", name="build")
            for subject in ("One", "Two"):
                await did(ann, "task_create", subject=subject)
            for member in (ben, cleo):
                await did(member, "team_join", lead_hostname=her)
            await did(ben, "task_update", action="claim")
            await asyncio.gather(ann.kill(), ben.kill())
        began = datetime.now(UTC)
        async with joined(anns) as (ann, _):
            assert await lapsed(ann, "task-1") == f"not heard of for {LEASE} s"
            assert (datetime.now(UTC) - began).total_seconds() > LEASE
            for task in ("task-1", "task-2"):
                assert (await did_again(cleo, "task_update", action="claim"))["id"] == task
                await did(cleo, "task_update", action="complete", id=task)
        team = sound(anns)
        assert {task.completed_by for task in team.tasks.values()} == {"member-3"}
