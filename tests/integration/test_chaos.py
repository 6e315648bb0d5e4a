"""A short plan of a seed, with every part real; `nox -s chaos` plays long ones. And faults do what they are called."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chaos.crew import Crew
from chaos.plan import Fault, Kind
from tests.agent import Agent
from tests.localnet import Localnet
from tests.talking import did

ROOT = Path(__file__).parent.parent.parent
SECONDS = 55
# Over as soon as they are lifted: what has lost its way (a cut, relays) takes up to half a minute to be well again.
KINDS = ("kill", "stop", "restart", "ahead", "behind")


@pytest.mark.parametrize("seed", [1])
def test_agents_that_are_killed_stopped_restarted_and_misled_about_time_lose_no_message_and_no_task(seed: int) -> None:
    plan = ["--seed", str(seed), "--agents", "3", "--steps", "24", "--only", *KINDS]
    finished = subprocess.run(
        [sys.executable, "-m", "chaos", *plan], capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "well again, and all done, after" in finished.stdout


@asynccontextmanager
async def wrong(crew: Crew, kind: Kind, agent: int | None = None) -> AsyncIterator[None]:
    """A fault, as long as the block."""
    fault = Fault(kind, 1, agent)
    await crew.begin(fault)
    yield
    await crew.lift(fault)


async def ping_ms(lead: Agent, device: str) -> float:
    """How long a ping to a device took, through a relay; infinite if none came back."""
    (reply,) = (await did(lead, "ping", host=device, count=1))["replies"]
    assert reply.get("path", "DERP").startswith("DERP")
    return float(reply.get("latency_ms", math.inf))


async def off_by(lead: Agent) -> int:
    """How many hours the clock of an agent is off."""
    created = datetime.fromisoformat((await did(lead, "task_create", subject="One"))["created"])
    return round((created - datetime.now(UTC)) / timedelta(hours=1))


async def test_relays_are_late_or_gone_and_clocks_wrong_as_long_as_a_fault_lasts(
    patient_tailnet: Localnet, tmp_path: Path
) -> None:
    async with Crew.joined(patient_tailnet, tmp_path, 2) as crew:
        lead, ben = crew.members[0].agent, crew.device(1)
        assert lead is not None
        assert await ping_ms(lead, ben) < 100
        async with wrong(crew, "lag"):
            assert 100 <= await ping_ms(lead, ben) < math.inf
        async with wrong(crew, "relays"):
            assert await ping_ms(lead, ben) == math.inf
        async with wrong(crew, "ahead", 0):
            assert await off_by(lead) == 1
        async with wrong(crew, "behind", 0):
            assert await off_by(lead) == -1
        assert await off_by(lead) == 0
    assert crew.history.defects == []
