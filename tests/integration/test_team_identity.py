"""Who may take part in a team, and as whom: decided by what WhoIs says of the connection, over the real tailnet."""

from __future__ import annotations

from pathlib import Path

import anyio

from cctailscale.agents import client
from cctailscale.agents.wire import CAPABILITY
from cctailscale.errors import AgentRefused
from cctailscale.teams.commands import Claim, Complete, Create
from tests.callers import BOB, message
from tests.localnet import Localnet
from tests.teamcallers import Caller, caller
from tests.teaming import TEAM, Session, of, session

SECONDS = 10.0


def grant(tailnet: Localnet, *actions: str) -> None:
    """Lets bob do these things, and nothing else."""
    app = {"src": [BOB], "dst": ["*"], "ip": ["*"], "app": {CAPABILITY: [{"allow": list(actions)}]}}
    everybody = {"src": ["*"], "dst": ["*"], "ip": ["*"]}
    owners = {f"tag:{name}": ["alice@example.com"] for name in ("build", "test")}
    tailnet.admin("PUT", "/policy", {"rules": [], "grants": [everybody, app], "tag_owners": owners})


async def may(caller: Caller) -> dict[str, bool]:
    """What the device may do at the lead: join its team, send it a message."""
    allowed = {"team": True, "message": True}
    for what in allowed:
        try:
            if what == "team":
                await caller.join()
            else:
                await client.deliver(caller.device, caller.lead, message(), SECONDS)
        except AgentRefused as refused:
            allowed[what] = (refused.status, refused.code) != (403, "refused")
    return allowed


async def until_may(caller: Caller, **expected: bool) -> None:
    """No event tells that a change of the policy has arrived."""
    with anyio.fail_after(SECONDS):
        while await may(caller) != expected:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_a_grant_for_messages_is_none_for_the_team_nor_the_other_way_round(
    own_tailnet: Localnet, tmp_path: Path
) -> None:
    grant(own_tailnet, "message")
    async with session(of(own_tailnet, tmp_path, "ann")) as ann:
        await ann.teamwork.create(TEAM)
        async with caller(own_tailnet, tmp_path, "bobs", ann, user=BOB) as bob:
            await until_may(bob, team=False, message=True)
            assert await bob.refused(f"team?team={bob.team}") == (403, "refused")
            grant(own_tailnet, "team")
            await until_may(bob, team=True, message=False)
            assert (await bob.command("one", Create(subject="One"))).task
            grant(own_tailnet, "message")  # who has joined is asked for its right each time, too
            await until_may(bob, team=False, message=True)
            for path, document in bob.everything():
                assert await bob.refused(path, document) == (403, "refused")


async def test_neither_a_stranger_nor_a_friend_who_has_not_joined_reads_or_writes(
    tailnet: Localnet, tmp_path: Path
) -> None:
    async with session(of(tailnet, tmp_path, "ann")) as ann:
        await ann.teamwork.create(TEAM)
        await ann.do(Create(subject="One"))
        before = await (await ann.teamwork.gateway()).team()
        async with caller(tailnet, tmp_path, "stranger", ann, user=BOB) as stranger:
            for path, document in stranger.everything():
                assert await stranger.refused(path, document) == (403, "refused")
        async with caller(tailnet, tmp_path, "friend", ann) as friend:
            for path, document in friend.everything()[2:]:
                assert await friend.refused(path, document) == (403, "not_member")
        after = await (await ann.teamwork.gateway()).team()
        assert after.version == before.version


async def claimed(ann: Session, member: Caller) -> str:
    """The token of a device that has joined and claimed a task."""
    token = (await member.join()).token
    await ann.do(Create(subject="One"))
    assert (await member.command("claim", Claim())).task
    return token


