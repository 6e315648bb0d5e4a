"""Chaos is a plan that can be played again, and its checks find what they are for."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import checks, plan
from chaos.history import NEVER_NS, History, Operation, Sent
from chaos.plan import KINDS, OF_CONTROL
from chaos.work import Worker, _outcome, who
from tests.agent import Result

SENT = Sent("ann", "ann-1", "ben")
seeds = st.integers(0, 1 << 32)


# ---- the plan


@given(seeds)
def test_a_seed_gives_the_same_plan_each_time(seed: int) -> None:
    assert plan.made(seed, 4, 20) == plan.made(seed, 4, 20)
    assert plan.made(seed, 4, 20) != plan.made(seed + 1, 4, 20)


@given(seeds, st.integers(2, 8), st.integers(1, 60))
def test_nothing_has_two_faults_at_a_time_and_all_are_over_at_the_end(seed: int, agents: int, steps: int) -> None:
    until: dict[int | None, int] = {}
    for step in plan.made(seed, agents, steps).steps:
        for fault in step.faults:
            assert step.number < fault.until <= steps
            assert (fault.agent is None) == (fault.kind in OF_CONTROL)
            assert (fault.other is None) == (fault.kind != "cut")
            for place in {fault.agent, fault.other} - ({None} if fault.agent is not None else set()):
                assert until.get(place, 0) <= step.number
                until[place] = fault.until


@given(seeds)
def test_agents_act_on_tasks_that_there_are_and_write_to_others(seed: int) -> None:
    made = plan.made(seed, 3, 15)
    for step in made.steps:
        assert [act.agent for act in step.acts] == [0, 1, 2]
        for act in step.acts:
            if act.what == "send":
                assert act.number in range(3)
                assert act.number != act.agent
            if act.what in ("claim", "complete", "release"):
                assert 1 <= act.number <= made.tasks


def test_every_kind_of_fault_comes_up() -> None:
    kinds = Counter(fault.kind for seed in range(20) for step in plan.made(seed, 4, 40).steps for fault in step.faults)
    assert kinds.keys() == set(KINDS)
    assert {fault.kind for step in plan.made(1, 4, 40, ("kill",)).steps for fault in step.faults} == {"kill"}
    assert not any(step.faults for step in plan.made(1, 4, 40, ()).steps)


# ---- what must hold


def test_a_message_that_was_read_once_or_waits_is_well() -> None:
    assert checks.messages(History(acknowledged={SENT}, read=Counter([SENT])), [(SENT, True)]) == []
    assert checks.messages(History(acknowledged={SENT}), [(SENT, False)]) == []
    assert checks.messages(History(read=Counter([SENT])), []) == []  # its sender does not know


def test_a_message_that_was_acknowledged_and_is_nowhere_is_lost() -> None:
    (found,) = checks.messages(History(acknowledged={SENT}), [])
    assert found.startswith("acknowledged, and lost: ")


def test_a_message_that_was_read_twice_is_found() -> None:
    (found,) = checks.messages(History(acknowledged={SENT}, read=Counter([SENT, SENT])), [(SENT, True)])
    assert found.startswith("read 2 times: ")


def test_a_message_may_be_read_unseen_only_by_a_call_that_broke_off() -> None:
    (found,) = checks.messages(History(acknowledged={SENT}), [(SENT, True)])
    assert found.startswith("marked as read, and shown to nobody: ")
    assert checks.messages(History(acknowledged={SENT}, unanswered={"ben"}), [(SENT, True)]) == []


def test_what_lies_in_the_inboxes_of_an_agent_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "ben" / "state" / "inboxes" / "inbox-1"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "inbox.db")) as database, database:
        database.execute("CREATE TABLE received (name, id, read)")
        database.execute("INSERT INTO received VALUES ('cc-ann-app-0a1b.tail1234.ts.net', 'ann-1', NULL)")
    assert checks.kept(tmp_path / "ben" / "state") == [(SENT, False)]


def test_a_task_that_is_gone_or_left_is_found() -> None:
    history = History(created={"task-1", "task-2"})
    assert checks.tasks(history, [{"id": id_, "status": "completed"} for id_ in ("task-1", "task-2", "task-3")]) == []
    assert checks.tasks(history, [{"id": "task-1", "status": "pending"}]) == [
        "created, and lost: task-2",
        "not completed: task-1 is pending",
    ]


def test_two_owners_at_a_time_are_found_and_one_after_the_other_is_well() -> None:
    ann = Operation("task-1", "claim", "ann", False, "done", 1, 2)
    ben = replace(ann, member="ben", call=3, return_=4)
    (found,) = checks.linearizable([ann, ben])
    assert found.startswith("not linearizable: task-1\n")
    assert checks.linearizable([ann, replace(ann, what="lapse", call=1, return_=9), ben]) == []
    assert checks.linearizable([replace(ann, outcome="unknown", return_=NEVER_NS), ben]) == []


# ---- what agents are told

HEAD = (
    "From cc-ann-app-0a1b.tail1234.ts.net (alice@example.com), verified; id {0}; thread {0}; received 2026; sent 2026 "
    "by its own clock{1}. To answer: tailscale_send_message(...)\n<message 0123>\nSubject: x\n</message 0123>"
)


class Answers:
    """In an agent's place: one answer for all calls."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def call(self, *_: object, **__: object) -> Result:
        return Result(self.text, False, None)


async def test_messages_that_are_new_are_counted_and_no_others() -> None:
    worker = Worker("ben", {}, ("ann", "ben"), History(), set(), {})
    text = "\n\n".join(
        [HEAD.format("ann-1", ""), HEAD.format("ann-2", "; read before, 2026"), HEAD.format("team-1-2", "")]
    )
    assert await worker.check(Answers(text)) == 1  # type: ignore[arg-type]
    assert worker.history.read == Counter([SENT])


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("ben (member-2) has had task-1 since 2026. Nothing was changed. Claim another one.", "refused"),
        ("task-1 was completed by you at 2026. Nothing was changed. Nothing is left to do for it.", "refused"),
        ("The lead x has been offline since 2026. Nothing was done. Go on.", None),
        ("The team's file x is on a full disk. Nothing was changed; what is in it stays. Free some.", None),
        ("The lead x has been offline since 2026. Whether this call was carried out is not known: look.", "unknown"),
        (
            "The lead x has been offline since 2026. What you completed is kept here and sent when the lead is back.",
            "unknown",
        ),
    ],
)
def test_an_error_says_whether_the_command_was_carried_out(text: str, outcome: str | None) -> None:
    assert _outcome(Result(text, True, None)) == outcome


def test_a_device_s_name_tells_the_agent() -> None:
    assert who("cc-ann-app-0a1b.tail1234.ts.net") == "ann"
    assert who("") == ""
