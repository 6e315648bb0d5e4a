"""A team's file: all of it comes back, changes are whole or not there, readers see it live, a bad file is kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import anyio
import anyio.to_thread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cctailscale.documents import MAX_DOCUMENT_BYTES
from cctailscale.errors import TeamUnusable
from cctailscale.teams import sqlite
from cctailscale.teams.model import MAX_DESCRIPTION_CHARS, Change, Entry, Event, Identity, Member, Task, Team
from cctailscale.teams.sqlite import SqliteStore, facts, read, reading
from cctailscale.teams.store import KEPT_ANSWER_BYTES, KEPT_EVENTS, Answered, AnsweredBefore, Moved
from tests import disk, teamstream
from tests.teamstream import BEGAN, LEAD, following, founded, history

# Of a few kilobytes each, as teamstream has them: there is room for these.
LAST_ANSWERS = 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "team.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """The file of a team that was just founded."""
    async with SqliteStore.opened(path) as store:
        await store.commit(founded())
        yield store


async def grow(store: SqliteStore, changes: int) -> Team:
    team = await store.load()
    for _ in range(changes):
        change, answered = following(team)
        await store.commit(change, answered)
        team = team.after(change)
    return team


async def make(path: Path, changes: int = 0) -> Team:
    """A whole file, closed."""
    async with SqliteStore.opened(path) as store:
        await store.commit(founded())
        return await grow(store, changes)


async def problem_with(path: Path) -> str:
    with pytest.raises(TeamUnusable) as refused:
        async with SqliteStore.opened(path):
            pass
    return str(refused.value)


def happens(number: int, at: datetime = BEGAN) -> Event:
    return Event(seq=number, at=at, kind="task_updated", by=LEAD.id)


# ---- what comes back


async def test_a_new_file_holds_no_team_until_one_is_founded(path: Path) -> None:
    async with SqliteStore.opened(path) as store:
        with pytest.raises(TeamUnusable, match="holds no team"):
            await store.load()
        assert facts(path) is None
        await store.commit(founded())
        assert await store.load() == Team(founded().facts, {LEAD.id: LEAD})
        assert facts(path) == founded().facts


@pytest.mark.parametrize("in_file", [True, False])
async def test_team_events_and_answers_come_back_as_they_were_committed(path: Path, in_file: bool) -> None:
    async with SqliteStore.opened(path if in_file else None) as store:
        events: list[Event] = []
        for team, change, answered in islice(history(), 120):  # more than are held: some are deleted
            await store.commit(change, answered)
            events += change.events
            assert (await store.load()).facts == team.facts
            if answered is not None:
                assert await store.answered(answered.member, answered.id) == answered
        assert await store.load() == team
        assert list((await store.load()).tasks) == list(team.tasks)
        assert await store.events(0, 10_000) == events
        assert await store.events(7, 5) == events[7:12]
        assert await store.events(len(events), 5) == []


async def test_what_was_committed_is_there_in_another_process_of_the_lead(path: Path) -> None:
    team = await make(path, 60)
    async with SqliteStore.opened(path) as store:
        assert await store.load() == team
        change, answered = following(team)
        await store.commit(change, answered)
        assert await store.answered(answered.member, answered.id) == answered


async def test_an_answer_may_be_about_no_task_and_belongs_to_its_member(store: SqliteStore) -> None:
    team = await store.load()
    change, answered = following(team)
    given_to = replace(answered, member="member-2", task=None)
    await store.commit(change, given_to)
    assert await store.answered("member-2", answered.id) == given_to
    assert await store.answered(LEAD.id, answered.id) is None
    assert await store.answered("member-2", "another") is None


async def test_a_command_that_was_answered_is_not_carried_out_again(store: SqliteStore) -> None:
    change, answered = following(await store.load())
    await store.commit(change, answered)
    team = await store.load()
    change, _ = following(team)
    with pytest.raises(AnsweredBefore) as repeated:
        await store.commit(change, replace(answered, digest=b"another"))
    assert repeated.value.answered == answered
    assert await store.load() == team


async def test_a_task_that_is_larger_than_a_document_may_be_as_it_travels_comes_back(store: SqliteStore) -> None:
    team = await store.load()
    change, _ = following(team)
    assert change.task is not None
    history = tuple(Entry(at=BEGAN, by=LEAD.id, what="released", reason="ä" * 500) for _ in range(50))
    long = {"description": "ä" * 10_000, "result": "\u3042" * 10_000, "history": history}
    large = change.task.model_copy(update=long)
    assert len(large.model_dump_json().encode()) > MAX_DOCUMENT_BYTES
    await store.commit(replace(change, tasks={large.id: large}))
    assert (await store.load()).tasks[large.id] == large


async def test_when_members_were_heard_of_is_kept_and_is_no_change(store: SqliteStore) -> None:
    before = await store.load()
    heard = datetime(2026, 11, 25, 10, 30, 0, 123456, tzinfo=UTC)
    await store.seen({LEAD.id: heard, "member-9": heard})
    after = await store.load()
    assert after.members == {LEAD.id: LEAD.model_copy(update={"last_seen": heard})}
    assert (after.facts, after.tasks) == (before.facts, before.tasks)
    assert await store.events(before.facts.version, 10) == []


names = st.text(max_size=20).filter(lambda text: not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in text))
lines = names.filter(lambda text: not {"\u2028", "\u2029"} & set(text))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
times = st.datetimes(timezones=st.just(UTC))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
member_ids = st.integers(1, 4).map(lambda number: f"member-{number}")
task_ids = st.integers(1, 6).map(lambda number: f"task-{number}")
entries = st.builds(Entry, at=times, by=st.none() | member_ids, reason=st.none() | lines)
identities = st.builds(
    Identity,
    node_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
    name=lines,
    login=st.none() | lines,
    tags=st.lists(lines, max_size=2).map(tuple),
)
members = st.builds(Member, id=member_ids, identity=identities, joined=times, last_seen=times, token=lines)
tasks = st.builds(
    Task,
    id=task_ids,
    subject=lines.filter(bool),
    description=texts,
    active_form=lines,
    owner=st.none() | member_ids,
    priority=st.integers(-1000, 1000),
    blocked_by=st.lists(task_ids, max_size=3).map(tuple),
    created_by=member_ids,
    result=st.none() | texts,
    metadata=st.dictionaries(texts, json_values, max_size=3),
    created=times,
    updated=times,
    claimed=st.none() | times,
    completed=st.none() | times,
    history=st.lists(entries, max_size=3).map(tuple),
    version=st.integers(1, 2**40),
)


def keyed(values: list[Member] | list[Task], gone: list[str]) -> Mapping[str, Member | Task | None]:
    return {**{value.id: value for value in values}, **dict.fromkeys(gone)}


steps = st.tuples(
    st.builds(keyed, st.lists(members, max_size=2), st.lists(member_ids, max_size=1)),
    st.builds(keyed, st.lists(tasks, max_size=3), st.lists(task_ids, max_size=2)),
    st.integers(1, 3),
    times,
)


@given(given_steps=st.lists(steps, max_size=6))
@settings(max_examples=60)
def test_any_changes_leave_the_team_that_a_fold_of_them_makes(given_steps: list[tuple[object, ...]]) -> None:
    async def commit_all(folder: Path) -> None:
        team, log = Team(founded().facts).after(founded()), list(founded().events)
        async with SqliteStore.opened(folder / "team.db") as store:
            await store.commit(founded())
            for changed_members, changed_tasks, count, at in given_steps:
                version = team.facts.version
                events = tuple(happens(version + number, at) for number in range(1, count + 1))  # type: ignore[operator, arg-type]
                moved = team.facts.model_copy(update={"version": version + len(events)})
                change = Change(version, moved, events, changed_members, changed_tasks)  # type: ignore[arg-type]
                await store.commit(change)
                team = team.after(change)
                log += events
                assert await store.load() == team
        async with SqliteStore.opened(folder / "team.db") as store:
            assert await store.load() == team
            assert await store.events(0, 1000) == log

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(commit_all, Path(folder))


# ---- compare and set


async def test_a_change_that_was_decided_on_another_version_is_refused_and_changes_nothing(store: SqliteStore) -> None:
    team = await store.load()
    change, answered = following(team)
    await store.commit(change, answered)
    now = await store.load()
    late, late_answered = following(team)
    for base in (team.facts.version, now.facts.version + 1, 0):
        with pytest.raises(Moved):
            await store.commit(replace(late, base=base), replace(late_answered, id="late"))
    assert await store.load() == now
    assert await store.answered(LEAD.id, "late") is None
    await store.commit(*following(now))


async def test_of_two_stores_on_one_file_the_second_to_commit_is_refused(path: Path, store: SqliteStore) -> None:
    team = await store.load()
    async with SqliteStore.opened(path) as other:
        change, answered = following(team)
        await other.commit(change, answered)
        with pytest.raises(Moved):
            await store.commit(change, answered)
        assert await store.load() == await other.load() == team.after(change)


async def test_a_change_whose_answer_cannot_be_stored_is_not_made(store: SqliteStore) -> None:
    team = await grow(store, 1)
    change, answered = following(team)
    with pytest.raises(TeamUnusable, match="cannot be used"):
        await store.commit(change, replace(answered, digest=cast("bytes", None)))
    assert await store.load() == team
    assert await store.events(team.facts.version, 10) == []
    await grow(store, 1)


# ---- what is kept


async def test_of_the_events_the_last_ten_thousand_are_kept(store: SqliteStore) -> None:
    team = await store.load()
    last = KEPT_EVENTS + 5
    moved = team.facts.model_copy(update={"version": last})
    await store.commit(Change(1, moved, tuple(happens(number) for number in range(2, last + 1))))
    kept = await store.events(5, KEPT_EVENTS + 1)
    assert kept is not None
    assert [event.seq for event in kept] == list(range(6, last + 1))
    for after in (0, 4):
        assert await store.events(after, 10) is None


async def test_whoever_has_seen_events_that_the_file_never_had_is_told_to_begin_anew(store: SqliteStore) -> None:
    """As after a power cut, which may take the last commits."""
    assert await store.events(2, 10) is None


def largest(team: Team) -> Task:
    """A task of letters that need the most room."""
    text = "\N{GRINNING FACE}" * MAX_DESCRIPTION_CHARS
    now = BEGAN
    return Task(
        id=f"task-{team.facts.next_task}",
        subject="Large",
        description=text,
        result=text,
        created_by=LEAD.id,
        created=now,
        updated=now,
    )


async def answer(store: SqliteStore, member: str, number: int, task: Task | None) -> None:
    """Commits a change and keeps an answer to the member."""
    facts = (await store.load()).facts
    version = facts.version + 1
    change = Change(facts.version, facts.model_copy(update={"version": version}), (happens(version),))
    await store.commit(change, Answered(member, f"command-{number}", b"digest", task, version))


async def known(store: SqliteStore, member: str, count: int) -> list[int]:
    """Which of a member's commands have their answers still."""
    numbers = range(1, count + 1)
    return [number for number in numbers if await store.answered(member, f"command-{number}")]


