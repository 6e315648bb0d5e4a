"""What an agent does in a step, and what is written down of it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from chaos.history import NEVER_NS, History, Operation, Outcome, Sent
from chaos.plan import Act
from tests.agent import Agent, Result, RpcError

# Longer than anything goes wrong in a run: a call that takes so long hangs.
CALL_SECONDS = 120.0
# The SDK's words for an exception that this project did not mean to raise, and ours for a call that was made wrongly.
_UNEXPECTED = ("Error executing tool", "its arguments are wrong")
# How a refusal tells the state of the task that it is about: only such a one says something of who has it.
_STANDING = re.compile(r"have had |has had |was completed by |is pending and ")
_READ = re.compile(r"^From (\S+) \([^)]*\), verified; id ([A-Za-z0-9_-]+); (.*?)To answer: ", re.MULTILINE)


@dataclass
class Worker:
    """One agent's hand in the work. `name`: "ann"; `names`: of all agents' devices now, by their names here."""

    name: str
    names: dict[str, str]
    crew: tuple[str, ...]
    history: History
    # Tasks that it was told to have, and messages that may not have arrived: both until it hears otherwise.
    held: set[str]
    undelivered: dict[str, Sent]
    sent: int = 0
    device: int = 1  # which one, of those that it has had
    # The last message that arrived, which may be sent once more: it is to be read once all the same.
    delivered: Sent | None = None
    # The last call and what came of it, for whoever looks at a run that does not get well.
    last: str = "nothing yet"

    async def perform(self, agent: Agent, act: Act) -> None:
        """Does it, whatever comes of it."""
        match act.what:
            case "send":
                await self.send(agent, self.crew[act.number])
            case "repeat":
                if self.delivered is not None:
                    await self.deliver(agent, self.delivered)
            case "check":
                await self.check(agent)
            case "fetch":
                await self._call(agent, "fetch", "tailscale_fetch", url="http://web/")
            case "create":
                await self.create(agent, f"By {self.name}")
            case _:
                mine = sorted(self.held) if act.what != "claim" else []
                await self.task(agent, act.what, mine[0] if mine else f"task-{act.number}")

    async def send(self, agent: Agent, to: str) -> None:
        """Sends a message; one that may not have arrived before a new one."""
        again = next((one for one in self.undelivered.values() if one.to == to), None)
        if again is None:
            self.sent += 1
        await self.deliver(agent, again or Sent(self.name, f"{self.name}-{self.sent}", to))

    async def deliver(self, agent: Agent, message: Sent) -> None:
        device, fields = self.device, {"subject": message.id, "body": "…", "id": message.id}
        self.undelivered[message.id] = message
        result = await self._call(agent, "send", "tailscale_send_message", to=self.names[message.to], **fields)
        if result is not None and not result.is_error:
            self.history.acknowledged.add(message)
            self.undelivered.pop(message.id, None)
            if device == self.device:
                self.delivered = message

    def forget_device(self) -> None:
        """Another device is another sender: what it sends once more under an old id is a message of its own."""
        self.device += 1
        self.undelivered.clear()
        self.delivered = None

    async def check(self, agent: Agent) -> int:
        """Reads what is in the inbox; how many messages of other agents were new."""
        result = await self._call(agent, "check", "tailscale_check_messages", limit=100)
        if result is None or result.is_error:
            self.history.unanswered.add(self.name)
            return 0
        new = [Sent(who(sender), number, self.name) for sender, number, facts in _READ.findall(result.text)
               if "read before" not in facts and not number.startswith("team-")]  # fmt: skip
        self.history.read.update(new)
        return len(new)

    async def create(self, agent: Agent, subject: str) -> None:
        result = await self._call(agent, "create", "tailscale_task_create", subject=subject)
        if result is not None and result.structured is not None:
            self.history.created.add(result.structured["id"])

    async def task(self, agent: Agent, what: str, task: str) -> None:
        """Claims, completes or releases a task."""
        began = time.monotonic_ns()
        result = await self._call(agent, what, "tailscale_task_update", action=what, id=task)
        outcome = _outcome(result)
        if outcome == "done" and what == "claim":
            self.held.add(task)
        elif outcome is not None:
            self.held.discard(task)
        if outcome is not None:
            ended = NEVER_NS if outcome == "unknown" else time.monotonic_ns()
            lead = self.name == self.crew[0]
            self.history.operations.append(Operation(task, what, self.name, lead, outcome, began, ended))

    async def _call(self, agent: Agent, what: str, tool: str, **arguments: Any) -> Result | None:
        """The tool's result; None if it never came, because its process did not live so long."""
        self.last = f"{tool}({arguments}) has not answered"
        try:
            result = await agent.call(tool, CALL_SECONDS, **arguments)
        except TimeoutError:
            self.history.defects.append(f"{self.name}: {tool} gave no answer within {CALL_SECONDS:g} s")
            return None
        except (EOFError, OSError, RpcError):
            self.history.calls[f"{what}: no answer"] += 1
            return None
        self.history.calls[f"{what}: {'error' if result.is_error else 'done'}"] += 1
        self.last = f"{tool}({arguments}): {result.text[:500]}"
        if result.is_error and any(words in result.text for words in _UNEXPECTED):
            self.history.defects.append(f"{self.name}: {result.text}")
        return result


def _outcome(result: Result | None) -> Outcome | None:
    """What a command's answer says became of it; None: that it was not carried out, which tells nothing of the task."""
    if result is None:
        return "unknown"
    if not result.is_error:
        return "done"
    if "Nothing was changed" in result.text and _STANDING.search(result.text):
        return "refused"
    return None if "Nothing was " in result.text else "unknown"


def who(device: str) -> str:
    """The agent behind a tailnet name: "ann" of "cc-ann-project-0a1b.tail1234.ts.net"."""
    return device.split("-")[1] if device.startswith("cc-") else device
