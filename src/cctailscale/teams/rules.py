"""The rules of a team: what a command makes of it, or why it makes nothing. Pure, and fast enough for each request.

A change comes with its events, in order, and with what the answer is about. A refusal changes nothing. A change without
events changes nothing either (model.Change): the answer is the task as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from cctailscale.errors import plain
from cctailscale.errors.teams import MAX_REFUSAL_CHARS
from cctailscale.teams import memberrules, taskrules
from cctailscale.teams.commands import (
    Claim,
    Command,
    Complete,
    Create,
    Delete,
    Disband,
    Join,
    Lapse,
    Leave,
    Release,
    Remove,
    Return,
    Update,
)
from cctailscale.teams.draft import Draft, RuledOut, refuse
from cctailscale.teams.listing import member_row
from cctailscale.teams.model import Change, Event, Facts, Identity, Member, Refused, Team

# By those who are in the team. The others come from the lead's process, for somebody who need not be.
_BY_MEMBERS: dict[type, Callable[[Draft, Any], Change]] = {
    Create: taskrules.create,
    Claim: taskrules.claim,
    Complete: taskrules.complete,
    Release: taskrules.release,
    Update: taskrules.update,
    Delete: taskrules.delete,
    Leave: memberrules.leave,
    Remove: memberrules.remove,
    Disband: memberrules.disband,
}
_BY_NOBODY: dict[type, Callable[[Draft, Any], Change]] = {
    Join: memberrules.join,
    Return: memberrules.return_,
    Lapse: memberrules.lapse,
}


def founded(id: str, name: str, public_key: str, identity: Identity, now: datetime) -> Team:  # noqa: A002 - its name
    """A new team, of version 0: its lead is member-1, it has no tasks, and nothing has been told of it."""
    lead = Member(id="member-1", identity=identity, role="lead", joined=now, last_seen=now)
    facts = Facts(
        id=id, name=name, public_key=public_key, lead=lead.id, created=now, version=0, next_member=2, next_task=1
    )
    return Team(facts, {lead.id: lead})


def founding(id: str, name: str, public_key: str, identity: Identity, now: datetime) -> Change:  # noqa: A002 - its name
    """The change that makes a new team: it is of version 1 with it, and its lead has joined."""
    team = founded(id, name, public_key, identity, now)
    lead = team.members[team.facts.lead]
    joined = Event(seq=1, at=now, kind="member_joined", by=lead.id, member=member_row(lead))
    return Change(0, team.facts.model_copy(update={"version": 1}), (joined,), dict(team.members))


def decide(team: Team, command: Command, actor: str | None, now: datetime) -> Change | Refused:
    """What the command of the member `actor` makes of the team at the time `now`, by the lead's clock.

    `actor` counts for the commands of members alone; Join, Return and Lapse say themselves whom they are about.
    """
    try:
        if team.facts.disbanded:
            refuse("disbanded", f'The team "{plain(team.facts.name)}" was disbanded by its lead.')
        if rule := _BY_NOBODY.get(type(command)):
            return rule(Draft(team, None, now), command)
        _check_member(team, actor)
        return _BY_MEMBERS[type(command)](Draft(team, actor, now), command)
    except RuledOut as ruled_out:
        no = ruled_out.refused
        return Refused(no.code, plain(no.message, MAX_REFUSAL_CHARS), no.task)


def _check_member(team: Team, actor: str | None) -> None:
    member = team.members.get(actor or "")
    if member is None:
        refuse("not_member", "Only members of the team can ask for this.")
    if member.gone == "removed":
        refuse("removed", "The lead has removed you from the team.")
    if member.gone:
        refuse("not_member", "You have left the team.")
