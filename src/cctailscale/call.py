"""The MCP call that is being answered: what the log calls it, and what it did on the tailnet, for the audit log.

A context variable holds it. Every task that a call starts inherits that, and so belongs to the call. What comes in from
outside meanwhile does not, and has a block of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

# A message goes to 200 recipients at most; what a call dials beyond this is not noted.
MAX_TARGETS = 256


@dataclass(slots=True)
class Call:
    """One call, by the client's `id`; or other work, without one.

    `targets` are the addresses ("ip:port", or an IP) that were dialled, the first first.
    Bytes are those of bodies: `sent` to the tailnet, `received` from it.
    """

    id: str | None
    targets: dict[str, None] = field(default_factory=dict)
    sent: int = 0
    received: int = 0


_current: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def answering(call_id: str | None) -> Iterator[Call]:
    """Makes what happens in the block, and in the tasks that it starts, part of one call; None: of none."""
    call = Call(call_id)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


def current_id() -> str | None:
    """The id of the call that this is part of; None if it is of none."""
    call = _current.get()
    return call.id if call else None


def dialled(target: str) -> None:
    """Notes an address that is about to be dialled, or whose connection is used again."""
    call = _current.get()
    if call is not None and len(call.targets) < MAX_TARGETS:
        call.targets[target] = None


def carried(sent: int, received: int) -> None:
    """Notes bytes of bodies that went to the tailnet and came from it."""
    call = _current.get()
    if call is not None:
        call.sent += sent
        call.received += received
