"""Teams whose devices cannot reach each other for longer than a lease: the tailnet still shows all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent import Agent
from tests.ledger import sound
from tests.localnet import Localnet
from tests.talking import did, did_again, history, joined, lapsed, settings, told

LEASE = 5
LONG_SECONDS = 120.0


@dataclass
class Trio:
    """A lead and two members with their names; task-1 is ben's, task-2 cleo's, task-3 nobody's."""

    ann: Agent
    her: str
    ben: Agent
    his: str
    cleo: Agent
    hers: str


@asynccontextmanager
async def trio(tailnet: Localnet, folder: Path, **more: str) -> AsyncIterator[Trio]:
    environs = [settings(tailnet, folder, name, TS_ENABLE_TEAMS="1", **more) for name in ("ann", "ben", "cleo")]
    async with (
        joined(environs[0]) as (ann, her),
        joined(environs[1]) as (ben, his),
        joined(environs[2]) as (cleo, hers),
    ):
        await did(ann, "team_create", name="build")
        for subject in ("One", "Two", "Three"):
            await did(ann, "task_create", subject=subject)
        for member in (ben, cleo):
            await did(member, "team_join", lead_hostname=her)
            await did(member, "task_update", action="claim")
        yield Trio(ann, her, ben, his, cleo, hers)
    sound(environs[0])


async def cut_off(tailnet: Localnet, member: Agent, her: str, *cuts: tuple[str, str]) -> None:
    """Cuts, and returns once the member cannot reach the lead any more."""
    tailnet.cut(*cuts)
    async with asyncio.timeout(20):
        while "as_of" not in await did(member, "team_info"):
            pass
    assert f"The lead {her} has been offline since" in await member.fail("tailscale_task_update", action="claim")


async def member_apart(team: Trio, tailnet: Localnet, lease: float) -> None:
    """The member ben cannot reach the lead for longer than a lease; the others can."""
    await cut_off(tailnet, team.ben, team.her, (team.his, team.her))
    assert "as_of" in await did(team.ben, "task_list")
    text = await team.ben.fail("tailscale_task_update", action="complete", id="task-1", result="Done.")
    assert "is kept here and sent when the lead is back" in text
    await did(team.ann, "task_create", subject="Four")
    assert "not heard of for " in await lapsed(team.ann, "task-1", lease + 20)
    assert (await did(team.cleo, "task_update", action="claim"))["id"] == "task-1"


async def member_mended(team: Trio, tailnet: Localnet) -> None:
    tailnet.cut()
    text = await told(team.ben, "could not be completed")
    assert team.hers in text
    assert "task-1, which you completed at " in text
    text = await team.ben.fail("tailscale_task_update", action="claim", id="task-1")
    assert team.hers in text
    assert (await did(team.ben, "task_update", action="claim"))["id"] == "task-3"
    assert (await did(team.cleo, "task_list", owner="me"))["total"] == 2


async def test_a_member_that_is_cut_off_from_the_lead_loses_its_claim_hears_it_and_claims_again(
    patient_tailnet: Localnet, tmp_path: Path
) -> None:
    async with trio(patient_tailnet, tmp_path, TS_TEAM_LEASE=str(LEASE)) as team:
        await member_apart(team, patient_tailnet, LEASE)
        await member_mended(team, patient_tailnet)


async def lead_apart(team: Trio, tailnet: Localnet, lease: float) -> None:
    """Nobody can reach the lead for longer than a lease."""
    await cut_off(tailnet, team.ben, team.her, (team.her, "*"))
    text = await team.cleo.fail("tailscale_task_update", action="complete", id="task-2")
    assert "is kept here and sent when the lead is back" in text
    for task in ("task-1", "task-2"):
        assert "not heard of for " in await lapsed(team.ann, task, lease + 20)
    await did(team.ann, "task_create", subject="Four")
    assert (await did(team.ann, "task_update", action="claim", id="task-1"))["owner"] == team.her


async def lead_mended(team: Trio, tailnet: Localnet) -> None:
    tailnet.cut()
    assert "task-2, which you completed at " in await told(team.cleo, "could not be completed")
    await told(team.ben, "You have lost your claim on task-1")
    text = await team.ben.fail("tailscale_task_update", action="complete", id="task-1")
    assert "not heard of for " in text
    assert team.her in text
    assert (await did(team.cleo, "task_update", action="claim", id="task-2"))["owner"] == team.hers
    assert (await did(team.cleo, "task_update", action="complete", id="task-2"))["completed_by"] == team.hers


async def test_a_lead_that_is_cut_off_from_all_goes_on_alone_and_its_members_claim_again_after_it(
    patient_tailnet: Localnet, tmp_path: Path
) -> None:
    async with trio(patient_tailnet, tmp_path, TS_TEAM_LEASE=str(LEASE)) as team:
        await lead_apart(team, patient_tailnet, LEASE)
        await lead_mended(team, patient_tailnet)


async def test_a_cut_that_is_shorter_than_a_lease_takes_nothing(patient_tailnet: Localnet, tmp_path: Path) -> None:
    async with trio(patient_tailnet, tmp_path) as team:
        await cut_off(patient_tailnet, team.ben, team.her, (team.his, team.her))
        text = await team.ben.fail("tailscale_task_update", action="complete", id="task-1", result="Done.")
        assert "is kept here" in text
        patient_tailnet.cut()
        assert "task-1, which you completed at " in await told(team.ben, "is completed for the whole team now")
        assert (await did_again(team.ben, "task_update", action="claim"))["id"] == "task-3"


async def test_without_control_a_team_goes_on_as_ever(own_tailnet: Localnet, tmp_path: Path) -> None:
    async with trio(own_tailnet, tmp_path, TS_TEAM_LEASE=str(LEASE)) as team:
        own_tailnet.faults(outage=True)
        await asyncio.sleep(2 * LEASE)  # nothing is to happen in it
        assert (await did(team.ben, "task_update", action="claim"))["id"] == "task-3"
        for member, task in ((team.ben, "task-1"), (team.cleo, "task-2"), (team.ben, "task-3")):
            done = await did(member, "task_update", action="complete", id=task)
            assert done["status"] == "completed"
            assert [entry["what"] for entry in await history(team.ann, task)] == ["created", "claimed", "completed"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("which", ["member", "lead"])
async def test_two_minutes_apart_with_the_lease_that_is_the_default(
    patient_tailnet: Localnet, tmp_path: Path, which: str
) -> None:
    apart, mended = (member_apart, member_mended) if which == "member" else (lead_apart, lead_mended)
    async with trio(patient_tailnet, tmp_path) as team, asyncio.TaskGroup() as tasks:
        over = tasks.create_task(asyncio.sleep(LONG_SECONDS))
        await apart(team, patient_tailnet, 90)
        await over
        await mended(team, patient_tailnet)
