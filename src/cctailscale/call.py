"""The MCP call that is being answered, for the log.

A context variable holds it. Every task that a call starts inherits that, and so belongs to the call. What comes in from
outside meanwhile does not, and has a block of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One call, by the client's `id`; or other work, without one."""

    id: str | None


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
