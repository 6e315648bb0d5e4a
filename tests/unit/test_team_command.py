"""`cc-tailscale team`: what it finds on the disk, and what it shows of it."""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from cctailscale import statedir
from cctailscale.agents.place import FOLDER as INBOXES
from cctailscale.commands import team as command
from cctailscale.commands.glance import Followed, Led, Seen, sights
from cctailscale.commands.screen import Screen
from cctailscale.config import Loaded, Settings, load_settings
from cctailscale.errors import NoTeamToShow, TeamUnusable
from cctailscale.redact import Redactor
from cctailscale.teams import kept, listing, membership, places, telling
from cctailscale.teams.commands import Claim, Create, Disband
from cctailscale.teams.model import Change, Refused, Team
from cctailscale.teams.replica import Replica
from cctailscale.teams.sqlite import SqliteStore
from cctailscale.teams.wire import MAX_ROWS, TaskQuery
from tests.asked import LEAD, START, Asked, device
from tests.gateways import LEASE, Gateway
from tests.unit.test_screen import chosen, obeyed, shown

NOW = START + timedelta(hours=1)


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return load_settings({"TS_STATE_DIR": str(tmp_path / "state"), "HOME": str(tmp_path)}).check()


@pytest.fixture
def asked() -> Asked:
    """A team with a task of each kind."""
    asked = Asked("ben", "cleo")
    first = asked.create("Fix the login test", active_form="Fixing the login test", priority=9)
    asked.create("Publish", blocked_by=(first,))
    asked.done(asked.create("Write it down", priority=10), "cleo")
    asked.create("Tell everybody", priority=2)
    asked.task(Claim(task=first), "ben")
    return asked


async def led(here: Settings, asked: Asked) -> Led:
    """The team as the lead that lives here keeps it."""
    place = await anyio.to_thread.run_sync(places.create, here, asked.team.facts.name)
    facts = asked.team.facts.model_copy(update={"id": place.id})
    async with SqliteStore.opened(place.database) as store:
        await store.commit(Change(0, facts, (), asked.team.members, asked.team.tasks))
    place.close()
    return Led(place.id, facts.name, place.database)


async def followed(here: Settings, asked: Asked, name: str) -> Path:
    """The folder of a session that follows the team."""
    directory = await anyio.to_thread.run_sync(
        lambda: statedir.claim(
            statedir.below(here.state_dir, INBOXES),
            identity=name,
            base="inbox",
            control_url=here.control_url,
            ephemeral=True,
        )
    )
    replica = await Replica.read(Gateway(asked, asked.ids[name]))
    replica.as_of = NOW
    await replica.save(directory.path)
    facts = asked.team.facts
    part = membership.Membership(
        team=facts.id,
        name=facts.name,
        public_key=facts.public_key,
        role="member",
        member=asked.ids[name],
        token="0" * 64,
        lead=device("lead"),
        lease_seconds=90.0,
        heard=NOW,
        seen=facts.version,
    )
    await anyio.to_thread.run_sync(kept.write, directory.path / membership.FILE, part)
    directory.close()
    return directory.path


