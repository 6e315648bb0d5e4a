"""docs/teams.md: a team from beginning to end. Its prose is written by hand, its transcripts are made here.

Between the page's marks (`<!-- scene: NAME -->`, `<!-- end -->`) stands what real agents were answered on a local
tailnet.
"""

from __future__ import annotations

import json
import re
import signal
import tempfile
import textwrap
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from pages.answers import OWNER, PREFIX, environ, shaped
from pages.tools import call
from tests.agent import Agent
from tests.localnet import Localnet
from tests.shell import plain_screen, read_until, terminal

PAGE = Path(__file__).parent.parent / "docs" / "teams.md"
MARKED = re.compile(r"(?<=<!-- scene: )(\w+) -->\n.*?(?=<!-- end -->)", re.DOTALL)

# Of a text; JSON has one line for what fits into it.
COLUMNS = 100
# Short, so that nobody waits for long; a busy machine must not take a claim from who is there.
LEASE_SECONDS = 10
# For a member to find its lead again, and for what is told once a while.
WAIT_SECONDS = 60
NAMES = {
    "desk": "cc-desk-app-3f2a",
    "laptop": "cc-laptop-app-91c7",
    "build": "cc-build-app-5d08",
    "bob": "cc-bob-app-c4e1",
}
# What a run alone has beside what `shaped` knows: ids of messages (a team's, then a number or a call's) and of nodes.
FORMS = (
    (r"\bteam-[0-9a-f]{28}-[\w-]+", "team-5e0c91d2-17"),
    (r"\bn\d{6}LOCAL\b", "n000001LOCAL"),
)
# How long ago things were, with the room that a table gives them.
AGES = (
    (r"heard of \d+ (s|min) ago *", "heard of 2 s ago  "),
    (r"(?<!heard of )\b\d+ (s|min) ago *", "9 s ago  "),
    (r"for \d+ (s|min) *", "for 5 s  "),
)


def page(written: str, scenes: Mapping[str, str]) -> str:
    """The page with these transcripts in it. KeyError: it has a mark for one that was not played."""
    return MARKED.sub(lambda mark: f"{mark[1]} -->\n{scenes[mark[1]]}", written)


def marks(written: str) -> list[str]:
    """The scenes that a page has a place for."""
    return [mark[1] for mark in MARKED.finditer(written)]


async def played() -> dict[str, str]:
    """Plays all scenes; what is to stand on the page for each."""
    with tempfile.TemporaryDirectory(prefix="cc-tailscale-pages-") as folder, Localnet.started() as tailnet:
        async with AsyncExitStack() as agents:
            play = _Play(tailnet, Path(folder), agents)
            for who in NAMES:
                await play.start(who, OWNER if who != "bob" else "bob@example.com")
            await _begin(play)
            await _work(play)
            await _claims_lost(play)
            await _lead_gone(play)
            await _end(play)
            return {name: "".join(parts) for name, parts in play.scenes.items()}


