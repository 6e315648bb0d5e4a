"""Where teams lie, who may go on with one, and when it goes."""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cctailscale import statedir
from cctailscale.config import Settings
from cctailscale.errors import LedElsewhere, NoSuchTeam, TeamUnusable
from cctailscale.teams import places
from cctailscale.teams.keys import SEED_BYTES
from cctailscale.teams.model import Change, Facts
from cctailscale.teams.places import Place
from cctailscale.teams.sqlite import SqliteStore, read
from tests.teamstream import founded

MONTH = 30 * 24 * 60 * 60

# A lead in a process of its own, which goes on with a team until it is told to end.
LEAD = """
import sys
from pathlib import Path
from cctailscale.config import Settings
from cctailscale.teams import places
place = places.find(Settings(state_dir=Path(sys.argv[1]), user="ada"), "build")
print(place.id, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


def session(root: Path, **others: object) -> Settings:
    return Settings(state_dir=root, user="ada").model_copy(update=others)


async def found(place: Place, name: str = "build") -> Facts:
    """Commits the founding of a team."""
    change = founded()
    facts = change.facts.model_copy(update={"id": place.id, "name": name, "public_key": place.key.public})
    async with SqliteStore.opened(place.database) as store:
        await store.commit(Change(0, facts, change.events, change.members))
    return facts


async def made(settings: Settings, name: str = "build") -> str:
    """A team that was created, and that nobody leads now; its id."""
    with places.create(settings, name) as place:
        await found(place, name)
        return place.id


@contextmanager
def another_lead(root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", LEAD, str(root)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


def folder(root: Path, team: str) -> Path:
    return root / places.FOLDER / team


def teams(root: Path) -> set[str]:
    return {path.name for path in (root / places.FOLDER).iterdir()}


def age(directory: Path, seconds: float) -> None:
    """As if the team had been led last so long ago."""
    record = directory / "session.json"
    then = time.time() - seconds
    used = statedir._parse_record(record.read_bytes())
    assert used is not None
    record.write_text(record.read_text().replace(str(used.last_used), str(then)))
    for entry in directory.iterdir():
        os.utime(entry, (then, then))


# ---- a new one


async def test_a_new_team_has_a_directory_of_its_own_by_its_id(root: Path) -> None:
    with places.create(session(root), "build") as place:
        assert re.fullmatch(r"team-[0-9a-f]{28}-[0-9a-f]{4}", place.id)
        assert (await found(place)).id == place.id  # is an id as documents take it
        assert place.database == folder(root, place.id) / "team.db"
        assert read(place.database).facts.public_key == place.key.public
        with places.create(session(root), "build") as another:
            assert another.id != place.id
            assert another.key.seed != place.key.seed


async def test_key_and_directories_are_their_owners_alone(root: Path) -> None:
    before = os.umask(0)
    try:
        team = await made(session(root))
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder(root, team) / "key").stat().st_mode) == 0o600
    for path in (root, root / places.FOLDER, folder(root, team)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_place_shows_nothing_of_its_key(root: Path) -> None:
    with places.create(session(root), "build") as place:
        assert place.key.seed.hex() not in f"{place!r}{vars(place)}"
        assert repr(place.key.seed) not in f"{place!r}{vars(place)}"


def test_a_place_that_cannot_be_made_whole_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def full_for_a_key(fd: int) -> None:
        if os.fstat(fd).st_size == SEED_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    monkeypatch.setattr(os, "fsync", full_for_a_key)
    with pytest.raises(TeamUnusable, match="is on a full disk"):
        places.create(session(root), "build")
    assert teams(root) == set()


def test_a_state_directory_that_is_a_file_is_a_clear_error(root: Path) -> None:
    root.write_text("")
    for call in (places.create, places.find):
        with pytest.raises(TeamUnusable, match="is not a folder"):
            call(session(root), "build")


# ---- going on


async def test_a_team_is_found_again_by_its_name_and_by_its_id_from_any_session(root: Path) -> None:
    with places.create(session(root, session_id="one"), "build") as place:
        await found(place)
    later = session(root, session_id="two", project_dir=Path("/src/other"))
    for again in (lambda: places.find(later, "build"), lambda: places.open_by_id(later, place.id, "build")):
        with again() as taken:
            assert (taken.id, taken.key.seed, taken.database) == (place.id, place.key.seed, place.database)


async def test_a_team_that_is_not_there_is_said_to_be_none(root: Path) -> None:
    with pytest.raises(NoSuchTeam, match='There is no team "build" to go on with'):
        places.find(session(root), "build")
    team = await made(session(root))
    with pytest.raises(NoSuchTeam, match='no team "Build"'):
        places.find(session(root), "Build")
    with pytest.raises(NoSuchTeam, match='no team "build"'):
        places.open_by_id(session(root), team[:-1] + "x", "build")
    assert teams(root) == {team}


async def test_each_control_server_has_its_own_teams(root: Path) -> None:
    elsewhere = session(root, control_url="https://headscale.example.com")
    team = await made(session(root))
    with pytest.raises(NoSuchTeam):
        places.find(elsewhere, "build")
    with pytest.raises(NoSuchTeam):
        places.open_by_id(elsewhere, team, "build")
    assert places.databases(elsewhere) == []
    other = await made(elsewhere)
    with places.find(session(root), "build") as place:
        assert place.id == team
    with places.find(elsewhere, "build") as place:
        assert place.id == other


async def test_of_teams_of_one_name_the_one_that_was_led_last_is_found(root: Path) -> None:
    first, second = await made(session(root)), await made(session(root))
    with places.find(session(root), "build") as place:
        assert place.id == second
    places.open_by_id(session(root), first, "build").close()
    with places.find(session(root), "build") as place:
        assert place.id == first
    assert places.databases(session(root)) == [folder(root, team) / "team.db" for team in (first, second)]


async def test_a_team_is_led_by_one_process_at_a_time(root: Path) -> None:
    older, team = await made(session(root)), await made(session(root))
    with another_lead(root) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == team
        for again in (
            lambda: places.find(session(root), "build"),  # and not the older one instead
            lambda: places.open_by_id(session(root), team, "build"),
        ):
            with pytest.raises(LedElsewhere, match='The team "build" is led by another process of this machine'):
                again()
        assert read(folder(root, team) / "team.db").facts.id == team  # to be looked at, it may be
        process.kill()
        process.wait(10)
        with places.find(session(root), "build") as place:
            assert place.id == team
    assert teams(root) == {older, team}


async def test_what_a_kill_before_the_founding_left_is_removed_and_passed_over(root: Path) -> None:
    team = await made(session(root))
    bare = places.create(session(root), "build")
    bare.close()
    begun = places.create(session(root), "build")
    async with SqliteStore.opened(begun.database):
        pass
    begun.close()
    with places.find(session(root), "build") as place:
        assert place.id == team
    assert teams(root) == {team}


async def test_nobody_goes_on_with_a_team_that_was_disbanded(root: Path) -> None:
    """Its lead was killed before it could remove it."""
    with places.create(session(root), "build") as place:
        facts = await found(place)
        async with SqliteStore.opened(place.database) as store:
            ended = facts.model_copy(update={"version": 2, "disbanded": True})
            (event,) = founded().events
            await store.commit(Change(1, ended, (event.model_copy(update={"seq": 2, "kind": "disbanded"}),)))
    with pytest.raises(NoSuchTeam):
        places.open_by_id(session(root), place.id, "build")
    assert teams(root) == set()


def later_version(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "team.db")) as db:
        db.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda directory: (directory / "team.db").write_bytes(b"no database" * 100), "is damaged"),
        (later_version, "was written by a later version of cc-tailscale"),
        (lambda directory: (directory / "key").unlink(), "is missing"),
        (lambda directory: (directory / "key").write_bytes(b"short"), "is damaged"),
        (lambda directory: (directory / "key").write_bytes(bytes(33)), "is damaged"),
    ],
)
async def test_a_team_that_cannot_be_read_is_kept_and_let_go_again(root: Path, spoil: object, problem: str) -> None:
    older = await made(session(root))
    team = await made(session(root))
    assert callable(spoil)
    spoil(folder(root, team))
    before = {path.name: path.read_bytes() for path in folder(root, team).iterdir() if path.name != "session.json"}
    for _ in range(2):  # it is not locked after the first
        with pytest.raises(TeamUnusable, match=problem):
            places.find(session(root), "build")
    after = {path.name: path.read_bytes() for path in folder(root, team).iterdir()}
    assert {name: after[name] for name in before} == before
    assert teams(root) == {older, team}


async def test_a_key_that_is_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    team = await made(session(root))
    key = folder(root, team) / "key"
    key.rename(tmp_path / "elsewhere")
    key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TeamUnusable, match="symbolic link"):
        places.find(session(root), "build")


@pytest.mark.parametrize("how", ["link", "open to others"])
async def test_a_directory_that_others_could_have_made_is_not_taken_up(root: Path, tmp_path: Path, how: str) -> None:
    team = await made(session(root))
    if how == "link":
        folder(root, team).rename(tmp_path / "elsewhere")
        folder(root, team).symlink_to(tmp_path / "elsewhere")
    else:
        folder(root, team).chmod(0o777)
    with pytest.raises(NoSuchTeam):
        places.find(session(root), "build")
    assert places.databases(session(root)) == []


# ---- when it goes


async def test_a_team_that_was_disbanded_is_removed_with_all_that_is_in_it(root: Path) -> None:
    await made(session(root))
    with places.find(session(root), "build") as place:
        place.remove()
        assert teams(root) == set()
    place.close()


async def test_closing_twice_leaves_whoever_took_it_up_meanwhile_alone(root: Path) -> None:
    place = places.create(session(root), "build")
    await found(place)
    place.close()
    with places.find(session(root), "build"):
        record = (folder(root, place.id) / "session.json").read_bytes()
        place.close()
        place.remove()
        assert (folder(root, place.id) / "session.json").read_bytes() == record
        with pytest.raises(LedElsewhere):
            places.find(session(root), "build")


async def test_a_team_goes_thirty_days_after_it_was_led_last(root: Path) -> None:
    stays, goes = await made(session(root), "stays"), await made(session(root), "goes")
    age(folder(root, stays), MONTH - 60)
    age(folder(root, goes), MONTH + 60)
    await places.sweep(session(root))
    assert teams(root) == {stays}


async def test_a_team_that_is_led_is_not_swept_however_old_its_record(root: Path) -> None:
    team = await made(session(root))
    with places.find(session(root), "build"):
        age(folder(root, team), 2 * MONTH)
        await places.sweep(session(root))
        assert teams(root) == {team}


async def test_what_a_killed_lead_wrote_last_counts_as_use(root: Path) -> None:
    team = await made(session(root))
    age(folder(root, team), 2 * MONTH)
    os.utime(folder(root, team) / "team.db")
    await places.sweep(session(root))
    assert teams(root) == {team}


async def test_a_sweep_that_fails_is_no_error(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    await places.sweep(session(root))  # nothing is there
    (root / places.FOLDER).parent.mkdir(mode=0o700)
    (root / places.FOLDER).write_text("")
    with caplog.at_level(logging.INFO):
        await places.sweep(session(root))
    assert "old teams stay for now" in caplog.text


async def test_sessions_and_inboxes_are_not_taken_for_teams_nor_teams_for_them(root: Path) -> None:
    team = await made(session(root))
    age(folder(root, team), 2 * MONTH)
    assert statedir.abandoned(root) == []
    assert statedir.records(root) == []
    assert [record.hostname for record in statedir.records(root / places.FOLDER)] == [team]