def lines(seen: Seen, height: int | None = None) -> list[str]:
    """The page through a pipe."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        screen = Screen(Redactor())
        screen.result(*command.page(seen, screen, NOW, lines=height))
    return out.getvalue().splitlines()


async def run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *, name: str | None = None, as_json: bool = False
) -> tuple[str, str]:
    """What the command writes to a pipe, and to stderr."""
    screen, out, err = shown(monkeypatch, terminal=False)
    tools: Any = SimpleNamespace(parts=SimpleNamespace(loaded=Loaded(settings, ())))
    arguments = argparse.Namespace(command="team", json=as_json, name=name)
    assert await command.watched(arguments, screen, tools) == 0
    return out.getvalue(), err.getvalue()


# ---- what is found ---------------------------------------------------------------------------------------------------


async def test_without_a_team_it_says_so_and_what_to_do(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoTeamToShow) as raised:
        await run(here, monkeypatch)
    assert "No session on this machine is in a team." in str(raised.value)
    assert "TS_ENABLE_TEAMS=1" in str(raised.value)
    assert str(here.state_dir) in str(raised.value)
    assert not here.state_dir.exists()


async def test_a_team_that_is_led_here_is_read_while_its_lead_writes(here: Settings, asked: Asked) -> None:
    sight = await led(here, asked)
    async with SqliteStore.opened(sight.file) as store:
        stamp = sight.stamp
        (found,) = await anyio.to_thread.run_sync(sights, here)
        assert found == sight
        assert len((await anyio.to_thread.run_sync(found.look)).tasks) == 4
        change = asked.change(Create(subject="One more"), LEAD)
        await store.commit(replace(change, facts=change.facts.model_copy(update={"id": sight.id})))
        assert found.stamp > stamp
        assert len((await anyio.to_thread.run_sync(found.look)).tasks) == 5


async def test_a_team_that_is_followed_here_is_shown_as_it_was_last_known(here: Settings, asked: Asked) -> None:
    folder = await followed(here, asked, "ben")
    (sight,) = await anyio.to_thread.run_sync(sights, here)
    assert sight == Followed("team-1", "Build", folder)
    seen = await anyio.to_thread.run_sync(sight.look)
    assert (seen.here, seen.team.as_of) == (False, NOW)
    assert "led by cc-lead.tail1234.ts.net, as a member here knew it at 2026-11-25 10:30 UTC" in lines(seen)


async def test_a_team_that_is_led_and_followed_here_is_shown_once_as_its_lead_has_it(
    here: Settings, asked: Asked
) -> None:
    sight = await led(here, asked)
    asked.team = replace(asked.team, facts=asked.team.facts.model_copy(update={"id": sight.id}))
    await followed(here, asked, "ben")
    assert await anyio.to_thread.run_sync(sights, here) == [sight]


async def test_of_several_teams_the_one_with_the_latest_news_is_shown_or_the_one_that_is_named(
    here: Settings, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    await led(here, asked)
    asked.team = replace(asked.team, facts=asked.team.facts.model_copy(update={"name": "Docs"}))
    await led(here, asked)
    out, err = await run(here, monkeypatch)
    assert out.splitlines()[0] == "Docs"
    assert "Other teams here, for cc-tailscale team NAME: Build" in err
    assert (await run(here, monkeypatch, name="Build"))[0].splitlines()[0] == "Build"
    with pytest.raises(NoTeamToShow, match=r'in a team called "None such".*There is Docs, Build'):
        await run(here, monkeypatch, name="None such")


async def test_a_disbanded_team_is_none(here: Settings, asked: Asked) -> None:
    asked.change(Disband(), LEAD)
    await led(here, asked)
    with pytest.raises(NoTeamToShow):
        await anyio.to_thread.run_sync(sights, here)


async def test_a_team_of_another_control_server_is_none(here: Settings, asked: Asked) -> None:
    await led(here, asked)
    await followed(here, asked, "ben")
    with pytest.raises(NoTeamToShow):
        await anyio.to_thread.run_sync(sights, here.model_copy(update={"control_url": "https://other.example.com"}))


async def test_a_damaged_file_is_said_if_there_is_nothing_else(here: Settings, asked: Asked) -> None:
    damaged = await led(here, asked)
    await anyio.Path(damaged.file).write_bytes(b"x" * 4096)
    with pytest.raises(TeamUnusable, match="is damaged"):
        await anyio.to_thread.run_sync(sights, here)
    sound = await led(here, asked)
    assert await anyio.to_thread.run_sync(sights, here) == [sound]


async def test_a_team_that_ends_while_it_is_watched_ends_the_command(here: Settings, asked: Asked) -> None:
    sight = await led(here, asked)
    for entry in sight.file.parent.iterdir():
        entry.unlink()
    with pytest.raises(NoTeamToShow):
        await anyio.to_thread.run_sync(sight.look)


# ---- what is shown ---------------------------------------------------------------------------------------------------


async def test_through_a_pipe_it_is_one_page(here: Settings, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    sight = await led(here, asked)
    out, _ = await run(here, monkeypatch)
    assert "\x1b" not in out
    assert out.splitlines()[0] == "Build"
    assert lines(await anyio.to_thread.run_sync(sight.look)) == [
        "Build",
        "led by cc-lead.tail1234.ts.net, on this machine",
        "1 in progress, 1 to claim, 1 waiting, 1 completed",
        "",
        "Members",
        "cc-lead  ada@example.com  lead",
        "cc-cleo  ada@example.com  heard of 59 min ago",
        "cc-ben   ada@example.com  heard of 59 min ago  task-1",
        "",
        "In progress",
        "task-1  cc-ben  for 59 min  Fixing the login test",
        "",
        "To claim",
        "task-4  priority 2  Tell everybody",
        "",
        "Waiting",
        "task-2  for task-1  Publish",
        "",
        "Completed",
        "task-3  cc-cleo  59 min ago  Write it down",
    ]


async def test_json_has_the_team_and_all_its_tasks(
    here: Settings, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(250):
        asked.create("x" * 200, description="y" * 10_000)
    await led(here, asked)
    out, _ = await run(here, monkeypatch, as_json=True)
    read = json.loads(out)
    assert out.isascii()
    assert len(read["tasks"]) == 254
    assert read["team"]["members"][0]["name"] == "cc-lead.tail1234.ts.net"
    assert read["tasks"][0]["owner"] == "cc-ben.tail1234.ts.net"
    assert read["tasks"][0]["claimed"] == "2026-11-25T09:30:09Z"
    assert "lease_ms" not in read["team"]  # no file has it


def seen_of(team: Team, subject: str = "", name: str = "") -> Seen:
    """A team as it is seen, with texts of somebody's in it."""
    told = telling.team(listing.view(team, LEAD, LEASE))
    members = [
        member.model_copy(update={"name": name or member.name, "owner": name or member.owner})
        for member in told.members
    ]
    page = listing.page(team, TaskQuery(limit=MAX_ROWS), LEAD)
    assert not isinstance(page, Refused)
    rows = [telling.row(row, page.members, LEAD) for row in page.rows]
    changed = [
        row.model_copy(update={"subject": subject or row.subject, "active_form": subject or row.active_form})
        for row in rows
    ]
    return Seen(told.model_copy(update={"team": subject or told.team, "members": members}), changed, here=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(chosen, chosen)
def test_nothing_that_a_member_wrote_moves_the_cursor(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, subject: str, name: str
) -> None:
    with monkeypatch.context() as patched:
        screen, out, _ = shown(patched, terminal=False)
        screen.result(*command.page(seen_of(asked.team, subject, name), screen, NOW))
        assert not obeyed(out.getvalue())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.integers(20, 80), st.integers(0, 60))
