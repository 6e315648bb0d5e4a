"""Agents that say to lead a team and do not: members stay with the lead that has the key, wherever it is by then."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from cctailscale.agents import client
from cctailscale.agents.connection import answer
from cctailscale.agents.server import Call, Endpoint
from cctailscale.errors import AgentError, BadDocument, CcTailscaleError, FalseLead, LeadOffline, NoTeam
from cctailscale.teams.commands import Claim, Create
from cctailscale.teams.wire import MAX_LIST_BYTES, Proof
from tests.callers import addresses, identity
from tests.inprocess import unheard
from tests.localnet import Localnet
from tests.teaming import TEAM, Session, of, once_back, session

CALL_BOUND = 6.0
SECONDS = 5.0
PATHS = ("team/join", "team/proof", "team/leave", "team/command", "team", "team/tasks", "team/events")

Answering = Callable[[str, Call], Awaitable[web.Response]]


async def lie(session: Session, answering: Answering) -> None:
    """Has the session's agent say that it is in the team, and answer all that a lead is asked like this."""
    desk = await session.desk()

    def endpoint(path: str) -> Endpoint:
        async def handle(call: Call) -> web.Response:
            return await answering(path, call)

        method = "GET" if path in ("team", "team/tasks", "team/events") else "POST"
        return Endpoint(method, f"/v1/{path}", "team", handle)

    desk.server.endpoints[:0] = map(endpoint, PATHS)
    session.agent.team = TEAM


async def relaying(liar: Session, lead: Session, asked: list[str]) -> Answering:
    """What the true lead says to it, handed on."""
    assert lead.node.running_device is not None
    (address, _) = addresses(await identity(lead.node.running_device))

    async def handed_on(path: str, call: Call) -> web.Response:
        asked.append(path)
        assert liar.node.running_device is not None
        question = f"{path}?{call.query}" if call.query else path
        method = "POST" if call.body else "GET"
        said = await client.ask(
            liar.node.running_device, address, method, question, call.body or None, SECONDS, MAX_LIST_BYTES
        )
        return answer(said)

    return handed_on


async def test_who_hands_a_join_on_to_the_true_lead_is_not_joined(tailnet: Localnet, tmp_path: Path) -> None:
    asked: list[str] = []
    async with (
        session(of(tailnet, tmp_path, "ann")) as ann,
        session(of(tailnet, tmp_path, "ben")) as ben,
        session(of(tailnet, tmp_path, "mallory")) as mallory,
    ):
        await ann.teamwork.create(TEAM)
        await mallory.node.device(unheard)
        await lie(mallory, await relaying(mallory, ann, asked))
        with pytest.raises(FalseLead, match=await mallory.name()):
            await ben.teamwork.join(await mallory.name())
        assert asked == ["team/join"]
        with pytest.raises(NoTeam):
            await ben.teamwork.gateway()
        assert (await ben.teamwork.join(await ann.name())).name == TEAM


async def test_who_hands_the_question_for_a_proof_on_to_the_true_lead_is_told_of_and_gets_no_command(
    tailnet: Localnet, tmp_path: Path
) -> None:
    """The true lead is back as another device, whose name the member does not know."""
    asked: list[str] = []
    anns = of(tailnet, tmp_path, "ann")
    async with session(of(tailnet, tmp_path, "ben")) as ben, session(of(tailnet, tmp_path, "mallory")) as mallory:
        async with session(anns) as ann:
            await ann.teamwork.create(TEAM)
            await ben.teamwork.join(await ann.name())
            await ben.do(Create(subject="One"))
        await mallory.node.device(unheard)
        async with session(anns | {"USER": "anna"}) as ann:
            await ann.node.device(unheard)
            await ann.teamwork.gateway()
            await lie(mallory, await relaying(mallory, ann, asked))
            assert (await once_back(lambda: ben.do(Claim()))).owner == "member-2"
            ann.agent.team = None  # so that the one who lies is asked alone
            assert ben.teamwork._held is not None
            remote = ben.teamwork._held.engaged.remote
            assert remote is not None
            known = ben.teamwork._held.engaged.file
            known.note(lead_address="", lead=known.now.lead.model_copy(update={"name": "nobody.example"}))
            assert not await remote.find()
            assert "does not have its key" in await ben.told("says that it leads the team")
        assert set(asked) == {"team/proof"}


