"""A session's part in a team on the local tailnet: creating, joining, following, leaving; through restarts of both."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import cast

import anyio
import pytest

from cctailscale.agents import engaged, teamwork
from cctailscale.agents.engaged import Engaged
from cctailscale.errors import (
    AgentRefused,
    BadCall,
    DisbandFirst,
    InTeam,
    LeadOffline,
    NoSuchTeam,
    NoTeam,
    NoTeamThere,
    TeamEnded,
    TeamRefused,
)
from cctailscale.tailnet import node as node_module
from cctailscale.teams import membership, news, replica
from cctailscale.teams.commands import Claim, Complete, Create, Update
from cctailscale.teams.wire import EventPage
from tests.callers import addresses, identity
from tests.inprocess import inbox_folders, unheard
from tests.localnet import Localnet
from tests.teaming import TEAM, of, once_back, pair, session


async def test_a_member_joins_claims_and_completes(tailnet: Localnet, tmp_path: Path) -> None:
    async with session(of(tailnet, tmp_path, "ann")) as ann, session(of(tailnet, tmp_path, "ben")) as ben:
        view = await ann.teamwork.create(TEAM)
        assert (view.name, view.you, view.lead) == (TEAM, "member-1", "member-1")
        await ann.do(Create(subject="Write it"))
        await ann.do(Create(subject="Test it", blocked_by=("task-1",)))
        joined = await ben.teamwork.join(await ann.name())
        assert joined.you == "member-2"
        assert [member.identity.name for member in joined.members] == [await ann.name(), await ben.name()]
        assert (await ben.do(Claim())).id == "task-1"
        with pytest.raises(TeamRefused, match=await ben.name()):
            await ann.do(Claim(task="task-1"))
        assert (await ben.do(Complete(task="task-1", result="Done."))).status == "completed"
        page = await ben.tasks(unblocked_only=True)
        assert [row.id for row in page.rows] == ["task-2"]
        assert page.as_of is None
        assert ben.agent.card().team == ann.agent.card().team == TEAM


async def test_a_lead_is_joined_by_its_short_name_and_by_either_address(tailnet: Localnet, tmp_path: Path) -> None:
    async with session(of(tailnet, tmp_path, "ann")) as ann, session(of(tailnet, tmp_path, "ben")) as ben:
        await ann.teamwork.create(TEAM)
        assert ann.node.running_device is not None
        names = [(await ann.name()).partition(".")[0], *addresses(await identity(ann.node.running_device))]
        for name in names:
            assert (await ben.teamwork.join(name)).you == "member-2"  # it is the same device each time
            assert (await ben.teamwork.leave()).told
            assert ben.teamwork.part is None
            assert ben.agent.card().team is None


async def test_who_leads_no_team_cannot_be_joined(tailnet: Localnet, tmp_path: Path) -> None:
    with_teams, without = of(tailnet, tmp_path, "ben"), of(tailnet, tmp_path, "cleo")
    async with session(of(tailnet, tmp_path, "ann")) as ann, session(with_teams) as ben, session(without) as cleo:
        await ann.teamwork.create(TEAM)
        with pytest.raises(NoTeam):
            await cleo.teamwork.gateway()
        await ben.teamwork.join(await ann.name())
        with pytest.raises(NoTeamThere):
            await cleo.teamwork.join(await ben.name())  # a member of one does not lead it
        with pytest.raises(NoTeamThere):
            await cleo.teamwork.join(await cleo.name())
        with pytest.raises(InTeam):
            await ben.teamwork.create("another")
        with pytest.raises(InTeam):
            await ben.teamwork.join(await ann.name())
        with pytest.raises(BadCall):
            await cleo.teamwork.create("two\nlines")
        with pytest.raises(NoSuchTeam):
            await cleo.teamwork.create(TEAM, resume=True)
        await cleo.teamwork.create("another")


async def test_a_joiner_whom_the_policy_does_not_let_in_is_told_what_to_add(tailnet: Localnet, tmp_path: Path) -> None:
    bobs = of(tailnet, tmp_path, "ben", TS_AUTHKEY=tailnet.key(user="bob@example.com", ephemeral=True))
    async with session(of(tailnet, tmp_path, "ann")) as ann, session(bobs) as ben:
        await ann.teamwork.create(TEAM)
        with pytest.raises(AgentRefused, match=r"TS_ALLOW_FROM=bob@example\.com"):
            await ben.teamwork.join(await ann.name())
        with pytest.raises(NoTeam):
            await ben.teamwork.gateway()


async def test_what_concerns_a_member_is_told_at_once_and_the_rest_together(
    tailnet: Localnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")) as (ann, ben):
        his, hers = await ben.name(), await ann.name()
        assert f"{his} has joined." in await ann.told("has joined")
        await ann.do(Create(subject='Say "now"'))
        await ann.do(Claim(task="task-1", owner=his))
        told = await ben.told("assigned")
        assert f"- task-1 \"Say 'now'\" was assigned to you by {hers}." in told
        await ann.do(Create(subject="Next", blocked_by=("task-1",)))
        await ben.do(Complete(task="task-1"))
        async with session(of(tailnet, tmp_path, "cleo")) as cleo:
            monkeypatch.setattr(news, "QUIET_SECONDS", 1.0)
            await cleo.teamwork.join(hers)
            told = await ben.told("has joined")
            assert '- task-2 "Next" can be claimed now.\n' in told  # it has waited for this one
            await cleo.do(Claim(task="task-2"))
            await cleo.do(Complete(task="task-2"))
            assert "- All tasks are completed." in await ann.told("All tasks")


async def test_a_member_that_is_removed_or_whose_team_is_disbanded_learns_it_and_is_free(
    tailnet: Localnet, tmp_path: Path
) -> None:
    environs = [of(tailnet, tmp_path, name) for name in ("ann", "ben", "cleo")]
    async with pair(*environs[:2]) as (ann, ben), session(environs[2]) as cleo:
        await cleo.teamwork.join(await ann.name())
        with pytest.raises(TeamRefused):
            await ben.teamwork.leave(member=await cleo.name())
        with pytest.raises(TeamRefused, match="nobody"):
            await ann.teamwork.leave(member="nobody")
        assert (await ann.teamwork.leave(member=(await cleo.name()).partition(".")[0])).part == ann.teamwork.part
        assert "its lead has removed it" in await cleo.told("goes on without this session")
        with pytest.raises(TeamEnded):
            await cleo.teamwork.gateway()
        with pytest.raises(TeamRefused, match="removed"):
            await cleo.teamwork.join(await ann.name())
        await cleo.teamwork.create("another")

        with pytest.raises(DisbandFirst):
            await ann.teamwork.leave()
        assert (await ann.teamwork.leave(disband=True)).part.role == "lead"
        assert "was disbanded by its lead" in await ben.told("disbanded")
        assert not [message for message in await ann.untold() if "disbanded" in message]
        with pytest.raises(NoTeam):
            await ann.teamwork.gateway()
        with pytest.raises(TeamEnded, match="disbanded"):
            await ben.teamwork.gateway()
        await ben.teamwork.join(await cleo.name())
        assert ben.agent.card().team == "another"
        await ann.teamwork.create(TEAM)
    assert inbox_folders(environs[0])


async def test_who_was_away_when_its_team_was_disbanded_hears_it_from_its_lead_that_leads_another_by_then(
    tailnet: Localnet, tmp_path: Path
) -> None:
    bens = of(tailnet, tmp_path, "ben")
    async with session(of(tailnet, tmp_path, "ann")) as ann:
        await ann.teamwork.create(TEAM)
        async with session(bens) as ben:
            await ben.teamwork.join(await ann.name())
        await ann.teamwork.leave(disband=True)
        await ann.teamwork.create("another")
        async with session(bens) as ben:
            await ben.node.device(unheard)
            assert "was disbanded by its lead" in await ben.told("disbanded")
            with pytest.raises(TeamEnded, match="disbanded"):
                await ben.teamwork.gateway()
            await ben.teamwork.join(await ann.name())


async def test_a_member_that_restarts_goes_on_by_itself_with_what_it_claimed(tailnet: Localnet, tmp_path: Path) -> None:
    """Its device was logged out, and it comes back with another one."""
    bens = of(tailnet, tmp_path, "ben")
    async with session(of(tailnet, tmp_path, "ann")) as ann:
        await ann.teamwork.create(TEAM)
        async with session(bens) as ben:
            await ben.teamwork.join(await ann.name())
            await ann.do(Create(subject="One"))
            await ben.do(Claim())
        assert inbox_folders(bens)
        async with session(bens) as ben:
            await ben.node.device(unheard)
            assert (await ben.do(Complete(task="task-1"))).completed_by == "member-2"
            assert (await ben.teamwork.leave()).part.you == "member-2"
        kept = {path.name for path in Path(bens["TS_STATE_DIR"]).glob("inboxes/*/*")}
        assert not kept & {membership.FILE, replica.FILE}  # of a team that was left


async def test_a_member_whose_device_was_deleted_has_its_claims_with_the_new_one(
    tailnet: Localnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "CHECK_SECONDS", 0.0)
    async with pair(of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")) as (ann, ben):
        await ann.do(Create(subject="One"))
        await ben.do(Claim())
        old = await ben.node.device(unheard)
        tailnet.admin("DELETE", f"/nodes/{ben.node.hostname}")
        with anyio.fail_after(10):
            while await old.is_online():  # noqa: ASYNC110 - LocalAPI has no event for it
                await anyio.sleep(0.01)
        assert await ben.node.device(unheard) is not old
        # WireGuard repeats a handshake after 5 s, if the first one came before the lead had heard of the new device.
        await once_back(lambda: ben.do(Update(task="task-1", priority=1)))
        assert (await ben.do(Complete(task="task-1"))).completed_by == "member-2"
        view = await (await ben.teamwork.gateway()).team()
        assert [member.id for member in view.members] == ["member-1", "member-2"]
        assert view.members[1].identity.name == await ben.name()
        await ann.do(Create(subject="Two"))
        await ann.do(Claim(task="task-2", owner="member-2"))
        await ben.told("was assigned to you")  # it follows with the new one too


async def test_a_device_that_is_closed_while_the_team_is_followed_does_not_end_the_following(
    tailnet: Localnet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")) as (ann, ben):
        device = await ben.node.device(unheard)
        await device.dialer.http.close()
        with pytest.raises(LeadOffline):
            await ben.do(Claim())
        await ann.do(Create(subject="One"))
    assert "could not be followed" not in caplog.text


async def test_following_goes_on_after_an_error_that_nobody_foresaw(
    tailnet: Localnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(teamwork, "FOLLOW_AGAIN_SECONDS", 0.01)
    take, failures = replica.Replica.take, [OSError(errno.EMFILE, "Too many open files"), RuntimeError("a defect")]

    def failing(self: replica.Replica, page: EventPage, now: datetime) -> None:
        if failures:
            raise failures.pop()
        take(self, page, now)

    async with pair(of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ben")) as (ann, ben):
        monkeypatch.setattr(replica.Replica, "take", failing)
        await ann.do(Create(subject="Look at it"))
        await ann.do(Claim(task="task-1", owner="member-2"))
        assert "Look at it" in await ben.told("assigned")
    assert caplog.text.count("could not be followed") == 2


async def test_who_leaves_and_is_cancelled_then_does_not_come_back_by_itself(
    tailnet: Localnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bens = of(tailnet, tmp_path, "ben")
    leaving, told = anyio.CancelScope(), teamwork._told

    async def told_and_cancelled(engaged: Engaged) -> bool:
        answer = await told(engaged)
        leaving.cancel()
        return answer

    monkeypatch.setattr(teamwork, "_told", told_and_cancelled)
    async with session(of(tailnet, tmp_path, "ann")) as ann:
        await ann.teamwork.create(TEAM)
        async with session(bens) as ben:
            await ben.teamwork.join(await ann.name())
            with leaving:
                await ben.teamwork.leave()
        assert leaving.cancel_called
        async with session(bens) as ben:
            await ben.node.device(unheard)
            with pytest.raises(NoTeam):
                await ben.teamwork.gateway()
        assert (await (await ann.teamwork.gateway()).team()).members[1:] == ()


async def test_a_team_whose_creation_is_cancelled_is_not_taken_for_one_that_is_led_elsewhere(
    tailnet: Localnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = anyio.Event()

    @asynccontextmanager
    async def never(*_: object) -> AsyncIterator[Engaged]:
        begun.set()
        await anyio.sleep_forever()
        yield cast("Engaged", None)

    async with session(of(tailnet, tmp_path, "ann")) as ann:
        with monkeypatch.context() as patched:
            patched.setattr(engaged, "as_lead", never)
            async with anyio.create_task_group() as creating:
                creating.start_soon(ann.teamwork.create, TEAM)
                with anyio.fail_after(10):
                    await begun.wait()
                creating.cancel_scope.cancel()
        with pytest.raises(NoSuchTeam):
            await ann.teamwork.create(TEAM, resume=True)
        await ann.teamwork.create(TEAM)


async def test_devices_that_are_kept_go_on_as_the_same_ones(own_tailnet: Localnet, tmp_path: Path) -> None:
    anns, bens = (of(own_tailnet, tmp_path, name, TS_EPHEMERAL="false") for name in ("ann", "ben"))
    async with session(anns) as ann, session(bens) as ben:
        await ann.teamwork.create(TEAM)
        await ben.teamwork.join(await ann.name())
        await ben.do(Create(subject="One"))
        await ben.do(Claim())
        before = (await (await ann.teamwork.gateway()).team()).members
    async with session(anns) as ann, session(bens) as ben:
        await ann.node.device(unheard)
        assert (await once_back(lambda: ben.do(Complete(task="task-1")))).completed_by == "member-2"
        after = (await (await ann.teamwork.gateway()).team()).members
        assert [row.identity for row in after] == [row.identity for row in before]
