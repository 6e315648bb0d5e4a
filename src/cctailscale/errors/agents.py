"""What goes wrong between agents, and with what they wrote."""

# The names are the field's words for what happened; "Error" at the end of each would say nothing more.
# ruff: noqa: N818

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cctailscale.errors.text import MAX_REASON_CHARS, CcTailscaleError, plain, shown_address

# An agent's refusal is a reason and what to add (wire.Refusal).
MAX_REFUSAL_CHARS = 1000
# Of a message that reached none of many recipients.
MAX_OUTCOMES = 20


class AgentError(CcTailscaleError):
    """A message between agents cannot be made, sent or kept."""


class NoAgent(AgentError):
    """No agent answers at `target`; `why` says what was found instead."""

    def __init__(self, target: str, why: str) -> None:
        super().__init__(
            f"No agent answers at {shown_address(target)}: {plain(why)}.",
            "A Claude Code session there has to run cc-tailscale, and to have joined the tailnet.",
            "tailscale_agents lists the agents that answer.",
        )


class AgentRefused(AgentError):
    """The agent at `target` answered with an HTTP `status` from 400 on; `code` and `reason` are its refusal's."""

    def __init__(self, target: str, status: int, code: str, reason: str) -> None:
        self.status = status
        self.code = code
        self.reason = plain(reason, MAX_REFUSAL_CHARS)
        super().__init__(
            f"The agent at {shown_address(target)} refused ({status} {plain(code)}).",
            f"It says: {self.reason}",
            "Do what it says, or ask the user of that agent.",
        )


class AnswerLost(AgentError):
    """The connection to the agent at `target` broke before its answer was complete."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"The connection to {shown_address(target)} broke before the answer was complete.",
            "The agent there has ended, or its device went away; what was asked may have been done all the same.",
            "Ask again.",
        )


class NobodyReceived(AgentError):
    """No recipient is known to have the message `message_id`; `outcomes` has a line for each."""

    def __init__(self, message_id: str, outcomes: Sequence[str]) -> None:
        limit = MAX_REFUSAL_CHARS if len(outcomes) == 1 else MAX_REASON_CHARS  # a refusal says what to add
        shown = [plain(outcome, limit).rstrip(".") for outcome in outcomes[:MAX_OUTCOMES]]
        if len(outcomes) > len(shown):
            shown.append(f"and {len(outcomes) - len(shown)} more alike")
        super().__init__(
            f"Nobody is known to have received the message: {'; '.join(shown)}.",
            "It is not sent later: what was not delivered is kept nowhere.",
            f'To try again, send it with id="{message_id}": nobody gets it twice. tailscale_agents lists the agents '
            "that answer now.",
        )


class BadDocument(AgentError):
    """A document of the agents' protocol (`kind`: "message") is not sound; `problem` follows on it ("is too large")."""

    def __init__(self, kind: str, problem: str) -> None:
        self.kind = kind
        self.problem = plain(problem).rstrip(".")
        super().__init__(
            f"The {kind} {self.problem}.",
            "It is not what the agents' protocol says, so nothing was done with it.",
            "docs/agent-protocol.md has the fields and their limits.",
        )


class MessageConflict(AgentError):
    """The sender has sent another message under the same `id`, which is the one that is kept."""

    def __init__(self, message_id: str) -> None:
        self.id = message_id
        super().__init__(
            f"Another message with the id {plain(message_id, 80)} is there already.",
            "A message with a known id is a retry and has to be the same; this one was not stored.",
            "Send it under a new id, or without one.",
        )


class InboxFull(AgentError):
    """`unread` messages of `unread_bytes` together are as much as an inbox holds."""

    def __init__(self, unread: int, unread_bytes: int) -> None:
        self.unread = unread
        self.unread_bytes = unread_bytes
        super().__init__(
            f"The inbox is full: {unread} unread messages of {unread_bytes // 1024} KiB.",
            "The message was not stored.",
            "Try again once the receiving agent has read some.",
        )


class InboxUnusable(AgentError):
    """The inbox in `path` cannot be opened, read or written; `problem` follows on it ("is on a full disk")."""

    def __init__(self, path: Path, problem: str, next_step: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(
            f"The inbox {plain(str(path))} {problem}.",
            "No message can be kept there, so none is accepted; what is in it stays.",
            next_step,
        )