async def test_leads_that_answer_nonsense_megabytes_or_slowly_do_not_keep_members_from_the_true_one(
    tailnet: Localnet, tmp_path: Path
) -> None:
    async def nonsense(_path: str, _call: Call) -> web.Response:
        return answer(b"\xff{]")

    async def megabytes(_path: str, _call: Call) -> web.Response:
        return answer(b'{"signature":"' + b"a" * 10_000_000 + b'"}')

    async def slowly(_path: str, _call: Call) -> web.Response:
        await anyio.sleep(60)
        return answer(Proof(signature="00" * 64).to_json())

    anns = of(tailnet, tmp_path, "ann")
    async with (
        session(of(tailnet, tmp_path, "ben")) as ben,
        session(of(tailnet, tmp_path, "one")) as one,
        session(of(tailnet, tmp_path, "two")) as two,
        session(of(tailnet, tmp_path, "three")) as three,
    ):
        async with session(anns) as ann:
            await ann.teamwork.create(TEAM)
            await ben.teamwork.join(await ann.name())
            await ben.do(Create(subject="One"))
        for liar, answering in ((one, nonsense), (two, megabytes), (three, slowly)):
            await liar.node.device(unheard)
            await lie(liar, answering)
        began = time.monotonic()
        with pytest.raises(LeadOffline):
            await ben.do(Claim())
        assert time.monotonic() - began < CALL_BOUND
        async with session(anns | {"USER": "anna"}) as ann:
            await ann.node.device(unheard)
            assert (await once_back(lambda: ben.do(Claim()))).owner == "member-2"


@pytest.mark.parametrize("body", [b"", b"\xff{]", b"[" * 100_000, b"{" + b" " * 10_000_000 + b"}"], ids=len)
async def test_who_joins_a_lead_that_answers_nonsense_is_in_no_team(
    tailnet: Localnet, tmp_path: Path, body: bytes
) -> None:
    async def nonsense(_path: str, _call: Call) -> web.Response:
        return answer(body)

    async with session(of(tailnet, tmp_path, "ben")) as ben, session(of(tailnet, tmp_path, "mallory")) as mallory:
        await mallory.node.device(unheard)
        await lie(mallory, nonsense)
        with pytest.raises(CcTailscaleError) as raised:
            await ben.teamwork.join(await mallory.name())
        assert isinstance(raised.value, AgentError | BadDocument)
        with pytest.raises(NoTeam):
            await ben.teamwork.gateway()


async def test_two_teams_of_one_name_stay_apart_through_restarts_of_both_leads(
    tailnet: Localnet, tmp_path: Path
) -> None:
    anns, ivys = of(tailnet, tmp_path, "ann"), of(tailnet, tmp_path, "ivy")
    async with session(of(tailnet, tmp_path, "ben")) as ben, session(of(tailnet, tmp_path, "cleo")) as cleo:
        async with session(anns) as ann, session(ivys) as ivy:
            for lead, member in ((ann, ben), (ivy, cleo)):
                await lead.teamwork.create(TEAM)
                await member.teamwork.join(await lead.name())
                await member.do(Create(subject=f"Of {await lead.name()}"))
            subjects = [f"Of {await ann.name()}", f"Of {await ivy.name()}"]
        async with session(anns | {"USER": "anna"}) as ann, session(ivys | {"USER": "ivanka"}) as ivy:
            for lead in (ann, ivy):
                await lead.node.device(unheard)
            for member, lead, subject in zip((ben, cleo), (ann, ivy), subjects, strict=True):
                task = await once_back(partial(member.do, Claim()))
                assert task.subject == subject
                assert member.teamwork.part is not None
                assert member.teamwork.part.lead == await lead.name()
                assert not [told for told in await member.untold() if "does not have its key" in told]
