"""Where a team is kept: one Protocol, whatever the engine.

A store keeps the team, its log of events and the commands that were answered, and changes them together or not at all.
It is written to by compare and set: a change that was decided on another version than the store's is refused, and
whoever decided it loads the team and decides anew. With one writer that does not happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cctailscale.teams.model import Change, Event, Task, Team

# Of one member's answers, the latest: some hundred, or two of the largest tasks. A retry comes within seconds; who
# sends very many pushes out its own alone, and those of a full team take no more room than its tasks.
KEPT_ANSWER_BYTES = 512 * 1024
# Who has missed more reads the lists anew.
KEPT_EVENTS = 10_000


class Moved(Exception):  # noqa: N818 - not an error that anybody sees
    """The team in the store has another version than the one that the change was decided on."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A command that was carried out. `member` and `id` name it; `digest` is what it was, `task` what came of it."""

    member: str
    id: str
    digest: bytes
    task: Task | None
    version: int  # of the team with it


class AnsweredBefore(Exception):  # noqa: N818 - as above
    """The command was carried out before; `answered` is what came of it."""

    def __init__(self, answered: Answered) -> None:
        super().__init__()
        self.answered = answered


class TeamStore(Protocol):
    """Every call raises TeamUnusable if the engine fails it; then nothing was changed."""

    async def load(self) -> Team:
        """The team as it is."""
        ...

    async def commit(self, change: Change, answered: Answered | None = None) -> None:
        """Makes a change, with its events and the answer to its command; it is safe when this returns.

        Raises Moved, or AnsweredBefore; nothing is changed then.
        """
        ...

    async def answered(self, member: str, id: str) -> Answered | None:  # noqa: A002 - the field's name
        """What was answered to this command of this member's; None if it was not carried out, or long ago."""
        ...

    async def events(self, after: int, limit: int) -> Sequence[Event] | None:
        """The first events whose `seq` is past `after`, in order; None if some of those are not kept any more."""
        ...

    async def seen(self, times: Mapping[str, datetime]) -> None:
        """Notes when members were last heard of. No change of the team: no version, no event."""
        ...
