"""What the steps share (the tailnet, the agent, the screen), and how they are played one after the other."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from demo.agent import Agent, Answer
from demo.screen import Screen
from tests.localnet import Localnet

# A demo takes some seconds. One that hangs has failed.
PLAY_SECONDS = 120.0
LOG_LINES = 10
# Of a tool.
Argument = str | int | bool | list[str]


class Failed(Exception):  # noqa: N818 - a step that failed, not an error in the demo
    """A step did not do what it says; the text says what it did instead."""


@dataclass(frozen=True)
class Step:
    """One part of the demo. `play` returns the sentence that says what was seen to be true, or raises Failed."""

    title: str
    play: Callable[[Stage], Awaitable[str]]


class Stage:
    """Where the steps play. Each finds here what the ones before it have set up."""

    tailnet: Localnet
    peer: dict[str, Any]
    alice: Agent
    bob: Agent

    def __init__(
        self, screen: Screen, folder: Path, open_ends: contextlib.ExitStack, tasks: anyio.abc.TaskGroup
    ) -> None:
        self.screen = screen
        self.folder = folder  # of this demo alone, removed at its end
        self.open_ends = open_ends  # what a step leaves running for the next ones
        self.tasks = tasks
        self.log = open_ends.enter_context((folder / "log").open("w+"))

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, screen: Screen) -> AsyncIterator[Stage]:
        with tempfile.TemporaryDirectory(prefix="cc-tailscale-demo-") as folder, contextlib.ExitStack() as open_ends:
            async with anyio.create_task_group() as tasks:
                yield cls(screen, Path(folder), open_ends, tasks)
                tasks.cancel_scope.cancel()

    async def agent(self, user: str, project: str, **settings: str) -> Agent:
        """Starts a person's cc-tailscale: an `env` block in .mcp.json, plus a home and a project of this demo's own."""
        home = self.folder / user
        repository = home / project / ".git"
        repository.mkdir(parents=True, exist_ok=True)
        (repository / "HEAD").write_text("ref: refs/heads/main\n")
        key = home / "authkey"
        key.write_text(self.tailnet.key(user=f"{user}@example.com", reusable=True, ephemeral=True) + "\n")
        key.chmod(0o600)
        settings = {"TS_CONTROL_URL": self.tailnet.control_url, "TS_AUTHKEY_FILE": str(key)} | settings
        environ = {
            "TS_STATE_DIR": str(home / "state"),
            "TS_DISABLE_PORTMAPPER": "1",  # Go's, not a setting of ours: ask no router for anything
            "CLAUDE_PROJECT_DIR": str(repository.parent),
            "HOME": str(home),
            "USER": user,
        }
        self.screen.command(user, "cc-tailscale")
        shown = " ".join(f"{name}={value}" for name, value in settings.items())
        self.screen.facts({"settings": shown.replace(str(home), "…")})
        return await Agent.started(self.tasks, user, environ | settings, self.log)

    async def call(self, agent: Agent, tool: str, **arguments: Argument) -> tuple[Answer, list[str]]:
        """Calls a tool of an agent and shows the call and its progress; the answer, and the stages it reported."""
        shown = ", ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())
        self.screen.command(agent.user, f"{tool}({shown})")
        stages: list[str] = []

        def progressed(stage: str) -> None:
            stages.append(stage)
            self.screen.progress(stage)

        return await agent.call(tool, arguments, progressed), stages

    async def data(self, agent: Agent, tool: str, **arguments: Argument) -> dict[str, Any]:
        """The same, for a call that has to succeed: what it answers, as data."""
        answer, _ = await self.call(agent, tool, **arguments)
        expect(not answer.is_error, answer.text)
        return answer.data

    def last_log_lines(self) -> str:
        self.log.seek(0)
        return "".join(self.log.readlines()[-LOG_LINES:])


async def play(steps: Sequence[Step], screen: Screen) -> bool:
    """Plays the steps up to the first that fails; whether all did what they say."""
    began = time.perf_counter()
    async with Stage.opened(screen) as stage:
        with anyio.move_on_after(PLAY_SECONDS) as bound:
            for number, step in enumerate(steps, start=1):
                screen.step(number, step.title)
                try:
                    screen.done(await step.play(stage))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is shown as this step's failure
                    screen.failed(_told(error), stage.last_log_lines())
                    break
            else:
                screen.end(f"All of that was real, and took {time.perf_counter() - began:.1f} s.", good=True)
                return True
        if bound.cancelled_caught:
            screen.failed(f"the demo did not end within {PLAY_SECONDS:g} s", stage.last_log_lines())
    screen.end("The demo failed.", good=False)
    return False


def expect(holds: bool, otherwise: str) -> None:
    """Ends the demo, which says `otherwise`, unless what it is about to say `holds`."""
    if not holds:
        raise Failed(otherwise)


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(inner) for inner in error.exceptions)
    return str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