def test_on_a_terminal_the_page_is_no_higher_than_that_and_counts_what_it_leaves_out(height: int, more: int) -> None:
    asked = Asked("ben")
    for number in range(more + 1):
        task = asked.create(f"{number} " + "x" * 190)
        if number % 4 == 0:
            asked.done(task, "ben")
        elif number % 4 == 1:
            asked.task(Claim(task=task), "ben")
    seen = seen_of(asked.team)
    found = command.sections(seen, NOW)
    fit = command.fitted(found, height)
    assert [section.title for section in fit] == [section.title for section in found]
    for whole, shorter in zip(found, fit, strict=True):
        assert shorter.rows
        assert len(shorter.rows) + shorter.left_out == len(whole.rows)
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", io.StringIO())
        for part in command.page(seen, Screen(Redactor()), NOW, lines=height):
            console.print(part)
    assert len(out.getvalue().splitlines()) <= height


def test_a_heading_that_a_terminal_wraps_makes_the_page_no_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, _ = shown(monkeypatch, terminal=True)
    asked = Asked("ben")
    for number in range(30):
        asked.create(f"Number {number}")
    seen = seen_of(asked.team, subject="a name of two lines " * 6)
    screen.result(*command.page(seen, screen, NOW, lines=24))
    heading, *sections = out.getvalue().split("\n\n")
    assert len(heading.splitlines()) == 4
    assert len(out.getvalue().splitlines()) == 24
    assert len(sections) == len(command.sections(seen, NOW))
