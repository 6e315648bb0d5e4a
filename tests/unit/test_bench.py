"""The arithmetic of the benchmarks: a wrong verdict would be believed."""

import json
import os
import subprocess

import pytest

from bench.agents import out_of_place
from bench.crew import astray
from bench.figures import Goal, Row, Subject, differences, rates, ratios
from bench.growth import steepest
from bench.page import page
from bench.process import family, pss
from bench.report import Report
from bench.start import LATE, imported
from bench.turns import flat, in_turns, medians
from cctailscale.teams.commands import Claim, Create, Release
from tests.asked import LEAD, Asked


def test_a_median_within_its_goal_is_met_by_what_is_left() -> None:
    row = Row("start", "x", [1.0, 1.2, 9.0], Goal(1.5))
    assert row.median == 1.2
    assert row.met is True
    assert row.verdict == "met by 20 %"


def test_a_median_over_its_goal_is_missed_by_what_is_too_much() -> None:
    row = Row("start", "x", [1.5, 1.5, 1.5], Goal(1.25))
    assert row.met is False
    assert row.verdict == "MISSED by 20 %"


def test_a_goal_of_the_worst_sample_is_missed_by_one() -> None:
    assert Row("stop", "ms", [10, 10, 330], Goal(300, of="worst")).verdict == "MISSED by 10 %"
    assert Row("stop", "ms", [10, 10, 330], Goal(300)).verdict == "met by 97 %"


def test_a_goal_can_ask_for_at_least_so_much() -> None:
    goal = Goal(0.8, "at least")
    assert Row("throughput", "x", [1.0], goal).verdict == "met by 25 %"
    assert Row("throughput", "x", [0.6], goal).verdict == "MISSED by 25 %"
    assert Row("throughput", "x", [1.0, 1.0, 0.6], Goal(0.8, "at least", "worst")).met is False


def test_a_goal_of_nothing_at_all_has_no_percentage() -> None:
    assert Row("left behind", "", [0], Goal(0)).verdict == "met"
    assert Row("left behind", "", [1], Goal(0)).verdict == "MISSED"


def test_a_row_without_a_goal_has_no_verdict() -> None:
    row = Row("empty server", "ms", [1])
    assert row.met is None
    assert row.verdict == ""


@pytest.mark.parametrize(("percent", "value"), [(25, 2.0), (50, 3.0), (75, 4.0), (95, 4.8)])
def test_percentiles_lie_between_neighbouring_samples(percent: int, value: float) -> None:
    assert Row("fetch", "ms", [5, 1, 3, 2, 4]).percentile(percent) == pytest.approx(value)
    assert Row("fetch", "ms", [7]).percentile(percent) == 7


def test_what_is_compared_is_compared_round_by_round() -> None:
    assert ratios([2, 30], [1, 10]) == [2, 3]
    assert differences([2, 30], [1, 10]) == [1, 20]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_a_rate_is_in_mebibytes_a_second() -> None:
    assert rates(100 << 20, [1, 0.5, 4]) == [100, 200, 25]


@pytest.mark.parametrize(
    ("taken", "count"),
    [("abc", 0), ("ab", 1), ("acb", 2), ("abcc", 1), ("aabc", 3), ("", 3)],
    ids=["all there", "one lost", "two exchanged", "the last one twice", "the first one twice", "none"],
)
def test_messages_that_are_lost_twice_or_out_of_order_are_counted(taken: str, count: int) -> None:
    assert out_of_place("abc", taken) == count


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ({"ben": ["task-2"], "cleo": ["task-3"]}, 0),
        ({"ben": ["task-2"], "cleo": ["task-2", "task-3"]}, 1),
        ({"ben": ["task-2", "task-2"], "cleo": ["task-3"]}, 1),
        ({"ben": ["task-2"], "cleo": []}, 1),
        ({"ben": ["task-3"], "cleo": ["task-2"]}, 2),
    ],
    ids=["one each", "two were told", "told twice", "never told", "exchanged"],
)
def test_tasks_that_have_not_one_claim_of_who_was_told_so_are_counted(told: dict[str, list[str]], count: int) -> None:
    asked = _claimed()
    names = {member.identity.name.partition(".")[0]: member.identity.name for member in asked.team.members.values()}
    claims = {names[f"cc-{name}"]: tasks for name, tasks in told.items()}
    assert astray(asked.team, claims, since=2) == count


