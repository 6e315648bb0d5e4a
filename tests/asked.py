"""A team that tests ask things of, one command after the other; `Asked` checks what holds of every change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cctailscale.teams.commands import Claim, Command, Complete, Create, Join
from cctailscale.teams.model import Change, Event, Identity, Member, Refused, Task, Team
from cctailscale.teams.rules import decide, founded

START = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)
LEAD = "member-1"
KEY = "0" * 64


def device(name: str, /, **given: Any) -> Identity:
    """The device of somebody whose login is the same for all, unless it is given."""
    return Identity(
        **{"node_id": f"n{name}", "name": f"cc-{name}.tail1234.ts.net", "login": "ada@example.com", **given}
    )


class Asked:
    """A team as it goes on, led by cc-lead. Each command comes a second after the one before."""

    def __init__(self, *names: str) -> None:
        self.now = START
        self.team: Team = founded("team-1", "Build", KEY, device("lead"), START)
        self.log: list[Event] = []
        self.ids = {name: self.join(name).id for name in names}

    def ask(self, command: Command, by: str | None = None) -> Change | Refused:
        """`by`: a member's name here, or an id, or nobody."""
        self.now += timedelta(seconds=1)
        answer = decide(self.team, command, self.ids.get(by, by) if by else None, self.now)
        if isinstance(answer, Change):
            assert answer.base == self.team.facts.version
            self.team = self.team.after(answer)
            self.log.extend(answer.events)
        return answer

    def change(self, command: Command, by: str | None = None) -> Change:
        answer = self.ask(command, by)
        assert isinstance(answer, Change), answer
        return answer

    def task(self, command: Command, by: str | None = None) -> Task:
        """What the answer is about."""
        task = self.change(command, by).task
        assert task is not None
        return task

    def refused(self, command: Command, by: str | None = None) -> Refused:
        before = self.team
        answer = self.ask(command, by)
        assert isinstance(answer, Refused), answer
        assert self.team is before
        return answer

    def join(self, name: str, /, **given: Any) -> Member:
        member = self.change(Join(device(name, **given), token(name))).member
        assert member is not None
        return member

    def create(self, subject: str = "A task", by: str = LEAD, **given: Any) -> str:
        return self.task(Create(subject=subject, **given), by).id

    def done(self, task: str, by: str) -> Task:
        """Claimed and completed."""
        self.task(Claim(task=task), by)
        return self.task(Complete(task=task, result="Done."), by)


def token(name: str) -> str:
    """The SHA-256 of a token, as far as the rules know."""
    return name.encode().hex().rjust(64, "0")


def kinds(change: Change) -> list[str]:
    return [event.kind for event in change.events]
