"""The tools, called as the server calls them: the same objects, the same models for their arguments."""

from __future__ import annotations

from typing import Any

import anyio
from pydantic import ValidationError

from cctailscale.app import Parts
from cctailscale.commands.screen import Progress, Screen
from cctailscale.errors import ApprovalNeeded, LoginNeeded, NotLetIn
from cctailscale.server import faults_of
from cctailscale.tailnet.device import Device
from cctailscale.tools.catalog import tailnet_tools
from cctailscale.tools.progress import ShellContext


class WrongArguments(Exception):  # noqa: N818 - what it says on the command line, and no failure of ours
    """A tool does not take these arguments; the text says which and why."""


class Tools:
    """The tools of one command. Before one is called the node joins, and a person is waited for if it takes one."""

    def __init__(self, parts: Parts, screen: Screen, progress: Progress) -> None:
        self.parts = parts
        self.screen = screen
        self.progress = progress
        self._tools = {
            tool.name: tool for tool in tailnet_tools(parts.node, parts.forwards, parts.inbound, parts.redactor)
        }

    def checked(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """All arguments of a tool, with its defaults for those that are not `given`. Raises WrongArguments."""
        try:
            return self._tools[name].fn_metadata.validate_arguments(given)
        except ValidationError as error:
            raise WrongArguments("; ".join(faults_of(error))) from error

    async def joined(self, seconds: float | None = None) -> Device:
        """The device, running. A link to log in is shown, and waited for: for so long, or as long as a join may take.

        Raises NotLetIn, and what `Node.device` raises.
        """
        node, settings = self.parts.node, self.parts.loaded.settings
        seconds = seconds or settings.join_timeout
        deadline = anyio.current_time() + seconds
        while True:
            try:
                return await node.device(self.progress)
            except (LoginNeeded, ApprovalNeeded) as obstacle:
                if isinstance(obstacle, LoginNeeded) and obstacle.url is None:
                    raise
                self._ask(obstacle)
                with anyio.CancelScope(deadline=deadline) as bound:
                    await node.passed(obstacle)
                if bound.cancelled_caught or anyio.current_time() >= deadline:
                    raise NotLetIn(obstacle, seconds, stays=not settings.ephemeral) from obstacle

    def _ask(self, obstacle: LoginNeeded | ApprovalNeeded) -> None:
        self.progress.pause()
        if isinstance(obstacle, LoginNeeded):
            self.screen.link("To log this device in, open", obstacle.url or "")
        else:
            self.screen.note(obstacle.happened, "bold")
        self.progress.show("Waiting for a person (Ctrl-C gives up)")

    async def call(self, tool: str, /, **given: Any) -> Any:  # noqa: ANN401 - the tool's
        """The answer of a tool. Raises WrongArguments, and what `joined` and the tool raise."""
        arguments = self.checked(tool, given)
        await self.joined()
        return await self._tools[tool].fn(ctx=ShellContext(self.progress), **arguments)