async def test_a_members_old_answers_make_room_for_its_new_ones_and_for_nobody_elses(store: SqliteStore) -> None:
    task = largest(await store.load())
    await answer(store, "member-3", 1, task)
    for number in range(1, 21):
        await answer(store, "member-2", number, task)
    assert await known(store, "member-2", 20) == list(range(14, 21))
    assert await known(store, "member-3", 1) == [1]
    kept = store._rows._db.execute("SELECT sum(length(CAST(task AS BLOB))) FROM answers").fetchone()[0]
    assert kept < 2 * KEPT_ANSWER_BYTES


async def test_answers_without_a_task_take_room_too(store: SqliteStore) -> None:
    for number in range(1, KEPT_ANSWER_BYTES // 256 + 101):
        await answer(store, "member-2", number, None)
    assert store._rows._db.execute("SELECT count(*) FROM answers").fetchone() == (KEPT_ANSWER_BYTES // 256,)


async def test_an_answer_that_is_larger_than_the_room_is_kept_until_the_next(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "KEPT_ANSWER_BYTES", 1)
    for number in (1, 2, 3):
        await answer(store, "member-2", number, None)
    assert await known(store, "member-2", 3) == [3]


@pytest.mark.parametrize("gone", ["left", "removed", None])
async def test_who_is_gone_has_no_answers(store: SqliteStore, gone: Literal["left", "removed"] | None) -> None:
    await answer(store, "member-2", 1, None)
    facts = (await store.load()).facts
    member = LEAD.model_copy(update={"id": "member-2", "gone": gone}) if gone else None
    next_facts = facts.model_copy(update={"version": facts.version + 1})
    await store.commit(Change(facts.version, next_facts, (happens(next_facts.version),), {"member-2": member}))
    assert await known(store, "member-2", 1) == []


async def test_a_commit_writes_what_has_changed_and_nothing_else(store: SqliteStore) -> None:
    async def steps_of_one() -> int:
        """Instructions of SQLite's own machine, in tens: a count that no other load changes."""
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        store._rows._db.set_progress_handler(step, 10)
        await grow(store, 1)
        store._rows._db.set_progress_handler(None, 0)
        return steps

    await grow(store, teamstream.HELD + 1)  # from here on each step deletes one as well
    loaded = await steps_of_one()
    await grow(store, 500)
    assert await steps_of_one() <= loaded + 2


# ---- cancellation


@pytest.mark.parametrize("by_asyncio", [False, True])
async def test_a_commit_that_is_cancelled_is_whole(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, by_asyncio: bool
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    real = store._rows.commit

    def slow(change: Change, answered: Answered | None) -> None:
        entered.set()
        assert go_on.wait(10)
        real(change, answered)

    monkeypatch.setattr(store._rows, "commit", slow)
    team = await store.load()
    change, answered = following(team)
    with anyio.fail_after(20):
        if by_asyncio:
            commit = asyncio.ensure_future(store.commit(change, answered))
            await anyio.to_thread.run_sync(entered.wait, 10)
            commit.cancel()
            await asyncio.gather(commit, return_exceptions=True)
            go_on.set()
        else:
            async with anyio.create_task_group() as cancelled:
                cancelled.start_soon(store.commit, change, answered)
                await anyio.to_thread.run_sync(entered.wait, 10)
                cancelled.cancel_scope.cancel()
                go_on.set()
    assert await store.load() == team.after(change)
    assert await store.answered(answered.member, answered.id) == answered


async def test_what_is_asked_while_a_commit_runs_waits_for_it(store: SqliteStore) -> None:
    team = await store.load()
    change, answered = following(team)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.commit, change, answered)
        await anyio.lowlevel.checkpoint()
        assert await store.load() == team.after(change)


# ---- crashes


@contextlib.contextmanager
def lead(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A lead in a process of its own, which commits one change after the other and says each version."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent.parent), *sys.path])}
    command = [sys.executable, "-m", "tests.teamstream", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


def says_something(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], 30)
    assert readable, "the lead said nothing within 30 s"


@pytest.mark.parametrize("seed", range(4))
async def test_after_a_kill_state_events_and_answers_are_those_of_whole_changes(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    changes = history()
    log: list[Event] = []
    answers: list[Answered] = []
    before = 0
    for _ in range(5):
        with lead(path) as process:
            says_something(process)
            time.sleep(chance.random() * 0.15)  # noqa: ASYNC251 - nothing else runs here; a kill at any moment
            process.kill()
            process.wait(10)
            assert process.stdout is not None
            said = int(process.stdout.read().splitlines()[-1])
        async with SqliteStore.opened(path) as store:
            version = (await store.load()).facts.version
            assert version >= said > before
            for team, change, answered in changes:
                log += change.events
                answers += [answered] if answered is not None else []
                if team.facts.version >= version:
                    break
            assert await store.load() == team
            for answered in answers[-LAST_ANSWERS:]:
                assert await store.answered(answered.member, answered.id) == answered
            kept = await store.events(max(0, len(log) - KEPT_EVENTS), KEPT_EVENTS)
            assert kept == log[-KEPT_EVENTS:]
            assert version - said <= len(change.events)  # at most one was committed and not yet said
            _, unanswered = following(team)
            assert await store.answered(unanswered.member, unanswered.id) is None
            before = version


# ---- a look from another process


async def test_a_reader_sees_the_team_live_while_its_lead_in_another_process_commits(path: Path) -> None:
    with lead(path) as process:
        says_something(process)
        with reading(path) as file:
            stamps: set[int] = set()
            versions: list[int] = []
            deadline = time.monotonic() + 20
            while len(versions) < 5 and time.monotonic() < deadline:
                stamp = file.stamp()
                if stamp not in stamps:
                    stamps.add(stamp)
                    team = file.team()
                    versions.append(team.facts.version)
                    assert len(team.tasks) == min(team.facts.next_task - 1, teamstream.HELD)  # whole
            assert len(versions) == 5
            assert versions == sorted(set(versions))


async def test_a_stamp_changes_with_the_file_alone(path: Path, store: SqliteStore) -> None:
    with reading(path) as file:
        first = file.stamp()
        assert file.stamp() == first
        await grow(store, 1)
        second = file.stamp()
        assert second != first
        assert file.team() == await store.load()
        assert file.stamp() == second
        await store.seen({LEAD.id: BEGAN + timedelta(hours=1)})
        assert file.stamp() != second
        assert file.team().members[LEAD.id].last_seen == BEGAN + timedelta(hours=1)


async def test_a_reader_that_looks_for_long_does_not_hold_up_the_lead(path: Path, store: SqliteStore) -> None:
    with reading(path) as file:
        file._rows._db.execute("BEGIN")
        before = file._rows.facts()
        team = await grow(store, 5)
        assert file._rows.facts() == before
        file._rows._db.execute("COMMIT")
        assert file.team() == team


async def test_reading_needs_no_lead_and_writes_nothing(path: Path) -> None:
    team = await make(path, 3)
    before = path.read_bytes()
    assert read(path) == team
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [None, b""])
async def test_a_file_without_a_team_is_a_clear_error_to_a_reader(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    assert facts(path) is None
    with pytest.raises(TeamUnusable):
        read(path)
    assert path.exists() == (content is not None)


# ---- a file that cannot be used


async def test_the_file_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SqliteStore.opened(path) as store:
            await store.commit(founded())
            assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize("how", ["garbage", "scribbled", "cut"])
async def test_a_damaged_file_is_kept_where_it_is_with_its_log(path: Path, how: str) -> None:
    await make(path, 100)
    content = path.read_bytes()
    match how:
        case "garbage":
            content = b"this is no database" * 300
        case "scribbled":
            pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
            content = b"".join([pages[0], *(b"\xa5" * 64 + page[64:] for page in pages[1:])])
        case "cut":
            content = content[: 3 * 4096]
    path.write_bytes(content)
    log = path.with_name("team.db-wal")
    log.write_bytes(b"its log")
    assert "is damaged. " in await problem_with(path)
    for look in (read, facts):
        with pytest.raises(TeamUnusable, match="is damaged"):
            look(path)
    assert path.read_bytes() == content
    assert log.read_bytes() == b"its log"


async def test_what_a_killed_lead_left_in_the_log_is_not_written_into_a_damaged_file(path: Path) -> None:
    await make(path, 100)
    with lead(path) as process:
        says_something(process)
    content = b"this is no database" * 300
    path.write_bytes(content)
    log = path.with_name("team.db-wal").read_bytes()
    assert log
    assert "is damaged. " in await problem_with(path)
    assert path.read_bytes() == content
    assert path.with_name("team.db-wal").read_bytes() == log


@pytest.mark.parametrize(
    "spoiling",
    [
        "UPDATE team SET document = '{}'",
        "UPDATE tasks SET document = replace(document, 'pending', 'perhaps')",
        "UPDATE members SET document = 'no json'",
    ],
)
async def test_a_document_in_the_file_that_is_not_sound_is_damage(path: Path, spoiling: str) -> None:
    await make(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(spoiling)
    async with SqliteStore.opened(path) as store:
        with pytest.raises(TeamUnusable, match="is damaged"):
            await store.load()


async def test_a_file_of_a_later_version_is_left_as_it_is(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as later:
        later.execute("CREATE TABLE team (something TEXT)")
        later.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    assert "was written by a later version of cc-tailscale. " in await problem_with(path)
    for look in (read, facts):
        with pytest.raises(TeamUnusable, match="Update cc-tailscale"):
            look(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["team.db"]


async def test_a_folder_that_is_not_there_or_in_the_way_is_a_clear_error(path: Path) -> None:
    assert "cannot be opened (No such file or directory)" in await problem_with(path.parent / "none" / "team.db")
    path.mkdir()
    assert "cannot be opened (Is a directory)" in await problem_with(path)


async def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    assert "cannot be opened" in await problem_with(path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk.small_disk(tmp_path / "small", "512k") as folder:
        yield folder


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


async def test_on_a_full_disk_nothing_is_changed_and_with_room_it_goes_on(small_disk: Path) -> None:
    path = small_disk / "team.db"
    async with SqliteStore.opened(path) as store:
        await store.commit(founded())
        filler = small_disk / "filler"
        filler.write_bytes(bytes(256 * 1024))
        committed = [await store.load()]

        async def fill() -> None:
            for _ in range(1000):
                change, answered = following(committed[-1])
                await store.commit(change, answered)
                committed.append(committed[-1].after(change))

        with pytest.raises(TeamUnusable, match="is on a full disk") as full:
            await fill()
        assert "Make room" in str(full.value)
        assert len(committed) > 3
        assert await store.load() == committed[-1]
        change, answered = following(committed[-1])
        assert await store.answered(answered.member, answered.id) is None
        assert await store.events(committed[-1].facts.version, 10) == []
        filler.unlink()
        await store.commit(change, answered)
    async with SqliteStore.opened(path) as store:
        assert await store.load() == committed[-1].after(change)


async def test_a_disk_that_can_only_be_read_is_a_clear_error_and_nothing_is_lost(small_disk: Path) -> None:
    path = small_disk / "team.db"
    team = await make(path, 3)
    remount(small_disk, "ro")
    assert "cannot be opened (Read-only file system)" in await problem_with(path)
    remount(small_disk, "rw")
    assert read(path) == team


async def test_a_folder_without_the_right_to_write_is_a_clear_error(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user may write everywhere")
        assert "cannot be opened (Permission denied)" in await problem_with(path)
    finally:
        path.parent.chmod(0o700)


async def test_a_closed_store_says_so(path: Path) -> None:
    async with SqliteStore.opened(path) as store:
        await store.commit(founded())
    with pytest.raises(TeamUnusable, match="cannot be used"):
        await store.load()