def test_a_task_that_nobody_has_claimed_is_lost_and_one_that_two_have_is_astray() -> None:
    asked = _claimed()
    names = [asked.team.members[member].identity.name for member in ("member-2", "member-3")]
    claims = dict(zip(names, (["task-2"], ["task-3"]), strict=True))
    assert astray(asked.team, claims, since=1) == 1
    asked.change(Release(task="task-2"), "member-2")
    asked.change(Claim(task="task-2"), "member-3")
    assert astray(asked.team, claims, since=2) == 1


def _claimed() -> Asked:
    """ben has claimed task-2, cleo task-3, and nobody task-1."""
    asked = Asked("ben", "cleo")
    for number, member in enumerate((None, "member-2", "member-3"), start=1):
        asked.change(Create(subject="Fix it"), LEAD)
        if member is not None:
            asked.change(Claim(task=f"task-{number}"), member)
    return asked


def test_the_modules_that_were_imported_are_read_from_importtime() -> None:
    errors = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       120 |        120 |   aiohttp.hdrs\n"
        "import time:        35 |        155 | cctailscale.config\n"
        "cc-tailscale: a line of the log\n"
    )
    assert imported(errors) == ["aiohttp.hdrs", "cctailscale.config"]


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("aiohttp", True),
        ("aiohttp.client", True),
        ("dns.message", True),
        ("cctailscale._libtailscale", True),
        ("cctailscale.tailnet.device", True),
        ("cctailscale.tailnet.node", False),
        ("cctailscale", False),
        ("dnspython_is_not_this", False),
    ],
)
def test_the_tailnets_own_modules_count_as_loaded_too_early(module: str, late: bool) -> None:
    assert bool(LATE.fullmatch(module)) is late


def test_the_json_has_every_sample_and_says_what_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    subject = Subject("start", "What was measured.")
    subject.add("ours", "ms", [3.0, 1.0, 2.0])
    subject.add("ours / theirs", "x", [2.0, 2.0, 2.0], Goal(1.25))
    report = Report(3)
    report.begin()
    report.add(subject)
    report.end()
    document = json.loads(json.dumps(report.to_json()))
    assert document["rounds"] == 3
    assert document["subjects"][0]["about"] == "What was measured."
    ours, ratio = document["subjects"][0]["rows"]
    assert (ours["samples"], ours["median"], ours["min"], ours["max"]) == ([3.0, 1.0, 2.0], 2.0, 1.0, 3.0)
    assert ours["goal"] is None
    assert ratio["goal"] == {"limit": 1.25, "kind": "at most", "of": "median", "text": "<= 1.25", "met": False}
    shown = capsys.readouterr().out
    assert "0 of 1 goals met" in shown
    assert "MISSED start: ours / theirs" in shown
    assert "MISSED by 60 %" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("milliseconds", "exponent"),
    [
        ({10: 10.0, 100: 100.0, 1000: 1000.0}, 1.0),
        ({10: 10.0, 100: 1000.0, 1000: 1000.0}, 2.0),
        ({10: 1.0, 100: 4.0}, 0.0),
        ({10: 50.0, 100: 20.0}, 0.0),
    ],
    ids=["linear", "the steepest part counts", "too little to be noticed", "faster"],
)
def test_growth_is_the_steepest_exponent_from_one_size_to_the_next(
    milliseconds: dict[int, float], exponent: float
) -> None:
    assert steepest(milliseconds) == pytest.approx(exponent)


async def test_ways_are_measured_in_turns_and_the_first_round_only_warms_up() -> None:
    order: list[str] = []

    async def way(name: str) -> list[float]:
        order.append(name)
        return [float(len(order))]

    samples = await in_turns({"a": lambda: way("a"), "b": lambda: way("b")}, 2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert flat(samples["a"]) == [3.0, 6.0]
    assert medians(samples["b"]) == [4.0, 5.0]


def test_a_process_counts_with_what_it_has_started() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert {os.getpid(), child.pid} <= set(family(os.getpid()))
            assert pss(os.getpid()) > pss(child.pid) > 0
        finally:
            child.kill()


def test_the_page_names_what_was_missed_and_what_was_left_out() -> None:
    subject = Subject("fetch", "What was measured.")
    subject.add("ours", "ms", [1.0, 2.0])
    subject.add("ours / theirs", "x", [2.0], Goal(1.25))
    report = Report(2)
    report.begin()
    report.leave_out("The others.")
    report.add(subject)
    text = page(report.to_json())
    assert "0 of 1 goals are met" in text
    assert "- **missed**: fetch, ours / theirs: 2 x, goal <= 1.25" in text
    assert "**Left out:** The others." in text
    assert "![fetch](performance/fetch.svg)" in text
