"""The doctor's way through its checks, with checks that do as the test says."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from cctailscale.commands import doctor
from cctailscale.commands.checks import CHECKS, Check, Examination
from cctailscale.commands.findings import Found
from cctailscale.commands.screen import Screen
from cctailscale.config import load_settings
from cctailscale.errors import ControlUnreachable
from cctailscale.redact import Redactor
from cctailscale.tailnet.control import ControlAnswer
from cctailscale.tailnet.results import Latency, NetCheck

GOOD = Found("ok", "fine")
POOR = Found("warning", "so-so", "Look at it.")
BAD = Found("failed", "broken", "Mend it.")


def finds(found: Found) -> Callable[[Examination], Awaitable[Found]]:
    async def look(_: Examination) -> Found:
        return found

    return look


async def played(monkeypatch: pytest.MonkeyPatch, *checks: Check, as_json: bool = False) -> tuple[int, str]:
    """The exit code and what goes to stdout."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(doctor, "CHECKS", checks)
    screen = Screen(Redactor())
    with screen.progress() as progress:
        tools = cast(Any, SimpleNamespace(progress=progress, parts=SimpleNamespace(loaded=load_settings({}))))
        code = await doctor.examined(argparse.Namespace(json=as_json), screen, tools, {})
    return code, out.getvalue()


async def test_all_is_well_when_every_check_is(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = await played(monkeypatch, Check("a", finds(GOOD)), Check("b", finds(GOOD), needs=("a",)))
    assert code == 0
    assert text == "ok       a                fine\nok       b                fine\nAll is well: 2 checks.\n"


async def test_a_failed_check_stops_only_those_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (
        Check("a", finds(BAD)),
        Check("b", finds(GOOD), needs=("a",)),
        Check("c", finds(GOOD), needs=("b",)),
        Check("d", finds(GOOD)),
    )
    code, text = await played(monkeypatch, *checks)
    assert code == 1
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "failed a broken -> Mend it.",
        "skipped b needs a, which did not succeed",
        "skipped c needs b, which did not succeed",
        "ok d fine",
        "It does not work: a failed. Next: Mend it.",
    ]


async def test_a_warning_is_no_failure_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = await played(monkeypatch, Check("a", finds(POOR)), Check("b", finds(GOOD), needs=("a",)))
    assert code == 0
    assert text.splitlines()[-1] == "It works, but look at a. Next: Look at it."


async def test_the_next_step_is_that_of_the_first_failure_and_not_of_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = await played(monkeypatch, Check("a", finds(POOR)), Check("b", finds(BAD)), Check("c", finds(BAD)))
    assert code == 1
    assert text.splitlines()[-1] == "It does not work: b and c failed. Next: Mend it."


async def test_an_error_of_ours_is_a_finding_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(_: Examination) -> Found:
        raise ControlUnreachable("https://control")

    code, text = await played(monkeypatch, Check("control", look))
    assert code == 1
    assert "The control server https://control gave no answer. Without it" in text
    assert "-> Check the internet connection" in text


async def test_a_defect_in_a_check_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(_: Examination) -> Found:
        raise ZeroDivisionError

    code, text = await played(monkeypatch, Check("a", look), Check("b", finds(GOOD)))
    assert code == 1
    assert "the check itself failed (ZeroDivisionError)" in text
    assert "ok       b" in text


async def test_a_check_that_hangs_fails_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(_: Examination) -> Found:
        await anyio.sleep_forever()
        raise AssertionError

    code, text = await played(
        monkeypatch, Check("a", look, seconds=lambda _: 0.01), Check("b", finds(GOOD), needs=("a",))
    )
    assert code == 1
    assert "nothing came of it within 0.01 s" in text
    assert "skipped  b" in text


async def test_json_has_every_finding_and_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = await played(monkeypatch, Check("a", finds(GOOD)), Check("b", finds(BAD)), as_json=True)
    report = json.loads(text)
    assert code == 1
    assert (report["healthy"], report["next_step"]) == (False, "Mend it.")
    assert [(check["name"], check["outcome"]) for check in report["checks"]] == [("a", "ok"), ("b", "failed")]


def test_the_checks_are_these_in_this_order_and_need_only_earlier_ones() -> None:
    names = [check.name for check in CHECKS]
    assert names == [
        "settings", ".mcp.json", "extension", "state directory", "join", "control", "health", "DERP latency",
        "MagicDNS", "agent port", "clock",
    ]  # fmt: skip
    for number, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:number])


# ---- what single checks make of what they are told -------------------------------------------------------------------


def check(name: str) -> Check:
    return next(check for check in CHECKS if check.name == name)


def examination(**facts: Any) -> Examination:
    """An examination whose tools answer `facts["call"]`."""

    async def call(*_: object, **__: object) -> object:
        return facts["call"]

    made = Examination(cast(Any, SimpleNamespace(call=call)), {})
    made.answer = ControlAnswer(1.0, facts.get("ahead"))
    return made


def network(*, udp: bool, latencies: tuple[float | None, ...]) -> NetCheck:
    regions = [Latency(code=f"r{n}", name=f"Region {n}", latency_ms=one) for n, one in enumerate(latencies)]
    return NetCheck(
        udp=udp, ipv4=True, ipv6=False, ipv6_on_host=False, mapped_ipv4=None, mapped_ipv6=None,
        nat="hard: it maps anew", port_mapping=None, captive_portal=None, preferred_derp="r0", regions=regions,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "outcome", "detail"),
    [
        (network(udp=True, latencies=(5.5, None)), "ok", "Region 0 5.5 ms, 1 of 2 regions answer; NAT hard"),
        (network(udp=False, latencies=(5.5,)), "warning", "UDP is blocked, so every path is relayed"),
        (network(udp=True, latencies=(None, None)), "failed", "no DERP region answers"),
        (network(udp=False, latencies=()), "failed", "no DERP region answers"),
    ],
)
async def test_the_way_to_the_relays_is_judged(report: NetCheck, outcome: str, detail: str) -> None:
    found = await check("DERP latency").look(examination(call=report))
    assert found.outcome == outcome
    assert detail in found.detail
    assert (found.next_step is None) == (outcome == "ok")


@pytest.mark.parametrize(
    ("ahead", "outcome", "detail"),
    [
        (0.0, "ok", "less than a second off control's"),
        (-59.0, "ok", "59 s off control's"),
        (61.0, "failed", "61 s ahead of control's"),
        (-86400.0, "failed", "86400 s behind control's"),
        (None, "warning", "control does not say what time it has"),
    ],
)
async def test_a_clock_that_is_more_than_a_minute_off_fails(ahead: float | None, outcome: str, detail: str) -> None:
    found = await check("clock").look(examination(ahead=ahead))
    assert (found.outcome, found.detail) == (outcome, detail)
