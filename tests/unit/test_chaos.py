"""Chaos is a plan that can be played again, and its checks find what they are for."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos import checks, plan
from chaos.__main__ import main
from chaos.crew import Crew
from chaos.history import NEVER_NS, History, Operation, Sent
from chaos.plan import KINDS, OF_TAILNET, Act
from chaos.run import _by_a_right_clock
from chaos.soak import SPARE_FDS, Held
from chaos.work import Worker, _outcome, who
from tests.agent import Json, Result
from tests.localnet import Localnet

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
            assert (fault.agent is None) == (fault.kind in OF_TAILNET)
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


# ---- a whole run

CLAIM = Operation("task-1", "claim", "ben", False, "done", 1, 2)
COMPLETE = replace(CLAIM, what="complete", call=3, return_=4)


class Tailnet(Localnet):
    """Control, after a run: it knows the devices that the test says."""

    def __init__(self) -> None:
        super().__init__(
            dict.fromkeys(["control_url", "admin_url", "magic_dns_suffix", "auth_key", "client_secret"], ""), 0
        )
        self.left: list[Json] = []

    def nodes(self) -> list[Json]:
        return self.left


@pytest.fixture
def crew(tmp_path: Path) -> Crew:
    """Of a run in which all went well: ben has read ann's one message, and has completed the one task."""
    crew = Crew(Tailnet(), tmp_path, 3)
    crew.history.acknowledged.add(SENT)
    crew.history.read.update([SENT])
    crew.history.created.add("task-1")
    crew.history.operations += [CLAIM, COMPLETE, replace(CLAIM, member="cat", call=5, return_=6, outcome="refused")]
    keep(crew, SENT, read="2026")
    return crew


def keep(crew: Crew, message: Sent, read: str | None) -> None:
    """Puts a message into the inbox of the agent that it is for."""
    (member,) = (member for member in crew.members if member.worker.name == message.to)
    folder = Path(member.environ["TS_STATE_DIR"]) / "inboxes" / "inbox-1"
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "inbox.db")) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS received (name, id, read)")
        database.execute(
            "INSERT INTO received VALUES (?, ?, ?)", (f"cc-{message.sender}-app-0a1b.tail1234.ts.net", message.id, read)
        )


def done(*tasks: str) -> list[Json]:
    return [{"id": task, "status": "completed"} for task in tasks]


def test_a_run_in_which_all_went_well_has_nothing_wrong(crew: Crew) -> None:
    assert checks.wrong(crew, done("task-1")) == []
    assert checks.left_over(crew) == []


def test_a_claim_that_two_were_given_is_wrong_with_a_run(crew: Crew) -> None:
    crew.history.operations.append(replace(CLAIM, member="cat", call=2, return_=3))
    (found,) = checks.wrong(crew, done("task-1"))
    assert found.startswith("not linearizable: task-1\n")
    assert '"member": "cat"' in found


def test_a_claim_of_what_is_completed_already_is_wrong_with_a_run(crew: Crew) -> None:
    crew.history.operations.append(replace(CLAIM, member="cat", call=5, return_=6))
    (found,) = checks.wrong(crew, done("task-1"))
    assert found.startswith("not linearizable: task-1\n")


def test_a_completion_that_was_forgotten_is_wrong_with_a_run(crew: Crew) -> None:
    crew.history.operations.append(
        replace(CLAIM, what="read", member="ann", lead=True, call=7, return_=8, status="pending")
    )
    found, unfinished = checks.wrong(crew, [{"id": "task-1", "status": "pending"}])[::-1]
    assert found.startswith("not linearizable: task-1\n")
    assert unfinished == "not completed: task-1 is pending"


def test_a_task_that_its_creator_was_told_of_and_nobody_has_is_wrong_with_a_run(crew: Crew) -> None:
    crew.history.created.add("task-2")
    assert checks.wrong(crew, done("task-1")) == ["created, and lost: task-2"]


def test_a_message_that_was_shown_twice_is_wrong_with_a_run(crew: Crew) -> None:
    crew.history.read.update([SENT])
    (found,) = checks.wrong(crew, done("task-1"))
    assert found.startswith("read 2 times: ")


def test_a_message_that_was_acknowledged_and_stored_nowhere_is_wrong_with_a_run(crew: Crew) -> None:
    crew.history.acknowledged.update([replace(SENT, id="ann-2"), replace(SENT, id="ann-3")])
    keep(crew, replace(SENT, id="ann-3"), read=None)
    (found,) = checks.wrong(crew, done("task-1"))
    assert found.startswith("acknowledged, and lost: ")
    assert "ann-2" in found


def test_whatever_no_fault_excuses_is_wrong_with_a_run(crew: Crew) -> None:
    crew.history.defects.append("ben: Traceback")
    assert checks.wrong(crew, done("task-1")) == ["ben: Traceback"]


