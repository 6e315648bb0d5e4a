"""How long a member that is not heard of keeps its claims."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from cctailscale.teams import lead as leading_module
from cctailscale.teams import leases
from cctailscale.teams.commands import Claim
from cctailscale.teams.lead import Lead
from cctailscale.teams.wire import EventPage
from tests.fakes import Gate
from tests.leading import CREATE, LEAD, joined, leading, made, owners


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are looked at all the time."""
    monkeypatch.setattr(leases, "TICK_SECONDS", 0.005)
    monkeypatch.setattr(leading_module, "PRESENT_SECONDS", 0.005)


async def until(lead: Lead, kind: str, after: int = 0) -> EventPage:
    """The page that has the first event of that kind past `after`."""
    with anyio.fail_after(5):
        while True:
            page = await lead.events(after, 5)
            if kind in [event.kind for event in page.events]:
                return page
            after = page.version


class Clocks:
    """A monotonic clock and one on the wall."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = 5000.0

    def leases(self, seconds: float = 90) -> leases.Leases:
        return leases.Leases(seconds, lambda: self.now, lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


TWO = {"member-2": "n2", "member-3": "n3"}


def looked(clocks: Clocks, lease: leases.Leases, seconds: int, present: set[str] | None = None) -> dict[str, str]:
    """What has lapsed by some of the looks of that many seconds, one each."""
    lapsed: dict[str, str] = {}
    for _ in range(seconds):
        clocks.passes(1)
        lapsed |= lease.lapsed(TWO, present)
    return lapsed


def test_a_member_that_is_silent_for_a_lease_has_none_any_more() -> None:
    clocks = Clocks()
    lease = clocks.leases()
    lease.lapsed(TWO, None)
    assert looked(clocks, lease, 60) == {}
    lease.heard("member-2")
    assert looked(clocks, lease, 30) == {}
    assert looked(clocks, lease, 1) == {"member-3": "not heard of for 90 s"}
    lease.heard("member-3")
    assert "member-3" not in looked(clocks, lease, 80)


def test_a_device_that_left_the_tailnet_has_a_moment_to_be_replaced() -> None:
    clocks = Clocks()
    lease = clocks.leases()
    assert looked(clocks, lease, 11, {"n2"}) == {}
    assert looked(clocks, lease, 1, {"n2"}) == {"member-3": "device has left the tailnet"}


def test_a_device_that_is_there_again_or_heard_of_or_not_known_of_has_not_left() -> None:
    clocks = Clocks()
    lease = clocks.leases()
    assert looked(clocks, lease, 9, {"n2"}) == {}
    lease.heard("member-3")
    for present in ({"n2", "n3"}, None):
        assert looked(clocks, lease, 9, {"n2"}) == {}
        assert looked(clocks, lease, 1, present) == {}
    assert looked(clocks, lease, 9, {"n2"}) == {}


@pytest.mark.parametrize(("slept", "passed"), [(3600.0, 0.0), (3600.0, 3600.0), (-3600.0, 0.0), (4.0, 4.0)])
def test_after_a_sleep_a_stop_or_another_time_every_lease_is_a_full_one(slept: float, passed: float) -> None:
    clocks = Clocks()
    lease = clocks.leases(20)
    lease.lapsed(TWO, None)
    assert looked(clocks, lease, 19) == {}
    clocks.now, clocks.wall = clocks.now + passed, clocks.wall + slept
    assert looked(clocks, lease, 20) == {}
    assert looked(clocks, lease, 2).keys() == TWO.keys()


def test_after_a_start_a_short_lease_waits_for_members_that_look_for_their_lead() -> None:
    clocks = Clocks()
    lease = clocks.leases(5)
    assert looked(clocks, lease, 15) == {}
    lease.heard("member-2")
    assert looked(clocks, lease, 5) == {"member-3": "not heard of for 5 s"}
    assert looked(clocks, lease, 1).keys() == TWO.keys()


async def test_a_claim_of_a_silent_member_goes_back_with_the_reason(hasty: None) -> None:
    async with leading(0.05) as (lead, _):
        await made(lead)
        member = (await joined(lead)).member
        await lead.command(member, "claim", Claim())
        event = (await until(lead, "claim_lost")).events[-1]
        assert event.task is not None
        assert (event.task.id, event.task.status, event.reason) == (
            "task-1", "pending", "not heard of for 0.05 s",
        )  # fmt: skip
        assert owners(lead) == {"task-1": None}
        again = await lead.command(member, "again", Claim())
        assert again.task is not None


async def test_a_lead_keeps_its_own_claims(hasty: None) -> None:
    async with leading(0.02) as (lead, _):
        await made(lead, 2)
        member = (await joined(lead)).member
        await lead.command(LEAD, "mine", Claim(task="task-1"))
        for turn in ("first", "second"):
            claim = await lead.command(member, turn, Claim(task="task-2"))
            await until(lead, "claim_lost", claim.version)
        assert owners(lead) == {"task-1": LEAD, "task-2": None}


async def test_who_is_heard_of_while_the_lapse_waits_for_its_turn_keeps_its_claim(hasty: None) -> None:
    clocks = Clocks()
    times = {"clock": lambda: clocks.now, "now": lambda: datetime.fromtimestamp(clocks.wall, UTC)}
    async with leading(1, **times) as (lead, store):
        await made(lead, 2)
        heard, silent = (await joined(lead, 2)).member, (await joined(lead, 3)).member
        for member in (heard, silent):
            await lead.command(member, "claim", Claim())
        gate = Gate()
        gate.shut()
        store.before_commit = gate.passed  # type: ignore[method-assign]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lead.command, LEAD, "slow", CREATE)
            await gate.arrival()
            clocks.passes(1.5)  # more than a lease
            with anyio.fail_after(5):
                while not lead._one_at_a_time.statistics().tasks_waiting:  # until a look waits for the commit
                    await anyio.lowlevel.checkpoint()
            lead.heard(heard)
            gate.open()
        await lead.command(LEAD, "later", CREATE)
        assert (owners(lead)["task-1"], owners(lead)["task-2"]) == (heard, None)


async def test_a_device_that_left_the_tailnet_loses_its_claims(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "GRACE_SECONDS", 0.02)

    async def present() -> set[str]:
        return {"n3"}

    async with leading(present=present) as (lead, _):
        await made(lead, 2)
        for number in (2, 3):
            member = (await joined(lead, number)).member
            await lead.command(member, "claim", Claim())
        event = (await until(lead, "claim_lost")).events[-1]
        assert event.reason == "device has left the tailnet"
        assert owners(lead) == {"task-1": None, "task-2": "member-3"}


async def test_a_device_that_left_is_missed_although_the_list_of_devices_takes_long(
    hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as long as the tailnet is large, and is asked for again and again."""
    monkeypatch.setattr(leading_module, "PRESENT_SECONDS", 0.1)
    monkeypatch.setattr(leases, "GRACE_SECONDS", 0.15)

    async def present() -> set[str]:
        await anyio.sleep(0.08)
        return {"n3"}

    async with leading(present=present) as (lead, _):
        await made(lead)
        await lead.command((await joined(lead)).member, "claim", Claim())
        event = (await until(lead, "claim_lost")).events[-1]
        assert event.reason == "device has left the tailnet"


async def test_a_store_that_fails_does_not_end_the_look_at_leases(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with leading(0.02) as (lead, store):
        await made(lead)
        await lead.command((await joined(lead)).member, "claim", Claim())
        tried = anyio.Event()

        async def note() -> None:
            tried.set()

        store.fails, store.before_commit = "is on a full disk", note  # type: ignore[method-assign]
        with anyio.fail_after(5):
            await tried.wait()
        store.fails = ""
        await until(lead, "claim_lost")
    assert {record.levelname for record in caplog.records} <= {"WARNING"}


async def test_the_store_learns_when_members_were_heard_of(hasty: None) -> None:
    async with leading(0.03) as (lead, store):
        member = (await joined(lead)).member
        with anyio.fail_after(5):
            while member not in store.seen_times:
                await anyio.lowlevel.checkpoint()
        assert (await store.load()).members[member].last_seen == store.seen_times[member]
        assert lead.facts.version == 1
