"""What the steps share (the tailnet, the agent, the screen), and how they are played one after the other."""

from __future__ import annotations

import contextlib
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
    agent: Agent

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

    async def call(self, tool: str, **arguments: str) -> tuple[Answer, list[str]]:
        """Calls a tool of the agent and shows the call and its progress; the answer, and the stages it reported."""
        shown = ", ".join(f'{name}="{value}"' for name, value in arguments.items())
        self.screen.command(f"{tool}({shown})")
        stages: list[str] = []

        def progressed(stage: str) -> None:
            stages.append(stage)
            self.screen.progress(stage)

        return await self.agent.call(tool, arguments, progressed), stages

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


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(inner) for inner in error.exceptions)
    return str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