async def test_a_removed_member_does_not_come_back_by_its_token_on_whatever_device(
    tailnet: Localnet, tmp_path: Path
) -> None:
    async with session(of(tailnet, tmp_path, "ann")) as ann:
        await ann.teamwork.create(TEAM)
        async with caller(tailnet, tmp_path, "first", ann) as first, caller(tailnet, tmp_path, "second", ann) as second:
            token = await claimed(ann, first)
            await ann.teamwork.leave(member="member-2")
            for path, document in first.everything()[2:]:
                assert await first.refused(path, document) == (403, "removed")
            for device in (first, second):
                assert await refused_to_join(device, token) == (403, "removed")
            assert await refused_to_join(first, None) == (403, "removed")
            assert (await ann.tasks(status="pending")).total == 1
            assert (await second.join()).member == "member-3"  # a device is removed, not its owner


async def refused_to_join(device: Caller, token: str | None) -> tuple[int, str]:
    (path, request) = device.everything()[0]
    assert request is not None
    return await device.refused(path, request.model_copy(update={"token": token}))


async def test_a_token_is_good_for_the_devices_of_its_owner_alone(own_tailnet: Localnet, tmp_path: Path) -> None:
    grant(own_tailnet, "team")
    async with session(of(own_tailnet, tmp_path, "ann", TS_ALLOW_FROM="*")) as ann:
        await ann.teamwork.create(TEAM)
        async with (
            caller(own_tailnet, tmp_path, "first", ann) as first,
            caller(own_tailnet, tmp_path, "second", ann) as second,
            caller(own_tailnet, tmp_path, "bobs", ann, user=BOB) as bob,
            caller(own_tailnet, tmp_path, "tagged", ann, tags=("tag:build",)) as tagged,
        ):
            token = await claimed(ann, first)
            for thief in (bob, tagged):
                assert await refused_to_join(thief, token) == (403, "not_member")
            assert (await second.join(token)).member == "member-2"
            assert await first.refused(f"team?team={first.team}") == (403, "not_member")
            assert (await second.command("done", Complete(task="task-1"))).task


async def test_tags_stand_for_an_owner(own_tailnet: Localnet, tmp_path: Path) -> None:
    grant(own_tailnet, "team")
    async with session(of(own_tailnet, tmp_path, "ann", TS_ALLOW_FROM="*")) as ann:
        await ann.teamwork.create(TEAM)
        async with (
            caller(own_tailnet, tmp_path, "first", ann, tags=("tag:build",)) as first,
            caller(own_tailnet, tmp_path, "second", ann, tags=("tag:build",)) as second,
            caller(own_tailnet, tmp_path, "both", ann, tags=("tag:build", "tag:test")) as both,
            caller(own_tailnet, tmp_path, "other", ann, tags=("tag:test",)) as other,
            caller(own_tailnet, tmp_path, "alices", ann) as alices,
        ):
            token = await claimed(ann, first)
            for thief in (both, other, alices):
                assert await refused_to_join(thief, token) == (403, "not_member")
            assert (await second.join(token)).member == "member-2"
            (row,) = [row for row in (await second.view()).members if row.id == "member-2"]
            assert (row.identity.login, row.identity.tags) == (None, ("tag:build",))
            assert (await second.command("done", Complete(task="task-1"))).task


async def test_the_id_of_a_command_counts_for_its_sender_alone_and_once(tailnet: Localnet, tmp_path: Path) -> None:
    async with session(of(tailnet, tmp_path, "ann")) as ann:
        await ann.teamwork.create(TEAM)
        async with caller(tailnet, tmp_path, "first", ann) as first, caller(tailnet, tmp_path, "second", ann) as second:
            for member in (first, second):
                await member.join()
            for number in (1, 2, 3):
                await ann.do(Create(subject=f"Number {number}"))
            claimed = await first.command("one", Claim())
            assert await first.command("one", Claim()) == claimed  # a replay is answered, and does nothing
            assert (await first.tasks("status=in_progress")).total == 1
            other = await first.command("one", Claim(task="task-3"))
            assert other.refused is not None
            assert other.refused.code == "id_taken"
            theirs = await second.command("one", Claim())
            assert theirs.task is not None
            assert (theirs.task.id, theirs.task.owner) == ("task-2", "member-3")
            assert (await first.tasks("status=in_progress")).total == 2
