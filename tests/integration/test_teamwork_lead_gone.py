"""A team whose lead is gone, is back, is back as another device, or is somebody else who says to be it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from cctailscale.errors import LeadOffline
from cctailscale.teams.commands import Claim, Complete, Create, Release
from tests.inprocess import unheard
from tests.localnet import Localnet
from tests.teaming import TEAM, Session, killable, of, once_back, session

# remote.CALL_SECONDS, and what a busy machine adds to it.
CALL_BOUND = 6.0


async def offline(member: Session, command: Claim | Complete) -> LeadOffline:
    """What a command is answered while the lead is gone, in time."""
    began = time.monotonic()
    with pytest.raises(LeadOffline) as raised:
        await member.do(command)
    assert time.monotonic() - began < CALL_BOUND
    return raised.value


async def test_without_its_lead_a_member_has_the_last_known_list_and_what_it_completes_is_sent_later(
    tailnet: Localnet, tmp_path: Path
) -> None:
    anns, bens = of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")
    async with session(bens) as ben:
        async with session(anns) as ann:
            await ann.teamwork.create(TEAM)
            hers = await ann.name()
            await ben.teamwork.join(hers)
            for number in (1, 2, 3):
                await ann.do(Create(subject=f"Number {number}"))
            await ben.do(Claim(task="task-1"))
            await ben.do(Claim(task="task-2"))
            assert (await ben.tasks()).as_of is None
        error = await offline(ben, Claim(task="task-3"))
        assert f"The lead {hers} has been offline since " in str(error)
        page = await ben.tasks(status="in_progress")
        assert [(row.id, row.owner) for row in page.rows] == [("task-1", "member-2"), ("task-2", "member-2")]
        assert page.as_of is not None
        assert (await (await ben.teamwork.gateway()).team()).as_of == page.as_of
        for task in ("task-1", "task-2"):
            assert "is kept here and sent when the lead is back" in str(await offline(ben, Complete(task=task)))
        async with session(anns) as ann:
            await ann.node.device(unheard)
            assert "is completed for the whole team now" in await ben.told("task-1, which you completed at ")
            assert "is completed for the whole team now" in await ben.told("task-2, which you completed at ")
            assert (await ann.tasks(status="completed")).total == 2
            assert (await ben.tasks()).as_of is None


async def test_what_was_completed_meanwhile_is_refused_with_the_reason_if_somebody_else_has_it_by_then(
    tailnet: Localnet, tmp_path: Path
) -> None:
    anns, bens = of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")
    async with session(bens) as ben:
        async with session(anns) as ann:
            await ann.teamwork.create(TEAM)
            await ben.teamwork.join(await ann.name())
            await ben.do(Create(subject="One"))
            await ben.do(Claim())
        assert "is kept here" in str(await offline(ben, Complete(task="task-1")))
    async with session(anns) as ann:
        await ann.node.device(unheard)
        await ann.do(Release(task="task-1"))
        await ann.do(Claim(task="task-1"))
        async with session(bens) as ben:  # what is kept outlives a restart
            await ben.node.device(unheard)
            told = await ben.told("could not be completed")
            assert await ann.name() in told


async def test_a_lead_that_comes_back_as_another_device_is_found_by_its_key(tailnet: Localnet, tmp_path: Path) -> None:
    anns, bens = of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")
    async with session(bens) as ben:
        async with session(anns) as ann:
            await ann.teamwork.create(TEAM)
            before = await ann.name()
            await ben.teamwork.join(before)
            await ben.do(Create(subject="One"))
            await ben.do(Claim())
        async with session(anns | {"USER": "anna"}) as ann:
            await ann.node.device(unheard)
            assert await ann.name() != before
            assert (await once_back(lambda: ben.do(Complete(task="task-1")))).status == "completed"
            assert ben.teamwork.part is not None
            assert ben.teamwork.part.lead == await ann.name()


async def test_a_lead_that_has_lost_its_session_goes_on_by_the_teams_name(tailnet: Localnet, tmp_path: Path) -> None:
    anns, bens = of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")
    async with session(bens) as ben:
        async with session(anns) as ann:
            await ann.teamwork.create(TEAM)
            await ben.teamwork.join(await ann.name())
            await ben.do(Create(subject="One"))
        async with session(anns | {"CLAUDE_CODE_SESSION_ID": "another"}) as ann:
            view = await ann.teamwork.create(TEAM, resume=True)
            assert view.counts.pending == 1
            assert (await ann.teamwork.create(TEAM, resume=True)).team == view.team  # which it does already
            assert (await once_back(lambda: ben.do(Claim()))).owner == "member-2"


async def test_who_only_says_to_lead_the_team_is_refused_and_told_of(tailnet: Localnet, tmp_path: Path) -> None:
    """It has the team's name and its id, and not its key."""
    async with (
        session(of(tailnet, tmp_path, "ben")) as ben,
        session(of(tailnet, tmp_path, "mallory")) as mallory,
    ):
        async with session(of(tailnet, tmp_path, "ann")) as ann:
            view = await ann.teamwork.create(TEAM)
            await ben.teamwork.join(await ann.name())
            await ben.do(Create(subject="One"))
        await mallory.teamwork.create(TEAM)
        led = mallory.teamwork._led()
        assert led is not None
        led._team = replace(led._team, facts=led._team.facts.model_copy(update={"id": view.team}))
        told = await ben.told("does not have its key")
        assert f"{await mallory.name()} says that it leads the team" in told
        await offline(ben, Claim())
        assert led.facts.next_task == 1
        assert len(led._team.members) == 1


async def test_calls_end_in_time_while_wireguard_still_counts_on_a_lead_that_was_killed(
    tailnet: Localnet, tmp_path: Path
) -> None:
    anns = of(tailnet, tmp_path, "ann")
    async with session(of(tailnet, tmp_path, "ben")) as ben:
        async with killable(anns) as ann:
            await ben.teamwork.join(ann.name)
            await ben.do(Create(subject="One"))
            await ben.do(Claim())
            await ann.kill()
            await offline(ben, Complete(task="task-1"))
        async with killable(anns) as ann:
            assert "is completed for the whole team now" in await ben.told("task-1")
            assert (await ben.tasks()).rows[0].status == "completed"


async def test_a_lead_that_is_stopped_for_a_while_is_offline_and_goes_on(tailnet: Localnet, tmp_path: Path) -> None:
    async with session(of(tailnet, tmp_path, "ben")) as ben, killable(of(tailnet, tmp_path, "ann")) as ann:
        await ben.teamwork.join(ann.name)
        await ben.do(Create(subject="One"))
        ann.stop()
        error = await offline(ben, Claim())
        assert "Whether this call was carried out is not known" in str(error)
        ann.go_on()
        assert (await once_back(lambda: ben.tasks(status="pending"))).total in (0, 1)
