"""What may be done in a team, by whom, and what is said when it may not."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from cctailscale.errors.teams import MAX_REFUSAL_CHARS
from cctailscale.teams import model
from cctailscale.teams.commands import (
    Claim,
    Command,
    Complete,
    Create,
    Delete,
    Disband,
    Join,
    Lapse,
    Leave,
    Release,
    Remove,
    Return,
    Update,
)
from cctailscale.teams.model import MAX_HISTORY, MAX_MEMBERS, MAX_METADATA_BYTES, MAX_TASKS
from tests.asked import LEAD, Asked, device, kinds, token


@pytest.fixture
def asked() -> Asked:
    return Asked("ada", "bob")


def has(asked: Asked, name: str) -> list[str]:
    return [task.id for task in asked.team.tasks.values() if task.owner == asked.ids[name]]


# Founding


def test_a_new_team_has_its_lead_as_the_first_member_and_nothing_else() -> None:
    team = Asked().team
    assert (team.facts.version, team.facts.lead, dict(team.tasks)) == (0, "member-1", {})
    assert [(member.role, member.token) for member in team.members.values()] == [("lead", "")]


# Creating


def test_a_new_task_is_pending_and_its_creator_is_in_its_history(asked: Asked) -> None:
    task = asked.task(Create(subject="Build", priority=3, metadata={"pr": 7}), "ada")
    assert (task.id, task.status, task.owner, task.version) == ("task-1", "pending", None, 1)
    assert (task.created_by, task.created, task.metadata) == (asked.ids["ada"], asked.now, {"pr": 7})
    assert [(entry.what, entry.by) for entry in task.history] == [("created", asked.ids["ada"])]


def test_the_id_of_a_deleted_task_is_never_given_again(asked: Asked) -> None:
    assert [asked.create() for _ in range(3)] == ["task-1", "task-2", "task-3"]
    asked.change(Delete(task="task-1"), LEAD)
    asked.change(Delete(task="task-3"), LEAD)
    assert [asked.create() for _ in range(2)] == ["task-4", "task-5"]


def test_a_task_can_only_wait_for_tasks_that_there_are(asked: Asked) -> None:
    asked.create()
    no = asked.refused(Create(subject="Test", blocked_by=("task-1", "task-9")), "ada")
    assert no.code == "not_found"
    assert "task-9" in no.message
    assert "task-1" not in no.message


def test_a_new_task_cannot_wait_for_itself(asked: Asked) -> None:
    assert asked.refused(Create(subject="Test", blocked_by=("task-1",)), "ada").code == "cycle"


def test_a_blocker_that_is_named_twice_counts_once(asked: Asked) -> None:
    asked.create()
    assert asked.task(Create(subject="Test", blocked_by=("task-1", "task-1")), "ada").blocked_by == ("task-1",)


def test_a_team_has_so_many_tasks_at_most(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cctailscale.teams.taskrules.MAX_TASKS", 2)
    asked.done(asked.create(), "ada")
    second = asked.create()
    no = asked.refused(Create(subject="One more"), "ada")
    assert no.code == "too_many"
    assert "1 are completed" in no.message
    asked.change(Delete(task=second), LEAD)
    asked.create()


# Metadata


@pytest.mark.parametrize("given", ["x" * MAX_METADATA_BYTES, "é" * (MAX_METADATA_BYTES // 2)])
def test_metadata_that_is_too_large_is_refused(asked: Asked, given: str) -> None:
    no = asked.refused(Create(subject="Build", metadata={"k": given}), "ada")
    assert no.code == "too_large"
    assert str(MAX_METADATA_BYTES) in no.message


def test_metadata_may_have_just_so_many_bytes(asked: Asked) -> None:
    fits = "x" * (MAX_METADATA_BYTES - len('{"k":""}'))
    asked.task(Create(subject="Build", metadata={"k": fits}), "ada")
    assert asked.refused(Update(task="task-1", metadata={"k": fits + "x"}), "ada").code == "too_large"


@pytest.mark.parametrize("depth", [model.MAX_METADATA_DEPTH, 100_000])
def test_metadata_that_is_nested_too_deep_is_refused(asked: Asked, depth: int) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    command = Create.model_construct(subject="Build", metadata={"k": deep}, blocked_by=())
    no = asked.refused(command, "ada")
    assert (no.code, "deep" in no.message) == ("too_large", True)


def test_metadata_may_be_nested_just_so_deep(asked: Asked) -> None:
    deep: Any = 1
    for _ in range(model.MAX_METADATA_DEPTH - 1):
        deep = [deep]
    asked.task(Create(subject="Build", metadata={"k": deep}), "ada")


@pytest.mark.parametrize("given", [float("nan"), float("inf"), "\ud800"])
def test_metadata_that_json_has_no_form_for_makes_no_command(given: Any) -> None:
    """A number that is none would reach the lead as null, which removes a key."""
    for command in (Create, Update):
        with pytest.raises(ValidationError, match="JSON has no form for"):
            command.model_validate({"subject": "Build", "task": "task-1", "metadata": {"k": given}})


# Claiming


def test_a_claim_makes_the_task_its_owners(asked: Asked) -> None:
    change = asked.change(Claim(task=asked.create()), "ada")
    assert change.task
    assert (change.task.status, change.task.owner, change.task.claimed) == ("in_progress", asked.ids["ada"], asked.now)
    assert kinds(change) == ["task_claimed"]


def test_who_comes_second_is_told_who_has_the_task_and_since_when(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    since = asked.now
    no = asked.refused(Claim(task="task-1"), "bob")
    assert no.code == "taken"
    assert no.message == f"cc-ada.tail1234.ts.net (member-2) has had task-1 since {since:%Y-%m-%dT%H:%M:%SZ}."
    assert no.task == asked.team.tasks["task-1"]


def test_who_has_a_task_may_claim_it_again_and_nothing_changes(asked: Asked) -> None:
    first = asked.task(Claim(task=asked.create()), "ada")
    again = asked.change(Claim(task="task-1"), "ada")
    assert (again.events, again.task, again.facts.version) == ((), first, asked.team.facts.version)


def test_what_waits_cannot_be_claimed_and_it_is_said_for_what(asked: Asked) -> None:
    first, second, done = asked.create(), asked.create(), asked.create()
    asked.task(Claim(task=first), "ada")
    asked.done(done, "ada")
    asked.create(blocked_by=(first, second, done))
    no = asked.refused(Claim(task="task-4"), "bob")
    assert no.code == "blocked"
    assert "waits for task-1 (in progress, cc-ada.tail1234.ts.net (member-2)) and task-2 (pending)." in no.message
    assert "task-3" not in no.message


def test_what_is_completed_cannot_be_claimed_and_it_is_said_by_whom_and_when(asked: Asked) -> None:
    asked.done(asked.create(), "ada")
    no = asked.refused(Claim(task="task-1"), "bob")
    assert no.code == "completed"
    assert f"by cc-ada.tail1234.ts.net (member-2) at {asked.team.tasks['task-1'].completed:%Y-%m-%dT%H:%M:%SZ}" in (
        no.message
    )


def test_a_claim_without_a_task_takes_the_highest_priority_then_the_oldest(asked: Asked) -> None:
    low, blocker, old, new = (asked.create(priority=priority) for priority in (-1, 0, 5, 5))
    asked.create(priority=9, blocked_by=(low,))
    order = [asked.task(Claim(), "ada").id for _ in range(4)]
    assert order == [old, new, blocker, low]


def test_tasks_are_older_by_their_number_and_not_by_its_letters(asked: Asked) -> None:
    tasks = [asked.create() for _ in range(11)]
    assert [asked.task(Claim(), "ada").id for _ in tasks] == tasks


def test_when_nothing_can_be_claimed_it_is_said_why(asked: Asked) -> None:
    assert asked.refused(Claim(), "ada").message == "The team has no tasks yet."
    asked.task(Claim(task=asked.create()), "ada")
    asked.create(blocked_by=("task-1",))
    no = asked.refused(Claim(), "bob")
    assert no.code == "nothing_to_claim"
    assert "In progress: 1, waiting for others: 1, completed: 0." in no.message


def test_a_completed_blocker_blocks_no_more_and_stays(asked: Asked) -> None:
    asked.create()
    waiting = asked.create(blocked_by=("task-1",))
    asked.done("task-1", "ada")
    assert asked.task(Claim(task=waiting), "bob").blocked_by == ("task-1",)


@pytest.mark.parametrize("owner", ["member-3", "cc-bob.tail1234.ts.net", "cc-bob", "CC-Bob"])
def test_the_lead_claims_for_a_member(asked: Asked, owner: str) -> None:
    change = asked.change(Claim(task=asked.create(), owner=owner), LEAD)
    assert kinds(change) == ["task_assigned"]
    event = change.events[0]
    assert event.member
    assert (event.by, event.member.id) == (LEAD, asked.ids["bob"])
    assert has(asked, "bob") == ["task-1"]


def test_a_member_cannot_claim_for_another(asked: Asked) -> None:
    assert asked.refused(Claim(task=asked.create(), owner="cc-bob"), "ada").code == "lead_only"


@pytest.mark.parametrize("owner", ["cc-eve", "member-77", "cc-bob"])
def test_the_lead_cannot_claim_for_somebody_who_is_not_there(asked: Asked, owner: str) -> None:
    asked.create()
    asked.change(Leave(), "bob")
    assert asked.refused(Claim(task="task-1", owner=owner), LEAD).code == "no_such_member"


# Completing and releasing


def test_the_owner_completes_with_a_result(asked: Asked) -> None:
    task = asked.done(asked.create(), "ada")
    assert (task.status, task.owner, task.result) == ("completed", None, "Done.")
    assert (task.completed_by, task.completed) == (asked.ids["ada"], asked.now)


def test_the_lead_completes_what_a_member_has_or_nobody(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    asked.create()
    for task in ("task-1", "task-2"):
        assert asked.task(Complete(task=task), LEAD).completed_by == LEAD


@pytest.mark.parametrize("command", [Complete(task="task-1"), Release(task="task-1")])
def test_only_the_owner_or_the_lead_completes_or_releases(asked: Asked, command: Command) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    no = asked.refused(command, "bob")
    assert no.code == "not_yours"
    assert "cc-ada" in no.message


def test_a_member_has_to_claim_before_it_completes(asked: Asked) -> None:
    assert asked.refused(Complete(task=asked.create()), "ada").code == "unclaimed"


@pytest.mark.parametrize("by", ["ada", LEAD])
def test_what_is_completed_stays_completed(asked: Asked, by: str) -> None:
    asked.done(asked.create(), "ada")
    for command in (
        Complete(task="task-1"),
        Release(task="task-1"),
        Update(task="task-1", subject="Other"),
        Claim(task="task-1"),
    ):
        assert asked.refused(command, by).code == "completed"


def test_what_nobody_has_cannot_be_released(asked: Asked) -> None:
    assert asked.refused(Release(task=asked.create()), LEAD).code == "unclaimed"


def test_a_release_gives_the_task_back_with_its_reason(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    task = asked.task(Release(task="task-1", reason="No compiler here"), "ada")
    assert (task.status, task.owner, task.claimed) == ("pending", None, None)
    assert (task.history[-1].what, task.history[-1].reason) == ("released", "No compiler here")
    assert has(asked, "ada") == []


def test_completing_tells_of_those_that_waited_for_it_alone(asked: Asked) -> None:
    first, second = asked.create(), asked.create()
    asked.create("alone", blocked_by=(first,))
    asked.create("both", blocked_by=(first, second))
    asked.task(Claim(task=first), "ada")
    change = asked.change(Complete(task=first), "ada")
    assert kinds(change) == ["task_completed", "task_unblocked"]
    unblocked = change.events[1].task
    assert unblocked
    assert (unblocked.id, unblocked.waits_for) == ("task-3", ())


def test_the_last_to_be_completed_tells_that_all_is_done(asked: Asked) -> None:
    first, second = asked.create(), asked.create()
    asked.done(first, "ada")
    assert asked.log[-1].kind == "task_completed"
    asked.done(second, "bob")
    assert asked.log[-1].kind == "all_done"


# Updating


def test_any_member_updates_a_task_and_what_is_not_given_stays(asked: Asked) -> None:
    before = asked.task(Create(subject="Build", description="All", priority=1, active_form="Building"), "ada")
    change = asked.change(Update(task="task-1", priority=2, description=""), "bob")
    assert kinds(change) == ["task_updated"]
    after = asked.team.tasks["task-1"]
    changed = {name for name in type(after).model_fields if getattr(before, name) != getattr(after, name)}
    assert changed == {"priority", "description", "updated", "history", "version", "changed"}
    assert (after.priority, after.description, after.version) == (2, "", 2)


def test_metadata_is_merged_by_key_and_null_removes(asked: Asked) -> None:
    asked.task(Create(subject="Build", metadata={"a": 1, "b": {"c": 2}, "none": None}), "ada")
    task = asked.task(Update(task="task-1", metadata={"a": None, "d": 4}), "bob")
    assert task.metadata == {"b": {"c": 2}, "d": 4}


@pytest.mark.parametrize(
    "command", [Update(task="task-1"), Update(task="task-1", subject="Build", metadata={"gone": None})]
)
def test_an_update_of_nothing_only_reads_the_task(asked: Asked, command: Update) -> None:
    asked.create("Build")
    asked.done("task-1", "ada")  # what is completed can be read as well
    version = asked.team.facts.version
    change = asked.change(command, "bob")
    assert (change.events, change.task) == ((), asked.team.tasks["task-1"])
    assert asked.team.facts.version == version


def test_no_task_can_wait_for_itself_along_any_way(asked: Asked) -> None:
    asked.create()
    asked.create(blocked_by=("task-1",))
    asked.create(blocked_by=("task-2",))
    no = asked.refused(Update(task="task-1", blocked_by=("task-3",)), "ada")
    assert no.code == "cycle"
    assert "task-1 cannot wait for task-3, which waits for task-2, which waits for task-1." in no.message
    assert asked.refused(Update(task="task-1", blocked_by=("task-1",)), "ada").code == "cycle"


def test_two_ways_to_the_same_task_are_no_cycle(asked: Asked) -> None:
    asked.create()
    asked.create(blocked_by=("task-1",))
    asked.create(blocked_by=("task-1",))
    asked.create(blocked_by=("task-2", "task-3"))
    asked.change(Update(task="task-4", blocked_by=("task-3", "task-2", "task-1")), "ada")


def test_an_update_that_takes_the_last_blocker_away_tells_that_it_is_unblocked(asked: Asked) -> None:
    asked.create()
    asked.create(blocked_by=("task-1",))
    assert kinds(asked.change(Update(task="task-2", blocked_by=()), "ada")) == ["task_updated", "task_unblocked"]


@pytest.mark.parametrize(
    "command",
    [
        Claim(task="task-1", version=1),
        Update(task="task-1", subject="Other", version=1),
        Complete(task="task-1", version=1),
        Release(task="task-1", version=1),
        Delete(task="task-1", version=1),
    ],
)
def test_a_command_for_another_version_is_refused_with_the_task_as_it_is(asked: Asked, command: Command) -> None:
    asked.create()
    asked.change(Claim(task="task-1"), "ada")
    no = asked.refused(command, LEAD)
    assert no.code == "stale"
    assert no.task == asked.team.tasks["task-1"]
    assert "has version 2 by now, not 1. cc-ada" in no.message


@pytest.mark.parametrize("command", [Complete, Release, Delete, Update])
def test_a_command_for_the_present_version_is_carried_out(asked: Asked, command: type[Any]) -> None:
    asked.create()
    version = asked.task(Claim(task="task-1", version=1), "ada").version
    given = {"subject": "Other"} if command is Update else {}
    assert asked.change(command(task="task-1", version=version, **given), LEAD).events


def test_a_history_keeps_its_first_line_and_the_latest(asked: Asked) -> None:
    asked.create()
    for number in range(MAX_HISTORY + 10):
        task = asked.task(Update(task="task-1", subject=f"Name {number}"), "bob")
    assert len(task.history) == MAX_HISTORY
    assert task.history[0].what == "created"
    assert [entry.at for entry in task.history[1:]] == [
        asked.now - timedelta(seconds=ago) for ago in range(MAX_HISTORY - 2, -1, -1)
    ]


# Deleting


def test_the_creator_and_the_lead_delete_and_others_do_not(asked: Asked) -> None:
    asked.create(by="ada")
    asked.create(by="ada")
    no = asked.refused(Delete(task="task-1"), "bob")
    assert no.code == "not_yours"
    assert "cc-ada" in no.message
    asked.change(Delete(task="task-1"), "ada")
    asked.change(Delete(task="task-2"), LEAD)
    assert not asked.team.tasks


def test_the_owner_of_a_deleted_task_is_told(asked: Asked) -> None:
    asked.task(Claim(task=asked.create(by="ada")), "bob")
    event = asked.change(Delete(task="task-1"), "ada").events[0]
    assert event.member
    assert event.task
    assert (event.kind, event.member.id, event.task.id) == ("task_deleted", asked.ids["bob"], "task-1")


def test_what_others_wait_for_is_deleted_by_force_alone(asked: Asked) -> None:
    asked.create(by="ada")
    asked.create()
    asked.create(blocked_by=("task-1",))
    asked.create(blocked_by=("task-1", "task-2"))
    no = asked.refused(Delete(task="task-1"), "ada")
    assert no.code == "blocking"
    assert "task-3 (pending) and task-4 (pending)" in no.message
    change = asked.change(Delete(task="task-1", force=True), "ada")
    assert kinds(change) == ["task_deleted", "task_unblocked", "task_updated"]
    assert [asked.team.tasks[task].blocked_by for task in ("task-3", "task-4")] == [(), ("task-2",)]
    assert asked.team.tasks["task-3"].history[-1].reason == "task-1 was deleted"


def test_what_is_completed_blocks_nobody_and_can_be_deleted(asked: Asked) -> None:
    asked.create()
    asked.create(blocked_by=("task-1",))
    asked.done("task-1", "ada")
    asked.change(Delete(task="task-1"), LEAD)
    assert asked.team.tasks["task-2"].blocked_by == ()


def test_deleting_the_last_open_task_tells_that_all_is_done(asked: Asked) -> None:
    asked.done(asked.create(), "ada")
    asked.create()
    assert kinds(asked.change(Delete(task="task-2"), LEAD)) == ["task_deleted", "all_done"]
    assert kinds(asked.change(Delete(task="task-1"), LEAD)) == ["task_deleted"]


def test_deleting_the_only_task_does_not_tell_that_all_is_done(asked: Asked) -> None:
    assert kinds(asked.change(Delete(task=asked.create()), LEAD)) == ["task_deleted"]


def test_a_task_that_was_deleted_is_told_from_one_that_never_was(asked: Asked) -> None:
    asked.change(Delete(task=asked.create()), LEAD)
    assert asked.refused(Claim(task="task-1"), "ada").message == "task-1 was deleted."
    assert asked.refused(Claim(task="task-2"), "ada").message == "task-2 has never been created."


# Losing a claim


def test_a_lapse_gives_the_claims_back_with_the_reason(asked: Asked) -> None:
    for _ in range(3):
        asked.create()
    asked.task(Claim(task="task-1"), "ada")
    asked.task(Claim(task="task-2"), "bob")
    change = asked.change(Lapse({asked.ids["ada"]: "not heard of for 90 s", LEAD: "x"}))
    assert [(event.kind, event.by, event.reason) for event in change.events] == [
        ("claim_lost", None, "not heard of for 90 s")
    ]
    task = asked.team.tasks["task-1"]
    assert (task.status, task.owner) == ("pending", None)
    entry = task.history[-1]
    assert (entry.what, entry.by, entry.owner, entry.reason) == (
        "claim lost",
        None,
        asked.ids["ada"],
        "not heard of for 90 s",
    )
    assert has(asked, "bob") == ["task-2"]


def test_a_lapse_of_nobody_who_has_a_claim_changes_nothing(asked: Asked) -> None:
    asked.create()
    assert asked.change(Lapse({asked.ids["ada"]: "x", "member-9": "y"})).events == ()


@pytest.mark.parametrize("command", [Complete(task="task-1"), Release(task="task-1"), Claim(task="task-1")])
def test_a_former_owner_hears_why_its_claim_was_lost_and_who_has_it(asked: Asked, command: Command) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    asked.change(Lapse({asked.ids["ada"]: "not heard of for 90 s"}))
    lost = asked.now
    asked.task(Claim(task="task-1"), "bob")
    no = asked.refused(command, "ada")
    assert no.message.startswith("cc-bob.tail1234.ts.net (member-3) has had task-1 since ")
    assert f"Your claim was lost at {lost:%Y-%m-%dT%H:%M:%SZ}: not heard of for 90 s." in no.message


def test_a_former_owner_hears_why_its_claim_was_lost_while_nobody_has_it(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    asked.change(Lapse({asked.ids["ada"]: "device has left the tailnet"}))
    no = asked.refused(Complete(task="task-1"), "ada")
    assert no.code == "unclaimed"
    assert "Your claim was lost at" in no.message
    assert "device has left the tailnet" in no.message
    asked.task(Claim(task="task-1"), "ada")
    assert "Your claim" not in asked.refused(Claim(task="task-1"), "bob").message


def test_a_former_owner_hears_that_the_lead_released_its_claim(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    asked.task(Release(task="task-1", reason="Ada is on holiday."), LEAD)
    message = asked.refused(Complete(task="task-1"), "ada").message
    assert "Your claim was released by cc-lead.tail1234.ts.net (member-1) at" in message
    assert message.endswith(": Ada is on holiday.")


def test_who_releases_its_own_claim_has_not_lost_it(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    asked.task(Release(task="task-1"), "ada")
    assert "Your claim" not in asked.refused(Complete(task="task-1"), "ada").message


# Members who come and go


def test_who_joins_is_a_member_of_its_own_id(asked: Asked) -> None:
    change = asked.change(Join(device("eve"), token("eve")))
    assert change.member
    assert (change.member.id, change.member.role, change.member.joined) == ("member-4", "member", asked.now)
    assert kinds(change) == ["member_joined"]
    assert change.events[0].by == "member-4"


def test_no_event_and_no_row_has_a_members_token(asked: Asked) -> None:
    asked.change(Join(device("eve"), token("eve")))
    assert token("eve") not in "".join(event.model_dump_json() for event in asked.log)


def test_the_same_device_is_the_same_member_when_it_joins_again(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    change = asked.change(Join(device("ada", name="cc-new.tail1234.ts.net"), token("new")))
    assert change.member
    assert (change.member.id, change.member.token) == (asked.ids["ada"], token("new"))
    assert kinds(change) == ["member_returned"]
    assert has(asked, "ada") == ["task-1"]


def test_who_leaves_loses_its_claims_and_may_come_back_as_the_same(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    change = asked.change(Leave(), "ada")
    assert [(event.kind, event.by, event.reason) for event in change.events] == [
        ("member_left", asked.ids["ada"], None),
        ("claim_lost", asked.ids["ada"], "left the team"),
    ]
    assert has(asked, "ada") == []
    assert asked.refused(Claim(task="task-1"), "ada").code == "not_member"
    back = asked.join("ada")
    assert (back.id, back.gone, back.joined) == (asked.ids["ada"], None, asked.now)


def test_the_lead_cannot_leave_or_be_removed_or_join(asked: Asked) -> None:
    for command, by in ((Leave(), LEAD), (Join(device("lead"), token("x")), None)):
        assert asked.refused(command, by).code == "not_yours"
    assert asked.refused(Remove("cc-lead"), LEAD).code == "no_such_member"


def test_who_is_removed_loses_its_claims_and_cannot_join_with_that_device(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    change = asked.change(Remove("cc-ada"), LEAD)
    assert kinds(change) == ["member_removed", "claim_lost"]
    assert has(asked, "ada") == []
    assert asked.refused(Claim(task="task-1"), "ada").code == "removed"
    assert asked.refused(Join(device("ada"), token("x"))).code == "removed"
    assert asked.refused(Return(device("ada", node_id="another"), token("ada"))).code == "removed"
    assert asked.refused(Remove("cc-ada"), LEAD).code == "no_such_member"


def test_who_has_left_can_be_removed(asked: Asked) -> None:
    asked.change(Leave(), "ada")
    asked.change(Remove("cc-ada"), LEAD)
    assert asked.refused(Join(device("ada"), token("x"))).code == "removed"


@pytest.mark.parametrize("command", [Remove("cc-bob"), Disband()])
def test_only_the_lead_removes_and_disbands(asked: Asked, command: Command) -> None:
    assert asked.refused(command, "ada").code == "lead_only"


def test_a_new_device_with_the_token_and_the_same_owner_is_the_same_member(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    new = device("ada-2")
    change = asked.change(Return(new, token("ada")))
    assert change.member
    assert (change.member.id, change.member.identity, kinds(change)) == (asked.ids["ada"], new, ["member_returned"])
    assert has(asked, "ada") == ["task-1"]
    assert asked.team.of_node("nada") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"login": "eve@example.com"}),
        ({}, {"login": None, "tags": ("tag:ci",)}),
        ({"login": None, "tags": ("tag:ci",)}, {}),
        ({"login": None, "tags": ("tag:ci",)}, {"login": None, "tags": ("tag:ci", "tag:prod")}),
        ({"login": None, "tags": ("tag:ci",)}, {"login": None, "tags": ("tag:ci",), "name": "cc-eve.other.ts.net"}),
        ({"login": None}, {"login": None}),
    ],
)
def test_a_token_of_another_owner_is_refused(old: dict[str, Any], new: dict[str, Any]) -> None:
    asked = Asked()
    asked.join("eve", **old)
    no = asked.refused(Return(device("eve", node_id="another", **new), token("eve")))
    assert no.code == "not_member"
    assert "owner" in no.message


def test_a_new_device_with_the_token_and_the_same_tags_is_the_same_member() -> None:
    asked = Asked()
    member = asked.join("ci", login=None, tags=("tag:a", "tag:b"))
    back = asked.change(Return(device("ci-2", login=None, tags=("tag:b", "tag:a")), token("ci"))).member
    assert back
    assert back.id == member.id


@pytest.mark.parametrize("given", ["", token("nobody")])
def test_a_token_that_the_team_has_not_given_is_nobodys(asked: Asked, given: str) -> None:
    assert asked.refused(Return(device("ada"), given)).code == "not_member"


def test_a_return_with_the_same_device_changes_nothing(asked: Asked) -> None:
    change = asked.change(Return(device("ada"), token("ada")))
    assert change.events == ()
    assert change.member == asked.team.members[asked.ids["ada"]]


def test_a_device_is_one_member_alone(asked: Asked) -> None:
    no = asked.refused(Return(device("bob"), token("ada")))
    assert no.code == "taken"
    assert "member-3" in no.message
    asked.change(Remove("cc-bob"), LEAD)
    assert asked.refused(Return(device("bob"), token("ada"))).code == "removed"


def test_a_device_of_a_member_who_left_and_of_one_who_is_there_is_the_latters(asked: Asked) -> None:
    asked.change(Leave(), "ada")
    asked.change(Return(device("ada"), token("bob")))
    member = asked.team.of_node("nada")
    assert member
    assert member.id == asked.ids["bob"]
    asked.change(Remove("member-3"), LEAD)
    assert asked.refused(Join(device("ada"), token("x"))).code == "removed"


def test_who_left_is_not_removed_while_its_device_is_there_as_another_member(asked: Asked) -> None:
    asked.change(Leave(), "ada")
    asked.change(Return(device("ada"), token("bob")))
    refused = asked.refused(Remove(asked.ids["ada"]), LEAD)
    assert refused.code == "no_such_member"
    assert f"{asked.ids['ada']} has left, and its device is there as {asked.ids['bob']}" in refused.message


def test_the_lead_returns_with_the_device_that_it_has_now(asked: Asked) -> None:
    change = asked.change(Return(device("lead-2"), None))
    assert kinds(change) == ["lead_returned"]
    assert asked.team.members[LEAD].identity == device("lead-2")
    assert asked.team.members[LEAD].role == "lead"


def test_a_team_has_so_many_members_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cctailscale.teams.memberrules.MAX_MEMBERS", 3)
    asked = Asked("ada", "bob")
    assert asked.refused(Join(device("eve"), token("eve"))).code == "too_many"
    asked.change(Leave(), "bob")
    asked.join("eve")
    assert asked.refused(Join(device("bob"), token("bob"))).code == "too_many"


def test_who_left_longest_ago_is_forgotten_first_and_who_was_removed_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cctailscale.teams.memberrules.MAX_KNOWN_MEMBERS", 4)
    asked = Asked("removed", "first", "second")
    asked.change(Remove("cc-removed"), LEAD)
    asked.change(Leave(), "second")
    asked.change(Leave(), "first")
    assert asked.join("ada").id == "member-5"
    assert set(asked.team.members) == {"member-1", "member-2", "member-3", "member-5"}
    asked.join("bob")
    assert asked.refused(Join(device("eve"), token("eve"))).code == "too_many"
    assert asked.refused(Join(device("removed"), token("removed"))).code == "removed"


# Who may ask, and until when


@pytest.mark.parametrize("actor", [None, "", "member-99"])
def test_only_members_ask(asked: Asked, actor: str | None) -> None:
    for command in (Create(subject="Build"), Claim(), Leave(), Remove("cc-ada"), Disband()):
        assert asked.refused(command, actor).code == "not_member"


def test_nothing_can_be_asked_of_a_disbanded_team(asked: Asked) -> None:
    asked.create()
    assert kinds(asked.change(Disband(), LEAD)) == ["disbanded"]
    for command in (Claim(), Create(subject="Build"), Join(device("eve"), token("eve")), Disband(), Lapse({})):
        assert asked.refused(command, LEAD).code == "disbanded"
    assert "task-1" in asked.team.tasks


def test_what_a_refusal_quotes_is_one_printable_line(asked: Asked) -> None:
    eve = asked.join("eve", name="cc-eve\u202e" + "x" * 200)
    asked.task(Claim(task=asked.create()), eve.id)
    asked.task(Release(task="task-1", reason="y\u200b" * 250), LEAD)
    asked.task(Claim(task="task-1"), "ada")
    message = asked.refused(Complete(task="task-1"), eve.id).message
    assert message.isprintable()
    assert len(message) <= MAX_REFUSAL_CHARS


def test_a_refusal_is_of_a_readable_length_however_much_is_waited_for(asked: Asked) -> None:
    blockers = tuple(asked.create() for _ in range(model.MAX_BLOCKERS))
    asked.create(blocked_by=blockers)
    message = asked.refused(Claim(task="task-101"), "ada").message
    assert "task-5 (pending) and 95 more." in message


# How fast


def test_a_full_team_is_decided_on_fast_enough_for_every_member(asked: Asked) -> None:
    for number in range(MAX_TASKS):
        asked.create(priority=number % 7, blocked_by=(f"task-{number}",) if number % 4 == 3 else ())
    assert asked.refused(Create(subject="One more"), "ada").code == "too_many"
    start = time.process_time()
    for _ in range(100):
        task = asked.task(Claim(), "ada")
        asked.change(Complete(task=task.id), "ada")
    assert 200 / (time.process_time() - start) > 400


def test_a_team_takes_members_until_it_is_full() -> None:
    asked = Asked(*map(str, range(MAX_MEMBERS - 1)))
    assert asked.refused(Join(device("eve"), token("eve"))).code == "too_many"
    assert len(asked.team.members) == MAX_MEMBERS


def test_what_was_decided_on_is_not_altered(asked: Asked) -> None:
    asked.create()
    before = asked.team
    tasks, members = dict(before.tasks), dict(before.members)
    asked.change(Claim(task="task-1"), "ada")
    asked.change(Leave(), "ada")
    assert (dict(before.tasks), dict(before.members)) == (tasks, members)
