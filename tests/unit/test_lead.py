"""A team that is kept here: one command at a time, once each, whatever becomes of those who ask."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from cctailscale.errors import NoTeam, TeamRefused, TeamUnusable
from cctailscale.teams import lead as leading_module
from cctailscale.teams.commands import Claim, Create, Update
from cctailscale.teams.keys import is_proven
from cctailscale.teams.lead import Lead
from cctailscale.teams.local import LocalGateway
from cctailscale.teams.model import MAX_KNOWN_MEMBERS
from cctailscale.teams.store import Moved
from cctailscale.teams.wire import TaskQuery
from tests.fakes import Gate
from tests.leading import CREATE, KEY, LEAD, LEAD_NODE, NONCE, Store, device, joined, leading, made, owners, stored

# ---- commands


async def test_a_command_is_true_here_and_in_the_store_when_it_is_answered() -> None:
    async with leading() as (lead, store):
        answer = await lead.command(LEAD, "one", CREATE)
        assert answer.task is not None
        assert answer.version == lead.facts.version == (await store.load()).facts.version == 1
        assert (await store.load()).tasks == {"task-1": answer.task}
        assert owners(lead) == {"task-1": None}


async def test_a_retry_gets_the_first_answer_and_acts_once() -> None:
    async with leading() as (lead, store):
        first = await lead.command(LEAD, "one", CREATE)
        await lead.command(LEAD, "two", Claim(task="task-1"))
        assert await lead.command(LEAD, "one", CREATE) == first
        assert len(store.commits) == 2


async def test_a_retry_is_known_to_a_lead_that_has_begun_again() -> None:
    async with stored() as store:
        async with Lead.opened(store, KEY, 90) as lead:
            first = await lead.command(LEAD, "one", CREATE)
        async with Lead.opened(store, KEY, 90) as lead:
            assert await lead.command(LEAD, "one", CREATE) == first
            assert owners(lead) == {"task-1": None}


async def test_an_id_that_was_used_for_another_command_is_refused() -> None:
    async with leading() as (lead, _):
        await lead.command(LEAD, "one", CREATE)
        answer = await lead.command(LEAD, "one", Create(subject="Something else"))
        assert answer.task is None
        assert answer.refused is not None
        assert answer.refused.code == "id_taken"
        assert owners(lead) == {"task-1": None}


async def test_the_id_of_another_member_is_another_command() -> None:
    async with leading() as (lead, _):
        member = (await joined(lead)).member
        one, other = await lead.command(LEAD, "one", CREATE), await lead.command(member, "one", CREATE)
        assert one.task
        assert other.task
        assert (one.task.id, other.task.id) == ("task-1", "task-2")
        assert other.task.created_by == member


async def test_a_refusal_is_decided_anew_when_it_is_asked_again() -> None:
    async with leading() as (lead, _):
        member = (await joined(lead)).member
        assert (await lead.command(member, "next", Claim())).refused
        await made(lead)
        assert (await lead.command(member, "next", Claim())).task


async def test_the_loser_of_a_race_hears_who_won() -> None:
    async with leading() as (lead, _):
        await made(lead)
        members = [(await joined(lead, number)).member for number in range(2, 12)]
        answers = {}

        async def claim(member: str) -> None:
            answers[member] = await lead.command(member, "claim", Claim(task="task-1"))

        async with anyio.create_task_group() as racing:
            for member in members:
                racing.start_soon(claim, member)
        (winner,) = [member for member, answer in answers.items() if answer.task]
        assert owners(lead) == {"task-1": winner}
        for member, answer in answers.items():
            if member != winner:
                assert answer.refused is not None
                assert answer.refused.code == "taken"
                assert winner in answer.refused.message


async def test_a_command_that_only_reads_writes_nothing() -> None:
    async with leading() as (lead, store):
        await made(lead)
        answer = await lead.command(LEAD, "look", Update(task="task-1"))
        assert answer.task is not None
        assert (answer.version, len(store.commits)) == (1, 1)


async def test_a_store_that_fails_at_a_commit_changes_nothing() -> None:
    async with leading() as (lead, store):
        await made(lead)
        store.fails = "is on a full disk"
        with pytest.raises(TeamUnusable):
            await lead.command(LEAD, "claim", Claim())
        assert owners(lead) == {"task-1": None}
        assert lead.facts.version == 1
        store.fails = ""
        assert (await lead.command(LEAD, "claim", Claim())).task
        assert owners(lead) == {"task-1": LEAD}


async def test_a_commit_that_was_made_although_the_store_failed_is_found_by_the_next() -> None:
    async with leading() as (lead, store):
        await made(lead)

        async def fail_afterwards() -> None:
            store.fails = "is on a disk that fails"

        store.after_commit = fail_afterwards  # type: ignore[method-assign]
        with pytest.raises(TeamUnusable):
            await lead.command(LEAD, "claim", Claim())
        store.fails, store.after_commit = "", Store.after_commit.__get__(store)  # type: ignore[method-assign]
        retry = await lead.command(LEAD, "claim", Claim())
        assert retry.task is not None
        assert retry.task.owner == LEAD
        assert (await lead.command(LEAD, "next", CREATE)).task
        assert owners(lead) == {"task-1": LEAD, "task-2": None}


async def test_a_change_that_somebody_else_has_committed_is_loaded_and_built_upon() -> None:
    async with stored() as store, Lead.opened(store, KEY, 90) as one, Lead.opened(store, KEY, 90) as other:
        assert (await one.command(LEAD, "one", CREATE)).task
        assert (await other.command(LEAD, "two", CREATE)).task
        assert owners(other) == {"task-1": None, "task-2": None}
        assert [event.seq for event in (await other.events(0, 0)).events] == [1, 2]


async def test_a_store_that_always_moves_is_given_up() -> None:
    async with leading() as (lead, store):

        async def move() -> None:
            raise Moved

        store.before_commit = move  # type: ignore[method-assign]
        with pytest.raises(Moved):
            await lead.command(LEAD, "one", CREATE)


@pytest.mark.parametrize("native", [False, True], ids=["anyio", "asyncio"])
async def test_a_caller_that_is_cancelled_leaves_no_commit_without_its_effect(native: bool) -> None:
    async with leading() as (lead, store):
        gate = Gate()
        gate.shut()
        store.after_commit = gate.passed  # type: ignore[method-assign]
        async with anyio.create_task_group() as tasks:
            if native:
                asking = asyncio.create_task(lead.command(LEAD, "one", CREATE))
                await gate.arrival()
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
            else:
                tasks.start_soon(lead.command, LEAD, "one", CREATE)
                await gate.arrival()
                tasks.cancel_scope.cancel()
        gate.open()
        with anyio.fail_after(5):
            retry = await lead.command(LEAD, "one", CREATE)
        assert retry.task is not None
        assert owners(lead) == {"task-1": None}
        assert len(store.commits) == 1


async def test_a_lead_that_ends_finishes_the_commit_and_tells_those_who_wait() -> None:
    gate, end = Gate(), anyio.Event()
    gate.shut()
    told: dict[int, bool] = {}

    async def ask(lead: Lead, number: int) -> None:
        try:
            told[number] = (await lead.command(LEAD, f"c{number}", CREATE)).task is not None
        except NoTeam:
            told[number] = False

    async def live(*, task_status: anyio.abc.TaskStatus[Lead]) -> None:
        async with Lead.opened(store, KEY, 90) as lead:
            task_status.started(lead)
            await end.wait()

    async with stored() as store, anyio.create_task_group() as tasks:
        store.before_commit = gate.passed  # type: ignore[method-assign]
        lead = await tasks.start(live)
        tasks.start_soon(ask, lead, 1)
        await gate.arrival()
        tasks.start_soon(ask, lead, 2)
        await anyio.wait_all_tasks_blocked()
        end.set()
        await anyio.wait_all_tasks_blocked()
        assert told == {2: False}
        gate.open()
        await anyio.wait_all_tasks_blocked()
    assert told == {1: True, 2: False}
    with pytest.raises(NoTeam):
        await lead.command(LEAD, "late", CREATE)


# ---- what is told


async def test_who_waits_is_told_of_an_event_as_soon_as_it_is_committed() -> None:
    async with leading() as (lead, _):
        pages = []

        async def follow() -> None:
            pages.append(await lead.events(0, 60))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                await made(lead)
        assert {event.kind for page in pages for event in page.events} == {"task_created"}
        assert {page.version for page in pages} == {1}
        assert len(pages) == 20


async def test_who_waits_for_events_of_a_lead_that_ends_is_told_at_once() -> None:
    told = []

    async def follow(lead: Lead) -> None:
        with pytest.raises(NoTeam):
            await lead.events(0, 60)
        told.append(True)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks, leading() as (lead, _):
            tasks.start_soon(follow, lead)
            await anyio.wait_all_tasks_blocked()
    assert told == [True]


async def test_without_events_a_page_is_empty_and_goes_on_where_it_was() -> None:
    async with leading() as (lead, _):
        await made(lead, 3)
        page = await lead.events(3, 0)
        assert (page.events, page.version, page.reset, page.lease_seconds) == ((), 3, False, 90)


@pytest.mark.parametrize("recent", [1, 3, 1000])
async def test_whoever_is_behind_gets_every_event_once_in_order(recent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading_module, "RECENT_EVENTS", recent)
    monkeypatch.setattr(leading_module, "MAX_EVENTS", 2)
    async with leading() as (lead, _):
        await made(lead, 7)
        for first in range(8):
            after, told = first, []
            while (page := await lead.events(after, 0)).events:
                assert len(page.events) <= 2
                told += [event.seq for event in page.events]
                after = page.version
            assert told == list(range(first + 1, 8))


async def test_who_asks_past_an_event_that_has_not_been_begins_anew() -> None:
    async with leading() as (lead, _):
        await made(lead)
        with anyio.fail_after(5):
            page = await lead.events(2, 60)
        assert (page.reset, page.version, page.events) == (True, 1, ())


async def test_who_asks_past_events_that_are_not_kept_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading_module, "RECENT_EVENTS", 1)
    async with leading() as (lead, store):

        async def none(_after: int, _limit: int) -> None:
            return None

        store.events = none  # type: ignore[method-assign, assignment]
        await made(lead, 3)
        page = await lead.events(0, 0)
        assert (page.reset, page.version, page.events) == (True, 3, ())


async def test_a_page_of_events_fits_into_a_document() -> None:
    async with leading() as (lead, _):
        long = "\N{GRINNING FACE}" * 200
        for number in range(200):
            blocked_by = tuple(f"task-{blocker}" for blocker in range(max(1, number - 60), number))
            create = Create(subject=long, description=long, active_form=long, blocked_by=blocked_by)
            assert (await lead.command(LEAD, str(number), create)).task
        after, told = 0, 0
        sizes = []
        while (page := await lead.events(after, 0)).events:
            sizes.append(len(page.to_json()))
            told, after = told + len(page.events), page.version
        assert told == 200
        assert len(sizes) > 1


async def test_a_view_shows_when_members_were_last_heard_of() -> None:
    times = (datetime(2026, 11, 25, 9, tzinfo=UTC) + timedelta(seconds=n) for n in itertools.count())
    async with leading(now=lambda: next(times)) as (lead, _):
        member = (await joined(lead)).member
        before = lead.team(LEAD).members[1].last_seen
        lead.heard(member)
        view = lead.team(member)
        assert view.members[1].last_seen > before
        assert (view.you, view.lead, [row.role for row in view.members]) == (member, LEAD, ["lead", "member"])


# ---- members


async def test_who_joins_gets_a_token_and_a_proof_for_its_device() -> None:
    async with leading() as (lead, store):
        answer = await joined(lead)
        assert is_proven(answer.public_key, answer.signature, team=answer.team, nonce=NONCE, lead=LEAD_NODE, asker="n2")
        assert lead.member_of("n2") == answer.member
        assert answer.version == lead.facts.version
        assert answer.token not in (await store.load()).members[answer.member].model_dump_json()


async def test_a_token_brings_a_member_back_with_its_claims_on_a_new_device() -> None:
    async with leading() as (lead, _):
        await made(lead)
        before = await joined(lead)
        await lead.command(before.member, "claim", Claim())
        after = await joined(lead, 3, before.token)
        assert (after.member, after.token) == (before.member, before.token)
        assert lead.member_of("n3") == before.member
        with pytest.raises(TeamRefused) as refused:
            lead.member_of("n2")
        assert refused.value.code == "not_member"
        assert owners(lead) == {"task-1": before.member}


async def test_a_token_of_somebody_else_is_refused() -> None:
    async with leading() as (lead, _):
        before = await joined(lead)
        with pytest.raises(TeamRefused):
            await joined(lead, 3, before.token, owner="mallory@example.com")
        assert lead.member_of("n2") == before.member


async def test_a_token_of_another_team_makes_a_new_member() -> None:
    async with leading() as (lead, _):
        answer = await joined(lead, token="0" * 64)
        assert answer.token != "0" * 64
        assert lead.member_of("n2") == answer.member


async def test_a_join_whose_answer_was_lost_makes_no_second_member() -> None:
    async with leading() as (lead, _):
        first, second = await joined(lead), await joined(lead)
        assert first.member == second.member
        assert len(lead.team(LEAD).members) == 2
        assert (await joined(lead, 3, second.token)).member == first.member


async def test_thousands_who_join_and_leave_leave_a_team_that_is_no_larger_than_it_may_be() -> None:
    async with leading() as (lead, store):
        for number in range(2, 2_002):
            await lead.leave((await joined(lead, number)).member)
        for _ in range(500):  # one device again and again
            member = (await joined(lead, 5_000)).member
            await lead.leave(member)
        team = await store.load()
        assert len(team.members) == MAX_KNOWN_MEMBERS
        assert team.facts.version == 5_000
        await lead._write_seen()
        lead._leases.lapsed({}, None)
        assert len(lead._seen) <= MAX_KNOWN_MEMBERS
        assert lead._unwritten == set()
        assert lead._leases._heard == {}
        assert len(lead._recent) == leading_module.RECENT_EVENTS
        assert [row.id for row in lead.team(LEAD).members] == [LEAD]


async def test_who_was_removed_hears_so_and_cannot_join_again() -> None:
    async with leading() as (lead, _):
        member = await joined(lead)
        await lead.remove("host2")
        for again in (lambda: joined(lead), lambda: joined(lead, 3, member.token)):
            with pytest.raises(TeamRefused) as refused:
                await again()
            assert refused.value.code == "removed"
        with pytest.raises(TeamRefused) as refused:
            lead.member_of("n2")
        assert refused.value.code == "removed"


async def test_who_has_left_is_no_member_until_it_joins_again() -> None:
    async with leading() as (lead, _):
        member = (await joined(lead)).member
        await lead.leave(member)
        with pytest.raises(TeamRefused) as refused:
            lead.member_of("n2")
        assert refused.value.code == "not_member"
        assert (await joined(lead)).member == member


async def test_a_team_that_was_disbanded_says_so() -> None:
    async with leading() as (lead, _):
        await joined(lead)
        await lead.disband()
        answer = await lead.command(LEAD, "one", CREATE)
        assert answer.refused is not None
        assert answer.refused.code == "disbanded"
        with pytest.raises(TeamRefused):
            await joined(lead, 3)


async def test_a_lead_on_a_new_device_says_that_it_has_returned() -> None:
    async with leading() as (lead, _):
        await lead.returned(device(9, "lead-2"))
        assert [event.kind for event in (await lead.events(0, 0)).events] == ["lead_returned"]
        assert lead.member_of("n9") == LEAD


# ---- the lead's own way


async def test_the_leads_own_way_says_what_the_rules_say() -> None:
    async with leading() as (lead, _):
        gateway = LocalGateway(lead)
        task = await gateway.command("one", CREATE)
        assert task is not None
        assert (await gateway.tasks(TaskQuery())).total == 1
        assert (await gateway.team()).you == LEAD
        assert [event.kind for event in (await gateway.events(0, 0)).events] == ["task_created"]
        with pytest.raises(TeamRefused) as refused:
            await gateway.command("stale", Claim(task="task-1", version=7))
        assert refused.value.code == "stale"
        assert '"id":"task-1"' in str(refused.value)
        with pytest.raises(TeamRefused):
            await gateway.leave()
        with pytest.raises(TeamRefused) as refused:
            await gateway.tasks(TaskQuery(owner="nobody"))
        assert refused.value.code == "no_such_member"