def test_a_device_a_folder_and_a_process_that_are_still_there_are_left_over(crew: Crew) -> None:
    assert isinstance(crew.tailnet, Tailnet)
    crew.tailnet.left = [{"name": "cc-ann-app-0a1b", "hostname": "cc-ann"}, {"name": "web", "hostname": "web"}]
    state = Path(crew.members[1].environ["TS_STATE_DIR"])
    folder = state / "cc-ben-vm-0a1b" / "device-1"
    folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], env={"TS_STATE_DIR": str(state)}) as process:
        try:
            found = checks.left_over(crew)
        finally:
            process.kill()
    assert found == [
        "left over: the device cc-ann-app-0a1b", f"left over: the folder {folder}",
        f"left over: the process {process.pid}",
    ]  # fmt: skip


def test_descriptors_threads_and_memory_that_stay_are_more_than_before() -> None:
    before = Held.by(os.getpid())
    assert before.more_than(before) == []
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(SPARE_FDS + 1)]
    try:
        (found,) = Held.by(os.getpid()).more_than(before)
    finally:
        for fd in opened:
            os.close(fd)
    assert found.startswith("fds: ")
    assert [what.partition(":")[0] for what in Held(99, 99, 999.0).more_than(Held(9, 9, 99.0))] == [
        "fds", "threads", "memory",
    ]  # fmt: skip


async def test_an_agent_that_ended_by_itself_is_wrong_with_a_run(crew: Crew) -> None:
    member = crew.members[1]
    member.agent, member._process = Ended(), AsyncExitStack()  # type: ignore[assignment]
    await member.end(signal.SIGKILL)
    assert checks.wrong(crew, done("task-1")) == ["ben: ended by itself, with exit code 3"]


class Ended:
    """In an agent's place: its process has gone."""

    process = SimpleNamespace(returncode=3)
    stderr = ""


@pytest.mark.parametrize("breaks", [False, True])
def test_a_seed_that_fails_is_told_with_the_command_that_plays_it_again(
    breaks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing(*_: object) -> list[str]:
        if breaks:
            raise OSError("task-1 is lost")
        return ["task-1 is lost"]

    monkeypatch.setattr("chaos.__main__.play", failing)
    assert main(["--seed", "7", "--agents", "3", "--steps", "5", "--only", "kill"]) == 1
    said = capsys.readouterr().out
    assert "task-1 is lost" in said
    assert said.endswith("nox -s chaos -- --seed 7 --agents 3 --steps 5 --only kill\n")


@pytest.mark.parametrize("off", [0, 3600, -3600])
def test_a_lapse_is_placed_where_a_right_clock_has_it(off: int) -> None:
    at = time.monotonic_ns() - 60_000_000_000
    assert _by_a_right_clock(at + off * 1_000_000_000) == at


# ---- what agents are told

HEAD = (
    "From cc-ann-app-0a1b.tail1234.ts.net (alice@example.com), verified; id {0}; thread {0}; received 2026; sent 2026 "
    "by its own clock{1}. To answer: tailscale_send_message(...)\n<message 0123>\nSubject: x\n</message 0123>"
)


class Answers:
    """In an agent's place: one answer for all calls."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[Json] = []

    async def call(self, *_: object, **arguments: object) -> Result:
        self.asked.append(arguments)
        return Result(self.text, False, None)


async def test_messages_that_are_new_are_counted_and_no_others() -> None:
    worker = Worker("ben", {}, ("ann", "ben"), History(), set(), {})
    text = "\n\n".join(
        [HEAD.format("ann-1", ""), HEAD.format("ann-2", "; read before, 2026"), HEAD.format("team-1-2", "")]
    )
    assert await worker.check(Answers(text)) == 1  # type: ignore[arg-type]
    assert worker.history.read == Counter([SENT])


async def test_a_message_is_repeated_under_its_id_to_whom_it_went_and_never_from_another_device() -> None:
    worker = Worker("ann", {"ben": "cc-ben", "cat": "cc-cat"}, ("ann", "ben", "cat"), History(), set(), {})
    agent = Answers("Delivered.")
    for act in (Act(0, "repeat"), Act(0, "send", 2), Act(0, "send", 1), Act(0, "repeat")):
        await worker.perform(agent, act)  # type: ignore[arg-type]
    assert [(asked["to"], asked["id"]) for asked in agent.asked] == [
        ("cc-cat", "ann-1"), ("cc-ben", "ann-2"), ("cc-ben", "ann-2"),
    ]  # fmt: skip
    worker.forget_device()
    await worker.perform(agent, Act(0, "repeat"))  # type: ignore[arg-type]
    assert len(agent.asked) == 3


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