class _Play:
    """The agents by where they run, and what was said in each scene."""

    def __init__(self, tailnet: Localnet, home: Path, agents: AsyncExitStack) -> None:
        self.scenes: dict[str, list[str]] = {}
        self.agents: dict[str, Agent] = {}
        self.names: dict[str, str] = {}
        self._environs: dict[str, dict[str, str]] = {}
        self._tailnet = tailnet
        self._home = home
        self._open = agents

    async def start(self, who: str, owner: str = OWNER) -> None:
        """Starts an agent, or starts it again."""
        if who not in self._environs:
            lease = {"TS_TEAM_LEASE": str(LEASE_SECONDS)}
            self._environs[who] = environ(self._tailnet, self._home, who, owner) | lease
        agent = await self._open.enter_async_context(Agent.started(self._environs[who]))
        self.agents[who] = agent
        self.names[who] = str((await agent.status())["hostname"])

    async def ask(self, scene: str, who: str, tool: str, **arguments: Any) -> None:  # noqa: ANN401 - a tool's
        """A call, whatever comes of it, and the scene that it stands in."""
        result = await self.agents[who].call(PREFIX + tool, **arguments)
        self._show(scene, "python", call(PREFIX + tool, arguments), who)
        if result.structured is None:
            self._show(scene, "text", result.text)
        else:
            self._show(scene, "json", laid_out(_ordered(result.structured)))

    async def message(self, scene: str, who: str, words: str) -> None:
        """The message with these words, once it is there; what came before it is read too."""
        with anyio.fail_after(WAIT_SECONDS):
            while True:
                checked = await self.agents[who].succeed(f"{PREFIX}check_messages", wait_seconds=WAIT_SECONDS // 2)
                for found in re.findall(r"^From .*?^</message \w+>$", checked.text, flags=re.MULTILINE | re.DOTALL):
                    if words in found:
                        self._show(scene, "python", call(f"{PREFIX}check_messages", {}), who)
                        self._show(scene, "text", found)
                        return

    async def screen(self, scene: str, who: str, last: str) -> None:
        """What `cc-tailscale team` shows on a terminal, once `last` stands there."""
        async with terminal(self._environs[who], "team") as (process, ours):
            shown = await read_until(ours, last)
            process.send_signal(signal.SIGINT)
            await process.wait()
        text = "\n".join(plain_screen(shown))
        for form, stand_in in AGES:
            text = re.sub(form, stand_in, text)
        heading, title, rows = text.partition("\nMembers\n")
        members, blank, tasks = rows.partition("\n\n")
        lead, *others = members.split("\n")
        text = "".join([heading, title, "\n".join([lead, *sorted(others)]), blank, tasks])
        lines = [line.rstrip() for line in text.rstrip().split("\n")]
        self._show(scene, "console", "\n".join(["$ cc-tailscale team", *lines]), who)

    def _show(self, scene: str, language: str, text: str, who: str | None = None) -> None:
        for name, actual in self.names.items():
            text = text.replace(actual, NAMES[name])
        text = shaped(text)
        for form, stand_in in FORMS:
            text = re.sub(form, stand_in, text)
        text = _broken(text) if language == "text" else text
        heading = f"**{who}**\n\n" if who else ""
        self.scenes.setdefault(scene, ["\n"]).append(f"{heading}```{language}\n{text}\n```\n\n")


async def _begin(play: _Play) -> None:
    await play.ask("create", "desk", "team_create", name="release")
    description = "tests/test_login.py has to pass again."
    await play.ask("tasks", "desk", "task_create", subject="Fix the login test", description=description)
    await play.ask("tasks", "desk", "task_create", subject="Publish", blocked_by=["task-1"])
    await play.ask("tasks", "desk", "task_create", subject="Write the release notes", priority=-1)
    await play.ask("stranger", "bob", "team_join", lead_hostname=play.names["desk"])
    await play.ask("join", "laptop", "team_join", lead_hostname=play.names["desk"])
    await play.agents["build"].succeed(f"{PREFIX}team_join", lead_hostname=play.names["desk"])


async def _work(play: _Play) -> None:
    await play.ask("list", "laptop", "task_list")
    await play.ask("claim", "laptop", "task_update", action="claim")
    await play.ask("lose", "build", "task_update", action="claim", id="task-1")
    await play.ask("blocked", "build", "task_update", action="claim", id="task-2")
    await play.ask("stale", "desk", "task_update", action="update", id="task-1", priority=5, version=1)
    await play.ask("complete", "laptop", "task_update", action="complete", id="task-1", result="It waited too short.")
    await play.message("unblocked", "build", "can be claimed now")
    await play.ask("foreign", "build", "task_update", action="claim", id="task-2", owner=play.names["laptop"])
    await play.ask("assign", "desk", "task_update", action="claim", id="task-2", owner=play.names["build"])
    await play.message("assigned", "build", "assigned to you")
    await play.screen("screen", "desk", "Fix the login test")


async def _claims_lost(play: _Play) -> None:
    await play.agents["build"].kill()
    with anyio.fail_after(WAIT_SECONDS):
        while await _in_progress(play.agents["desk"]):  # noqa: ASYNC110 - it is the lead's to notice, and tells Claude
            await anyio.sleep(0.2)
    await play.ask("lapsed", "desk", "task_update", action="update", id="task-2")
    await play.agents["laptop"].succeed(f"{PREFIX}task_update", action="claim", id="task-2")
    await play.start("build")
    await play.ask("lost", "build", "task_update", action="complete", id="task-2", result="It is out.")


async def _lead_gone(play: _Play) -> None:
    await play.agents["desk"].kill()
    await play.ask("offline", "laptop", "task_update", action="complete", id="task-2", result="It is out: 1.4.0.")
    await play.ask("known", "laptop", "task_list", status="in_progress")
    await play.start("desk")
    await play.ask("resume", "desk", "team_create", name="release", resume=True)
    await play.message("sent", "laptop", "is completed for the whole team now")
    await play.ask("whole", "desk", "task_list")


async def _end(play: _Play) -> None:
    await play.ask("remove", "desk", "team_leave", member=play.names["build"])
    await play.ask("removed", "build", "task_list")
    await play.ask("removed", "build", "team_join", lead_hostname=play.names["desk"])
    await play.ask("disband", "desk", "team_leave")
    await play.ask("disband", "desk", "team_leave", disband=True)
    await play.message("disbanded", "laptop", "was disbanded by its lead")


async def _in_progress(agent: Agent) -> bool:
    listed = (await agent.succeed(f"{PREFIX}task_list", status="in_progress")).structured
    return bool(listed and listed["total"])


def _ordered(answer: dict[str, Any]) -> dict[str, Any]:
    """Members by name, after the lead and who asks: whoever was heard of last is another one each time."""
    if "members" not in answer:
        return answer
    members = sorted(answer["members"], key=lambda one: (one["role"] != "lead", "you" not in one, one["name"]))
    return answer | {"members": members}


def laid_out(value: Any, indent: int = 0) -> str:  # noqa: ANN401 - JSON
    """JSON with what fits into a line on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if indent + len(flat) <= COLUMNS or not isinstance(value, dict | list):
        return flat
    inner = indent + 2
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {laid_out(one, inner)}" for name, one in value.items()]
    else:
        parts = [laid_out(one, inner) for one in value]
    lines = f",\n{' ' * inner}".join(parts)
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{' ' * inner}{lines}\n{' ' * indent}{last}"


def _broken(text: str) -> str:
    return "\n".join(
        line if len(line) <= COLUMNS else textwrap.fill(line, COLUMNS, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )
