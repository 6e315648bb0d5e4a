"""Which events of a team are told, when, and in which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.agents.wire import Message
from cctailscale.errors import TeamEnded, plain
from cctailscale.teams import listing, news
from cctailscale.teams.commands import (
    Claim,
    Complete,
    Create,
    Delete,
    Lapse,
    Leave,
    Release,
    Remove,
    TaskCommand,
    Update,
)
from cctailscale.teams.membership import Queued
from tests.asked import LEAD, START, Asked
from tests.unit.test_team_properties import commands, members

ADA, BOB = "member-2", "member-3"
texts = st.text(max_size=300)
each_item = st.builds(
    news.Item,
    seq=st.integers(1, 10**9),
    text=texts.map(plain).filter(bool),
    urgent=st.booleans(),
    open=st.none() | st.just("task-1"),
)
items = st.lists(each_item, max_size=50)


def told(asked: Asked, you: str, after: int = 0) -> list[str]:
    """What the events past a version are to a member; what is urgent ends with an exclamation mark."""
    names = {member.id: member.identity.name for member in asked.team.members.values()}
    found = (news.item(event, you, LEAD, names) for event in asked.log if event.seq > after)
    return [f"{item.text}{'!' if item.urgent else ''}" for item in found if item is not None]


def since(asked: Asked, *work: tuple[object, str | None]) -> int:
    """Does that; the version before."""
    before = asked.team.facts.version
    for command, by in work:
        asked.change(command, by)  # type: ignore[arg-type]  # commands of several unions
    return before


def test_what_is_done_to_a_members_work_by_others_is_urgent_to_it_alone() -> None:
    asked = Asked("ada", "bob")
    ada = "cc-ada.tail1234.ts.net"
    lead = "cc-lead.tail1234.ts.net"
    before = since(asked, (Create(subject='The "one"'), LEAD), (Claim(task="task-1", owner=ADA), LEAD))
    assert told(asked, ADA, before) == [f"task-1 \"The 'one'\" was assigned to you by {lead}.!"]
    assert told(asked, BOB, before) == told(asked, LEAD, before) == []

    before = since(asked, (Update(task="task-1", priority=5), "bob"), (Release(task="task-1", reason="No."), LEAD))
    assert told(asked, ADA, before) == [
        "cc-bob.tail1234.ts.net has changed task-1 \"The 'one'\", which you had claimed.!",
        f'{lead} has released task-1 "The \'one\'", which you had claimed: "No.".!',
    ]
    before = since(asked, (Claim(task="task-1"), "ada"), (Lapse({ADA: "not heard of for 90 s"}), None))
    assert told(asked, ADA, before) == [
        'You have lost your claim on task-1 "The \'one\'": "not heard of for 90 s". It may be claimed again.!'
    ]
    before = since(asked, (Claim(task="task-1"), "ada"), (Delete(task="task-1"), LEAD))
    assert told(asked, ADA, before) == [f"{lead} has deleted task-1 \"The 'one'\", which you had claimed.!"]
    assert told(asked, BOB, before) == []
    before = since(asked, (Leave(), "ada"))
    assert told(asked, BOB, before) == [f"{ada} has left."]


def test_a_task_that_waits_no_more_is_urgent_to_its_owner_and_news_to_all() -> None:
    asked = Asked("ada", "bob")
    work: list[tuple[object, str | None]] = [
        (Create(subject="One"), LEAD),
        (Create(subject="Two", blocked_by=("task-1",)), LEAD),
        (Create(subject="Three"), LEAD),
        (Claim(task="task-3"), "bob"),
        (Update(task="task-3", blocked_by=("task-1",)), "bob"),
        (Claim(task="task-1"), "ada"),
        (Complete(task="task-1"), "ada"),
    ]
    before = since(asked, *work)
    assert told(asked, ADA, before) == ['task-2 "Two" can be claimed now.']
    assert told(asked, BOB, before) == [
        'task-2 "Two" can be claimed now.',
        'task-3 "Three", which you have claimed, waits for nothing any more.!',
    ]


def test_that_all_is_done_is_urgent_to_the_lead() -> None:
    asked = Asked("ada")
    before = since(asked, (Create(subject="One"), LEAD), (Claim(), "ada"), (Complete(task="task-1"), "ada"))
    assert told(asked, LEAD, before) == ["All tasks are completed.!"]
    assert told(asked, ADA, before) == ["All tasks are completed."]


def test_whoever_is_removed_has_no_team_any_more_and_nobody_else() -> None:
    asked = Asked("ada", "bob")
    since(asked, (Remove(ADA), LEAD))
    last = next(event for event in asked.log if event.kind == "member_removed")
    assert news.ended(last, ADA) == "goes on without this session: its lead has removed it"
    assert news.ended(last, BOB) is None
    assert told(asked, BOB)[-1] == "cc-ada.tail1234.ts.net was removed."


@given(work=st.lists(st.tuples(commands, members), max_size=30), you=members)
def test_nobody_is_told_what_it_did_itself_but_what_came_of_it(work: list[tuple[TaskCommand, str]], you: str) -> None:
    asked = Asked("ada", "bob", "cleo")
    for command, by in work:
        asked.ask(command, by)
    for event in asked.log:
        item = news.item(event, you, LEAD, {})
        if item is not None and event.by == you:
            assert event.kind in ("task_unblocked", "all_done")
        if item is not None and item.urgent:
            assert event.kind == "all_done" or (event.member is not None and event.member.id == you)


URGENT, QUIET = news.Item(1, "Yours.", urgent=True), news.Item(2, "Of others.")


@given(items=items, since_last=st.floats(0, 1e6))
def test_what_is_urgent_waits_some_seconds_after_the_last_of_a_burst_and_the_rest_a_minute(
    items: list[news.Item], since_last: float
) -> None:
    pace = news.Pace()
    for _ in range(news.URGENT_AT_ONCE):
        assert pace.wait([URGENT], 1e6) == 0
        pace.told([URGENT], 1e6)
    wait = pace.wait(items, 1e6 + since_last)
    if not items:
        assert wait is None
    elif any(item.urgent for item in items):
        assert wait == pytest.approx(max(0.0, news.URGENT_SECONDS - since_last))
    else:
        assert wait == pytest.approx(max(0.0, news.QUIET_SECONDS - since_last))


@given(offered=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200))
def test_however_events_come_messages_stay_below_a_burst_and_their_rate(offered: list[tuple[float, bool]]) -> None:
    """Whoever follows tells as soon as it may."""
    pace, now, urgent, quiet = news.Pace(), 0.0, 0, 0
    for passed, concerns in offered:
        now += passed
        if pace.wait([URGENT if concerns else QUIET], now) == 0:
            pace.told([URGENT if concerns else QUIET], now)
            urgent, quiet = urgent + concerns, quiet + (not concerns)
    assert urgent <= news.URGENT_AT_ONCE + now / news.URGENT_SECONDS
    assert quiet <= 1 + now / news.QUIET_SECONDS


def test_what_does_not_concern_the_agent_delays_nothing_that_does() -> None:
    pace = news.Pace()
    pace.told([QUIET], 100.0)
    assert pace.wait([QUIET], 101.0) == news.QUIET_SECONDS - 1
    assert pace.wait([QUIET, URGENT], 101.0) == 0


@given(team=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), name=texts, items=items, open_=st.booleans())
def test_a_message_has_what_is_urgent_first_and_always_fits(
    team: str, name: str, items: list[news.Item], open_: bool
) -> None:
    note = news.message(team, name, items, lambda _: open_)
    fresh = [item for item in items if item.open is None or open_]
    if not fresh:
        assert note is None
        return
    assert note is not None
    sent = Message.new(note.subject, note.body, id=note.id)
    assert sent.subject == note.subject
    lines = [line for line in note.body.split("\n") if line.startswith("- ")]
    assert len(lines) == min(len(fresh), news.MAX_LINES + 1)
    urgent = [item for item in fresh if item.urgent]
    assert lines[0] == f"- {(urgent or fresh)[0].text}"


@given(subject=texts, reason=texts)
def test_what_members_wrote_ends_no_quotation_and_begins_no_line(subject: str, reason: str) -> None:
    asked = Asked("ada")
    since(asked, (Create(subject="One"), LEAD), (Claim(), "ada"), (Release(task="task-1"), LEAD))
    event = asked.log[-1]
    assert event.task is not None
    hostile = event.model_copy(
        update={"task": event.task.model_copy(update={"subject": subject}), "reason": reason or None}
    )
    item = news.item(hostile, ADA, LEAD, {})
    assert item is not None
    assert plain(item.text, 10_000) == item.text  # one line, without characters that move others
    assert re.sub(r'"[^"]*"', "", item.text).count('"') == 0
    assert item.text.count('"') == (4 if reason else 2)


def test_the_same_news_have_the_same_id_and_others_another() -> None:
    items = [news.Item(7, "One."), news.Item(9, "Two.")]
    first = news.message("team-1", "Build", items, lambda _: True)
    assert first is not None
    assert first == news.message("team-1", "Build", items, lambda _: True)
    assert first.id == "team-1-9"
    other = news.message("x" * 64, "Build", items, lambda _: True)
    assert other is not None
    assert other.id != first.id


def test_what_became_of_a_call_that_was_kept_is_told() -> None:
    queued = Queued(id="one", command=Complete(task="task-3"), asked=START)
    done = news.outcome("team-1", "Build", queued, None)
    assert done.body.startswith("task-3, which you completed at 2026-11-25T09:30:00Z while the lead was offline, is")
    refused = news.outcome("team-1", "Build", queued, 'cc-bob has it.\n"Do as I say."')
    assert "could not be completed: \"cc-bob has it. 'Do as I say.'\"" in refused.body
    assert done.id == refused.id
    end = news.end("team-1", "Build", TeamEnded("Build", "was disbanded by its lead"), [queued])
    assert end.subject == 'Team "Build": It was disbanded by its lead'
    assert "was not sent: task-3." in end.body


def test_the_names_of_members_are_those_of_their_devices() -> None:
    asked = Asked("ada")
    row = listing.member_row(asked.team.members[ADA])
    (joined,) = [event for event in asked.log if event.kind == "member_joined"]
    assert joined.member == row
    item = news.item(joined, LEAD, LEAD, {ADA: row.identity.name})
    assert item == news.Item(joined.seq, "cc-ada.tail1234.ts.net has joined.")
