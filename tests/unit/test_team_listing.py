"""A team as it is shown: the list of tasks, page by page, and whom a name means."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cctailscale.teams import listing
from cctailscale.teams.commands import Claim, Complete, Create, Delete, Leave, Release, Remove, Update
from cctailscale.teams.model import EXCERPT_CHARS, MAX_TASKS, Member, Refused
from cctailscale.teams.wire import MAX_ROWS, TaskPage, TaskQuery
from tests.asked import LEAD, Asked


@pytest.fixture
def asked() -> Asked:
    return Asked("ada", "bob")


def page(asked: Asked, cursor: str | None = None, **query: Any) -> TaskPage:
    found = listing.page(asked.team, TaskQuery(cursor=cursor, **query), LEAD)
    assert isinstance(found, TaskPage), found
    return found


def shown(asked: Asked, **query: Any) -> list[str]:
    return [row.id for row in page(asked, **query).rows]


# Rows


def test_a_row_tells_what_the_task_waits_for_and_what_waits_for_it(asked: Asked) -> None:
    for blocked_by in ((), (), ("task-1", "task-2")):
        asked.create(blocked_by=blocked_by)
    asked.done("task-1", "ada")
    rows = {row.id: row for row in page(asked).rows}
    assert (rows["task-3"].blocked_by, rows["task-3"].waits_for) == (("task-1", "task-2"), ("task-2",))
    assert (rows["task-1"].blocks, rows["task-2"].blocks, rows["task-3"].blocks) == (("task-3",), ("task-3",), ())
    assert (rows["task-1"].completed_by, rows["task-1"].result) == (asked.ids["ada"], "Done.")


@pytest.mark.parametrize(
    ("text", "excerpt"),
    [
        ("", ""),
        ("two\n  lines\t", "two lines"),
        ("x" * EXCERPT_CHARS, "x" * EXCERPT_CHARS),
        ("x" * (EXCERPT_CHARS + 1), "x" * (EXCERPT_CHARS - 1) + "…"),
        ("a" + " " * 9_000 + "b", "a…"),
    ],
)
def test_a_long_text_is_cut_to_one_line(asked: Asked, text: str, excerpt: str) -> None:
    asked.create(description=text)
    asked.task(Complete(task="task-1", result=text), LEAD)
    row = page(asked).rows[0]
    assert (row.description, row.result) == (excerpt, excerpt)


# The order of the list


def test_the_list_has_what_is_in_progress_then_claimable_then_blocked_then_completed(asked: Asked) -> None:
    done, blocker, claimed, high = (asked.create(priority=priority) for priority in (9, 0, -3, 5))
    blocked = asked.create(priority=8, blocked_by=(blocker,))
    asked.done(done, "ada")
    asked.task(Claim(task=claimed), "bob")
    assert shown(asked) == [claimed, high, blocker, blocked, done]


def test_what_can_be_claimed_stands_in_the_order_of_claiming(asked: Asked) -> None:
    for number in range(12):
        asked.create(priority=number % 3)
    listed = shown(asked)
    assert listed == [asked.task(Claim(), "ada").id for _ in listed]


# What is asked for


def test_a_list_can_be_of_one_status_of_one_owner_or_of_what_can_be_claimed(asked: Asked) -> None:
    for _ in range(4):
        asked.create()
    asked.create(blocked_by=("task-2",))
    asked.done("task-1", "ada")
    asked.task(Claim(task="task-2"), "ada")
    asked.task(Claim(task="task-3"), "bob")
    assert shown(asked, status="pending") == ["task-4", "task-5"]
    assert shown(asked, unblocked_only=True) == ["task-4"]
    assert shown(asked, owner="cc-ada") == ["task-2", "task-1"]
    assert shown(asked, owner="cc-ada", status="in_progress") == ["task-2"]
    assert shown(asked, owner=LEAD) == []


def test_whoever_asks_is_me(asked: Asked) -> None:
    asked.task(Claim(task=asked.create()), "ada")
    for you, found in ((asked.ids["ada"], 1), (LEAD, 0)):
        answer = listing.page(asked.team, TaskQuery(owner="me"), you)
        assert isinstance(answer, TaskPage)
        assert len(answer.rows) == found


def test_a_list_of_an_owner_whom_nobody_knows_is_refused(asked: Asked) -> None:
    no = listing.page(asked.team, TaskQuery(owner="cc-eve"), LEAD)
    assert isinstance(no, Refused)
    assert (no.code, "cc-eve" in no.message) == ("no_such_member", True)


def test_a_page_names_everybody_whom_its_rows_name(asked: Asked) -> None:
    eve = asked.join("eve")
    asked.create(by=eve.id)
    asked.change(Leave(), eve.id)
    asked.done("task-1", "ada")
    assert page(asked).members == {eve.id: "cc-eve.tail1234.ts.net", asked.ids["ada"]: "cc-ada.tail1234.ts.net"}


def test_a_page_does_without_the_name_of_somebody_who_was_forgotten(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cctailscale.teams.memberrules.MAX_KNOWN_MEMBERS", 4)
    eve = asked.join("eve")
    asked.create(by=eve.id)
    asked.change(Leave(), eve.id)
    asked.join("joe")
    assert (page(asked).rows[0].created_by, page(asked).members) == (eve.id, {})


# Pages


def pages(asked: Asked, limit: int) -> list[str]:
    found = page(asked, limit=limit)
    listed = [row.id for row in found.rows]
    while found.cursor:
        found = page(asked, found.cursor, limit=limit)
        listed += [row.id for row in found.rows]
    return listed


@pytest.mark.parametrize("limit", [1, 3, 5, 10, MAX_ROWS])
def test_the_pages_together_are_the_list(asked: Asked, limit: int) -> None:
    for number in range(10):
        asked.create(priority=-number)
    asked.done("task-3", "ada")
    asked.task(Claim(task="task-4"), "bob")
    assert pages(asked, limit) == shown(asked)


def test_the_last_page_has_no_cursor(asked: Asked) -> None:
    for _ in range(4):
        asked.create()
    assert page(asked, page(asked, limit=2).cursor, limit=2).cursor is None


def test_a_task_that_moves_on_after_it_was_shown_is_not_shown_again(asked: Asked) -> None:
    for _ in range(6):
        asked.create()
    asked.task(Claim(task="task-1"), "ada")
    first = page(asked, limit=2)
    assert [row.id for row in first.rows] == ["task-1", "task-2"]
    asked.task(Complete(task="task-1"), "ada")
    asked.task(Update(task="task-2", priority=-5), "ada")
    second = page(asked, first.cursor, limit=10)
    assert [row.id for row in second.rows] == ["task-3", "task-4", "task-5", "task-6"]
    assert (second.total, second.changed) == (6, 2)


def test_a_page_begins_after_the_one_before_though_its_last_row_is_gone(asked: Asked) -> None:
    for _ in range(4):
        asked.create()
    cursor = page(asked, limit=2).cursor
    asked.change(Delete(task="task-2"), LEAD)
    asked.task(Claim(task="task-1"), "ada")
    asked.task(Release(task="task-1"), "ada")
    assert shown(asked, cursor=cursor) == ["task-3", "task-4"]


@pytest.mark.parametrize("cursor", ["", "x", "1.1.1", "1.9.0.1", "1.1.0." + "9" * 5000, "\u0661.1.0.1", "1.1.0.1\n"])
def test_a_cursor_that_no_page_had_is_refused(asked: Asked, cursor: str) -> None:
    no = listing.page(asked.team, TaskQuery(cursor=cursor), LEAD)
    assert isinstance(no, Refused)
    assert no.code == "no_such_page"


def test_a_page_of_the_longest_texts_fits_and_the_next_goes_on(asked: Asked) -> None:
    wide = "\U0001f680" * 200
    blockers = tuple(asked.create() for _ in range(100))
    for _ in range(MAX_ROWS):
        asked.task(
            Create(subject=wide, description=wide, active_form=wide, blocked_by=blockers, metadata={"k": wide}), "ada"
        )
    first = page(asked, limit=MAX_ROWS)
    assert len(first.rows) < MAX_ROWS
    assert len(first.to_json()) <= TaskPage.max_bytes
    assert pages(asked, MAX_ROWS) == [f"task-{number}" for number in range(1, 301)]


def test_a_page_of_a_full_team_is_made_in_a_few_milliseconds(asked: Asked) -> None:
    for number in range(MAX_TASKS):
        asked.create(description="x" * 1000, blocked_by=(f"task-{number}",) if number % 3 == 2 else ())
    start = time.process_time()
    for _ in range(10):
        page(asked, status="pending")
    assert (time.process_time() - start) / 10 < 0.050


# Members


def test_a_view_has_those_who_are_there_and_how_far_the_tasks_are(asked: Asked) -> None:
    for _ in range(3):
        asked.create()
    asked.create(blocked_by=("task-3",))
    asked.done("task-1", "ada")
    asked.task(Claim(task="task-2"), "ada")
    asked.change(Remove("cc-bob"), LEAD)
    view = listing.view(asked.team, asked.ids["ada"], 90.0)
    assert view.counts.model_dump() == {"pending": 2, "unblocked": 1, "in_progress": 1, "completed": 1}
    assert [member.id for member in view.members] == [LEAD, asked.ids["ada"]]
    assert (view.you, view.lead, view.lease_seconds, view.version) == (
        asked.ids["ada"],
        LEAD,
        90.0,
        asked.team.facts.version,
    )


@pytest.mark.parametrize(
    "name",
    ["member-2", "cc-ada", "CC-ADA", "cc-ada.tail1234.ts.net", "cc-ada.tail1234.ts.net.", "Cc-Ada.Tail1234.ts.net"],
)
def test_a_member_is_meant_by_id_full_or_short_name(asked: Asked, name: str) -> None:
    found = listing.resolve(asked.team, name)
    assert isinstance(found, Member)
    assert found.id == asked.ids["ada"]


@pytest.mark.parametrize("name", ["", ".", "ada", "cc-ada.other.ts.net", "member-9", "cc-ada.tail1234"])
def test_nobody_is_meant_by_any_other_name(asked: Asked, name: str) -> None:
    no = listing.resolve(asked.team, name)
    assert isinstance(no, Refused)
    assert no.code == "no_such_member"


def test_a_short_name_of_two_members_is_refused_with_both(asked: Asked) -> None:
    other = asked.join("ada-2", name="cc-ada.tail9.ts.net")
    no = listing.resolve(asked.team, "cc-ada")
    assert isinstance(no, Refused)
    assert "cc-ada.tail1234.ts.net (member-2), cc-ada.tail9.ts.net (member-4): give the id" in no.message
    found = listing.resolve(asked.team, "cc-ada.tail9.ts.net")
    assert isinstance(found, Member)
    assert found.id == other.id


def test_who_is_there_is_meant_before_who_is_gone(asked: Asked) -> None:
    asked.change(Leave(), "ada")
    gone = listing.resolve(asked.team, "cc-ada")
    assert isinstance(gone, Member)
    assert gone.gone == "left"
    new = asked.join("ada-2", name="cc-ada.tail1234.ts.net")
    found = listing.resolve(asked.team, "cc-ada")
    assert isinstance(found, Member)
    assert found.id == new.id
