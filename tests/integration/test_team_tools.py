"""The tools for teams, as two Claude Code sessions use them: real processes on the local tailnet."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cctailscale.commands.team import LOOK_SECONDS
from cctailscale.server import TEAM_INSTRUCTIONS
from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet
from tests.shell import COLUMNS, plain_screen, ran, read_until, remaining, terminal
from tests.talking import did, joined, settings

TOOLS = {
    "tailscale_team_create", "tailscale_team_join", "tailscale_team_info", "tailscale_team_leave",
    "tailscale_task_create", "tailscale_task_list", "tailscale_task_update",
}  # fmt: skip
CTRL_S = b"\x13"


@asynccontextmanager
async def ann_and_ben(tailnet: Localnet, folder: Path) -> AsyncIterator[tuple[Agent, str, Agent, str]]:
    """Two agents of alice@example.com with their names; ann is to lead."""
    teams = {"TS_ENABLE_TEAMS": "1"}
    async with (
        joined(settings(tailnet, folder, "ann", **teams)) as (ann, her),
        joined(settings(tailnet, folder, "ben", **teams)) as (ben, his),
    ):
        yield ann, her, ben, his


async def test_the_readme_s_example(tailnet: Localnet, tmp_path: Path) -> None:
    async with ann_and_ben(tailnet, tmp_path) as (ann, her, ben, his):
        made = await did(ann, "team_create", name="release")
        assert (made["team"], made["your_role"], made["lead"], made["lease_ms"]) == ("release", "lead", her, 90_000)
        first = await did(ann, "task_create", subject="Fix the login test", description="See tests/login.py.")
        second = await did(ann, "task_create", subject="Publish", blocked_by=[first["id"]])
        assert (first["id"], second["id"], second["blocked_by"]) == ("task-1", "task-2", ["task-1"])

        seen = await did(ben, "team_join", lead_hostname=her.partition(".")[0])
        assert [(one["name"], one["owner"], one["role"]) for one in seen["members"]] == [
            (her, "alice@example.com", "lead"),
            (his, "alice@example.com", "member"),
        ]
        listed = await did(ben, "task_list")
        assert [(row["id"], row.get("waits_for")) for row in listed["tasks"]] == [
            ("task-1", None),
            ("task-2", ["task-1"]),
        ]

        claimed = await did(ben, "task_update", action="claim")
        assert (claimed["id"], claimed["owner"], claimed["yours"]) == ("task-1", his, True)
        assert claimed["description"] == "See tests/login.py."
        text = await ann.fail("tailscale_task_update", action="claim", id="task-1")
        assert his in text
        assert "Nothing was changed." in text
        text = await ann.fail("tailscale_task_update", action="claim", id="task-2")
        assert "task-1" in text

        done = await did(ben, "task_update", action="complete", id="task-1", result="It waited for the wrong page.")
        assert (done["status"], done["completed_by"]) == ("completed", his)
        read = await did(ann, "task_update", action="update", id="task-1")
        assert read["result"] == "It waited for the wrong page."
        assert [(entry["what"], entry["by"]) for entry in read["history"]] == [
            ("created", her), ("claimed", his), ("completed", his)
        ]  # fmt: skip
        assert (await did(ann, "task_list", unblocked_only=True))["tasks"][0]["id"] == "task-2"

        info = await did(ben, "team_info")
        assert info["your_role"] == "member"
        assert info["tasks"] == {"pending": 1, "unblocked": 1, "in_progress": 0, "completed": 1}

        assert "can be claimed by others" in (await did(ben, "team_leave"))["note"]
        assert "This session is in no team." in await ben.fail("tailscale_task_list")

        text = await ann.fail("tailscale_team_leave")
        assert 'leads the team "release"' in text
        assert "Tasks that are not completed: 1, of them in progress: 0." in text
        assert "disband=True" in text
        assert (await did(ann, "team_info"))["members_total"] == 1
        assert "disbanded" in (await did(ann, "team_leave", disband=True))["note"]
        assert "This session is in no team." in await ann.fail("tailscale_team_info")


async def test_a_member_that_is_removed_hears_it_and_cannot_come_back(tailnet: Localnet, tmp_path: Path) -> None:
    async with ann_and_ben(tailnet, tmp_path) as (ann, her, ben, his):
        await did(ann, "team_create", name="release")
        await did(ben, "team_join", lead_hostname=her)
        assert "Only the lead" in await ben.fail("tailscale_team_leave", member=her)
        assert his in (await did(ann, "team_leave", member=his))["note"]
        assert "removed" in await ben.fail("tailscale_task_list")
        assert "removed" in await ben.fail("tailscale_team_join", lead_hostname=her)


async def test_the_shell_shows_the_lead_s_team_and_the_member_s(tailnet: Localnet, tmp_path: Path) -> None:
    async with ann_and_ben(tailnet, tmp_path) as (ann, her, ben, his):
        await did(ann, "team_create", name="release")
        await did(ann, "task_create", subject="Fix the login test")
        await did(ben, "team_join", lead_hostname=her)
        await did(ben, "task_update", action="claim")
        shown = await ran(settings(tailnet, tmp_path, "ann"), "team")
        assert shown.code == 0, shown.err
        assert shown.out.splitlines()[:3] == [
            "release",
            f"led by {her}, on this machine",
            "1 in progress, 0 to claim, 0 waiting, 0 completed",
        ]
        assert "Fix the login test" in shown.out
        async with asyncio.timeout(20):  # a member's file is written now and then
            while True:
                seen = await ran(settings(tailnet, tmp_path, "ben"), "team", "--json")
                tasks = json.loads(seen.out)["tasks"] if seen.code == 0 else []
                if tasks and tasks[0]["status"] == "in_progress":
                    break
        assert (tasks[0]["owner"], tasks[0]["yours"]) == (his, True)
        assert "as_of" in json.loads(seen.out)["team"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_on_a_terminal_the_team_is_shown_as_it_changes_until_it_is_stopped(
    tailnet: Localnet, tmp_path: Path, how: signal.Signals
) -> None:
    environ = settings(tailnet, tmp_path, "ann", TS_ENABLE_TEAMS="1")
    async with joined(environ) as (ann, _):
        await did(ann, "team_create", name="release")
        await did(ann, "task_create", subject="Fix the login test")
        async with terminal(environ, "team") as (process, ours):
            first = await read_until(ours, "Fix the login test")
            assert max(map(len, plain_screen(first))) <= COLUMNS
            await did(ann, "task_create", subject="Publish")
            second = await read_until(ours, "Publish")
            process.send_signal(how)
            last = await asyncio.to_thread(remaining, ours)
            assert await asyncio.wait_for(process.wait(), 20) == 128 + how
        shown = first + second + last
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back
        lines = plain_screen(shown)
        assert lines.count("release") == 1  # in the place of what was shown before
        assert "2 to claim" in "".join(lines)


async def test_a_terminal_that_takes_nothing_does_not_keep_the_command_from_ending(
    tailnet: Localnet, tmp_path: Path
) -> None:
    environ = settings(tailnet, tmp_path, "ann", TS_ENABLE_TEAMS="1")
    async with joined(environ) as (ann, _):
        await did(ann, "team_create", name="release")
        async with terminal(environ, "team") as (process, ours):
            await read_until(ours, "release")
            os.write(ours, CTRL_S)
            await asyncio.sleep(2 * LOOK_SECONDS)  # no event tells that it has something to show, and cannot
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 128 + signal.SIGTERM


async def test_the_tools_are_there_for_those_who_want_teams_alone(tailnet: Localnet, tmp_path: Path) -> None:
    for teams in ({}, {"TS_ENABLE_TEAMS": "0"}):
        async with Agent.started(environ_for(tailnet, tmp_path) | teams) as agent:
            assert not TOOLS & {tool["name"] for tool in (await agent.request("tools/list"))["tools"]}
            assert "team" not in agent.initialized["instructions"]
            assert await agent.fail("tailscale_team_info") == "Unknown tool: tailscale_team_info"
    async with Agent.started(environ_for(tailnet, tmp_path) | {"TS_ENABLE_TEAMS": "1"}) as agent:
        tools = {tool["name"]: tool for tool in (await agent.request("tools/list"))["tools"]}
        assert set(tools) >= TOOLS
        assert agent.initialized["instructions"].endswith(TEAM_INSTRUCTIONS)
        assert len(agent.initialized["instructions"]) < 2_000


@pytest.mark.parametrize("tool", sorted(TOOLS - {"tailscale_team_create", "tailscale_team_join"}))
async def test_without_a_team_each_tool_says_how_to_get_one(tailnet: Localnet, tmp_path: Path, tool: str) -> None:
    needed: dict[str, Any] = {"task_create": {"subject": "x"}, "task_update": {"action": "claim"}}
    async with Agent.started(environ_for(tailnet, tmp_path) | {"TS_ENABLE_TEAMS": "1"}) as agent:
        text = await agent.fail(tool, **needed.get(tool.removeprefix("tailscale_"), {}))
        assert text.startswith("This session is in no team.")
        assert "tailscale_team_create" in text
        assert "tailscale_team_join" in text
