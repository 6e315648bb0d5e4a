"""Teams with a clock that is an hour off, or a lead that sleeps: leases are durations, and times are the lead's."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import faulty
from tests.ledger import sound
from tests.localnet import Localnet
from tests.talking import did, did_again, history, joined, lapsed, settings

LEASE = 5
HOUR = 3600


def of(tailnet: Localnet, folder: Path, name: str) -> dict[str, str]:
    return settings(tailnet, folder, name, TS_ENABLE_TEAMS="1", TS_TEAM_LEASE=str(LEASE))


def is_about_now(shown: str, off: int) -> bool:
    """Whether a time is that of a clock that is so many seconds off."""
    return abs(datetime.fromisoformat(shown) - timedelta(seconds=off) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(("lead", "member"), [(0, HOUR), (0, -HOUR), (HOUR, 0), (-HOUR, 0)])
async def test_a_clock_that_is_an_hour_off_takes_no_claim_and_keeps_none(
    patient_tailnet: Localnet, tmp_path: Path, lead: int, member: int
) -> None:
    anns, bens, cleos = (of(patient_tailnet, tmp_path, name) for name in ("ann", "ben", "cleo"))
    async with (
        joined(anns, command=faulty.command("clock", lead)) as (ann, her),
        joined(bens, command=faulty.command("clock", member)) as (ben, _),
        joined(cleos) as (cleo, hers),
    ):
        await did(ann, "team_create", name="build")
        for subject in ("One", "Two"):
            await did(ann, "task_create", subject=subject)
        for agent in (ben, cleo):
            await did(agent, "team_join", lead_hostname=her)
        claimed = await did(ben, "task_update", action="claim")
        assert is_about_now(claimed["claimed"], lead)
        await asyncio.sleep(2 * LEASE)  # nothing is to happen in it
        info = await did(ben, "team_info")
        assert all(is_about_now(one["last_seen"], lead) for one in info["members"] if one["role"] == "member")
        done = await did(ben, "task_update", action="complete", id="task-1")
        assert [entry["what"] for entry in await history(ben, "task-1")] == ["created", "claimed", "completed"]
        assert is_about_now(done["completed"], lead)

        await did(ben, "task_update", action="claim")
        began = time.monotonic()
        await ben.kill()
        assert await lapsed(ann, "task-2") == f"not heard of for {LEASE} s"
        assert time.monotonic() - began < 3 * LEASE
        assert (await did(cleo, "task_update", action="claim"))["owner"] == hers
    sound(anns)


async def test_a_lead_that_was_asleep_gives_every_claim_a_full_lease(patient_tailnet: Localnet, tmp_path: Path) -> None:
    """The member ben is heard of no more since before it woke up; cleo is, and keeps its claim."""
    anns, bens, cleos = (of(patient_tailnet, tmp_path, name) for name in ("ann", "ben", "cleo"))
    async with joined(anns) as (ann, her), joined(bens) as (ben, _), joined(cleos) as (cleo, hers):
        await did(ann, "team_create", name="build")
        for subject in ("One", "Two"):
            await did(ann, "task_create", subject=subject)
        for agent in (ben, cleo):
            await did(agent, "team_join", lead_hostname=her)
            await did(agent, "task_update", action="claim")
        os.kill(ann.pid, signal.SIGSTOP)
        await ben.kill()
        await asyncio.sleep(LEASE + 3)
        assert f"The lead {her} has been offline since" in await cleo.fail("tailscale_task_update", action="claim")
        os.kill(ann.pid, signal.SIGCONT)
        awake = datetime.now(UTC)
        assert await lapsed(ann, "task-1") == f"not heard of for {LEASE} s"
        lost = (await history(ann, "task-1"))[-1]
        assert datetime.fromisoformat(lost["at"]) - awake >= timedelta(seconds=LEASE)
        assert (await did_again(cleo, "task_update", action="claim"))["id"] == "task-1"
        mine = (await did(cleo, "task_list", owner="me"))["tasks"]
        assert {task["id"]: task["owner"] for task in mine} == {"task-1": hers, "task-2": hers}
        assert [entry["what"] for entry in await history(ann, "task-2")] == ["created", "claimed"]
    sound(anns)
