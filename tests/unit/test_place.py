"""Where inboxes lie, who finds one again, and when it goes."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from cctailscale import naming, statedir
from cctailscale.agents import place
from cctailscale.agents.inbox import DATABASE, Inbox
from cctailscale.agents.policy import Principal
from cctailscale.agents.wire import Message
from cctailscale.config import Settings
from cctailscale.errors import InboxUnusable
from cctailscale.tailnet.session import Session

BOB = Principal("n2", "cc-bob-app-3c4d.tail1234.ts.net", "bob@example.com")
WEEK = 7 * 24 * 60 * 60


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


def session(root: Path, name: str | None = "session-1", project: str = "/src/app", **others: object) -> Settings:
    return Settings(state_dir=root, session_id=name, project_dir=Path(project), user="ada").model_copy(update=others)


async def receive(settings: Settings, name: str = "m1") -> Path:
    """A session that gets a message and ends; where it was kept."""
    async with Inbox.claimed(settings) as inbox:
        await inbox.put(BOB, Message.new("Build", "is green", id=name))
        (held,) = held_by(settings)
        return held


def held_by(settings: Settings) -> list[Path]:
    return [path.parent for path in (settings.state_dir / place.FOLDER).glob(f"*/{DATABASE}")]


async def found_by(settings: Settings) -> list[str]:
    async with Inbox.claimed(settings) as inbox:
        return [received.id for received in await inbox.unread(20)]


def age(directory: Path, seconds: float) -> None:
    """As if the inbox had been used last so long ago."""
    record = directory / "session.json"
    then = time.time() - seconds
    text = record.read_text()
    used = statedir._parse_record(text.encode())
    assert used is not None
    record.write_text(text.replace(str(used.last_used), str(then)))
    for entry in directory.iterdir():
        os.utime(entry, (then, then))


# ---- who finds it again


async def test_an_empty_inbox_goes_with_a_session_that_is_cancelled_too(root: Path) -> None:
    opened = anyio.Event()

    async def live() -> None:
        async with Inbox.claimed(session(root)):
            opened.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        await opened.wait()
        tasks.cancel_scope.cancel()
    assert list((root / place.FOLDER).iterdir()) == []


async def test_the_same_session_finds_its_messages_again_and_no_other_does(root: Path) -> None:
    await receive(session(root))
    assert await found_by(session(root, "session-2")) == []
    assert await found_by(session(root, None)) == []
    assert await found_by(session(root, control_url="https://headscale.example.com")) == []
    assert await found_by(session(root, project="/src/other")) == ["m1"]  # a session may change its folder
    assert await found_by(session(root)) == ["m1"]


async def test_without_a_session_id_and_for_kept_devices_it_is_the_project_that_finds_them(root: Path) -> None:
    await receive(session(root, None))
    assert await found_by(session(root, None)) == ["m1"]
    assert await found_by(session(root, None, project="/src/other")) == []
    assert await found_by(session(root, "session-7", ephemeral=False)) == ["m1"]


async def test_it_outlives_the_sessions_own_directory(root: Path) -> None:
    settings = session(root)
    own = Session.claim(settings)
    await receive(settings)
    own.end()  # the node has logged out
    assert [entry.name for entry in root.iterdir()] == [place.FOLDER]
    assert await found_by(settings) == ["m1"]


async def test_two_living_processes_of_one_session_never_share_one(root: Path) -> None:
    async with Inbox.claimed(session(root)) as one, Inbox.claimed(session(root)) as other:
        await one.put(BOB, Message.new("s", "b", id="one"))
        assert await other.unread(20) == []
        await other.put(BOB, Message.new("s", "b", id="other"))
        assert len(held_by(session(root))) == 2
    async with Inbox.claimed(session(root)) as one, Inbox.claimed(session(root)) as other:
        assert sorted([(await one.unread(20))[0].id, (await other.unread(20))[0].id]) == ["one", "other"]


async def test_what_else_a_session_keeps_beside_its_messages_keeps_the_folder(root: Path) -> None:
    async with Inbox.claimed(session(root)) as inbox:
        (inbox.folder / "membership.json").write_text("{}")
    (held,) = held_by(session(root))
    async with Inbox.claimed(session(root)) as inbox:
        assert inbox.folder == held
        (held / "membership.json").unlink()
    assert held_by(session(root)) == []


async def test_an_inbox_with_nothing_in_it_leaves_nothing_behind(root: Path) -> None:
    async with Inbox.claimed(session(root)):
        assert len(held_by(session(root))) == 1
    assert list((root / place.FOLDER).iterdir()) == []


async def test_what_a_damaged_inbox_left_stays_as_long_as_an_inbox_would(root: Path) -> None:
    directory = await receive(session(root))
    (directory / DATABASE).write_bytes(b"this is no database" * 300)
    async with Inbox.claimed(session(root)):
        pass
    assert (directory / f"{DATABASE}.damaged-1").exists()
    age(directory, WEEK + 60)
    for file in directory.iterdir():
        os.utime(file, (0, 0))
    await place.sweep(session(root, "another"))
    assert not directory.exists()


async def test_it_is_its_owners_alone(root: Path) -> None:
    directory = await receive(session(root))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (root, root / place.FOLDER, directory)}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize("spoil", ["link", "open to others", "a file"])
async def test_a_place_that_others_could_have_made_is_refused(root: Path, tmp_path: Path, spoil: str) -> None:
    root.mkdir(mode=0o700)
    folder = root / place.FOLDER
    match spoil:
        case "link":
            (tmp_path / "elsewhere").mkdir(mode=0o777)
            (tmp_path / "elsewhere").chmod(0o777)
            folder.symlink_to(tmp_path / "elsewhere")
        case "open to others":
            folder.mkdir()
            folder.chmod(0o777)
        case "a file":
            folder.write_text("")
    with pytest.raises(InboxUnusable, match=r"The inbox .*(can be changed by other users|is not a folder)"):
        await found_by(session(root))


# ---- when it goes


async def test_after_a_week_without_its_session_it_is_removed(root: Path) -> None:
    old = await receive(session(root, "old"))
    age(old, WEEK + 60)
    async with Inbox.claimed(session(root, "young")) as inbox:
        await inbox.put(BOB, Message.new("s", "b"))
        (young,) = [path for path in held_by(session(root)) if path != old]
    age(young, WEEK - 60)
    await place.sweep(session(root, "any"))
    assert held_by(session(root)) == [young]


def test_a_clock_says_when_the_week_is_over(root: Path) -> None:
    with place.claim(session(root)) as claimed:
        pass
    used = max(claimed.record.last_used, *(entry.stat().st_mtime for entry in claimed.path.iterdir()))
    statedir.sweep_unused(root / place.FOLDER, used - 1)
    assert claimed.path.exists()
    statedir.sweep_unused(root / place.FOLDER, used + 1)
    assert not claimed.path.exists()


async def test_taking_it_up_begins_the_week_anew(root: Path) -> None:
    directory = await receive(session(root))
    age(directory, WEEK + 60)
    assert await found_by(session(root)) == ["m1"]
    await place.sweep(session(root))
    assert held_by(session(root)) == [directory]


async def test_a_session_that_is_alive_keeps_it_however_long_it_is_idle(root: Path) -> None:
    async with Inbox.claimed(session(root)) as inbox:
        await inbox.put(BOB, Message.new("s", "b", id="m1"))
        (directory,) = held_by(session(root))
        age(directory, 2 * WEEK)
        await place.sweep(session(root, "another"))
        assert [received.id for received in await inbox.take(20)] == ["m1"]
    assert directory.exists()


async def test_the_week_begins_when_the_session_ends_and_not_when_it_began(root: Path) -> None:
    directory = await receive(session(root))
    async with Inbox.claimed(session(root)):
        age(directory, 2 * WEEK)  # nothing came in since
    await place.sweep(session(root, "another"))
    assert await found_by(session(root)) == ["m1"]


async def test_a_session_that_was_killed_after_more_than_a_week_keeps_its_messages(root: Path) -> None:
    directory = await receive(session(root))
    age(directory, WEEK + 60)  # it was taken up then, and wrote that down; killed, it did not write its end down
    os.utime(directory / DATABASE)
    await place.sweep(session(root, "another"))
    assert await found_by(session(root)) == ["m1"]


async def test_a_sweep_that_fails_is_told_and_stops_nothing(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    await place.sweep(session(root))  # there is nothing yet
    root.mkdir(mode=0o700)
    (root / place.FOLDER).mkdir()
    (root / place.FOLDER).chmod(0o777)
    with caplog.at_level(logging.INFO):
        await place.sweep(session(root))
    assert "old inboxes stay for now" in caplog.text


async def test_a_sweep_removes_an_old_inbox_whatever_lies_in_it(root: Path) -> None:
    old = await receive(session(root, "old"))
    age(old, WEEK + 60)
    (old / "link").symlink_to(root / "nowhere")
    os.utime(old / "link", (0, 0), follow_symlinks=False)
    await place.sweep(session(root))
    assert held_by(session(root)) == []


async def test_a_sweep_that_a_disk_fails_stops_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = await receive(session(root, "old"))
    age(old, WEEK + 60)

    listed = Path.iterdir

    def fails(folder: Path) -> Iterator[Path]:
        if folder.name == old.name:
            raise OSError(5, "Input/output error")
        return iter(listed(folder))

    with monkeypatch.context() as broken, caplog.at_level(logging.INFO):
        broken.setattr(Path, "iterdir", fails)
        await place.sweep(session(root))
    assert "old inboxes stay for now" in caplog.text


# ---- beside the directories of sessions


async def test_the_sweep_of_sessions_leaves_inboxes_alone(root: Path) -> None:
    directory = await receive(session(root))
    age(directory, 2 * WEEK)
    assert statedir.abandoned(root) == []
    assert directory.exists()


@pytest.mark.parametrize("hostname", ["inboxes", "inbox"])
async def test_no_sessions_directory_is_taken_for_the_inboxes(root: Path, hostname: str) -> None:
    settings = session(root, hostname=hostname)
    assert naming.base_label("ada", "app", hostname) == hostname
    own = Session.claim(settings)
    assert own.hostname.startswith(f"{hostname}-")
    directory = await receive(settings)
    assert directory.parent == root / place.FOLDER
    own.end()
    await place.sweep(settings)
    assert [entry.name for entry in root.iterdir()] == [place.FOLDER]
    assert await found_by(settings) == ["m1"]
