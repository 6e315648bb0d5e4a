"""The rules for members: one function a command. Each puts its change together, or refuses by RuledOut. Pure.

These commands come from the lead's own process, which knows by WhoIs whom they are about.
"""

from __future__ import annotations

from cctailscale.teams.commands import Disband, Join, Lapse, Leave, Remove, Return
from cctailscale.teams.draft import Draft, RuledOut, refuse
from cctailscale.teams.listing import called, resolve
from cctailscale.teams.model import (
    MAX_KNOWN_MEMBERS,
    MAX_MEMBERS,
    Change,
    Identity,
    Member,
    Refused,
    Team,
)
from cctailscale.teams.taskrules import lose_claims


def join(draft: Draft, command: Join) -> Change:
    team = draft.team
    known = team.of_node(command.identity.node_id)
    if known is not None:
        _not_removed(known)
        _not_the_lead(known)
        return _comes_back(draft, known, command.identity, command.token)
    _room_for_one(team)
    if len(team.members) >= MAX_KNOWN_MEMBERS:
        _forget_one(draft)
    member = Member(
        id=f"member-{team.facts.next_member}",
        identity=command.identity,
        joined=draft.now,
        last_seen=draft.now,
        token=command.token,
    )
    draft.actor = member.id
    draft.put(member)
    draft.set_facts(next_member=team.facts.next_member + 1)
    draft.tell("member_joined", member=member.id)
    return draft.done(member=member.id)


def return_(draft: Draft, command: Return) -> Change:
    """Of the lead it is told each time: members have been without it. Of others only if their device is another."""
    team = draft.team
    if command.token is None:
        lead = team.members[team.facts.lead]
        _own_device(team, lead, command.identity)
        draft.actor = lead.id
        draft.put(lead.model_copy(update={"identity": command.identity, "last_seen": draft.now}))
        draft.tell("lead_returned", member=lead.id)
        return draft.done(member=lead.id)
    member = next((each for each in team.members.values() if each.token and each.token == command.token), None)
    if member is None:
        refuse("not_member", "The token belongs to no member of this team.")
    _not_removed(member)
    _own_device(team, member, command.identity)
    if member.identity.node_id != command.identity.node_id and not _same_owner(member.identity, command.identity):
        refuse("not_member", "The token belongs to a member whose device has another owner, or other tags.")
    if member.identity == command.identity and not member.gone:
        return draft.done(member=member.id)
    return _comes_back(draft, member, command.identity, member.token)


def leave(draft: Draft, _: Leave) -> Change:
    member = draft.asking
    if member.role == "lead":
        refuse("not_yours", "The lead cannot leave its team; it can disband it.")
    return _goes(draft, member, "left")


def remove(draft: Draft, command: Remove) -> Change:
    _lead_only(draft, "remove a member")
    member = resolve(draft.team, command.member)
    if isinstance(member, Refused):
        raise RuledOut(member)
    if member.role == "lead":
        refuse("no_such_member", "The lead cannot be removed; it can disband its team.")
    if member.gone == "removed":
        refuse("no_such_member", f"{called(draft.team, member.id)} has been removed already.")
    there = draft.team.of_node(member.identity.node_id)
    if there is not None and there.id != member.id and not there.gone:  # a removed device is no present member
        refuse("no_such_member", f"{member.id} has left, and its device is there as {there.id}: name that one.")
    return _goes(draft, member, "removed")


def lapse(draft: Draft, command: Lapse) -> Change:
    draft.actor = None
    lose_claims(draft, command.members)
    return draft.done()


def disband(draft: Draft, _: Disband) -> Change:
    _lead_only(draft, "disband the team")
    draft.set_facts(disbanded=True)
    draft.tell("disbanded")
    return draft.done()


def _lead_only(draft: Draft, what: str) -> None:
    if draft.actor != draft.team.facts.lead:
        refuse("lead_only", f"Only the lead can {what}.")


def _not_removed(member: Member) -> None:
    if member.gone == "removed":
        refuse("removed", "This device was removed from the team by its lead.")


def _not_the_lead(member: Member) -> None:
    if member.role == "lead":
        refuse("not_yours", "This device leads the team.")


def _own_device(team: Team, member: Member, identity: Identity) -> None:
    """Refuses a device that is another member's, since a device says who is asking."""
    other = team.of_node(identity.node_id)
    if other is None or other.id == member.id or other.gone == "left":
        return
    _not_removed(other)
    refuse("taken", f"This device is in the team already, as {called(team, other.id)}.")


def _room_for_one(team: Team) -> None:
    if sum(not member.gone for member in team.members.values()) >= MAX_MEMBERS:
        refuse("too_many", f"The team has {MAX_MEMBERS} members, which is as many as there can be.")


def _forget_one(draft: Draft) -> None:
    left = [member for member in draft.team.members.values() if member.gone == "left"]
    if not left:
        refuse("too_many", "The team has removed so many members that it can take no more.")
    draft.forget(min(left, key=lambda member: member.last_seen))


def _comes_back(draft: Draft, member: Member, identity: Identity, token: str) -> Change:
    """With the claims that it still has."""
    if member.gone:
        _room_for_one(draft.team)
    joined = draft.now if member.gone else member.joined
    draft.actor = member.id
    draft.put(
        member.model_copy(
            update={"identity": identity, "token": token, "joined": joined, "last_seen": draft.now, "gone": None}
        )
    )
    draft.tell("member_joined" if member.gone else "member_returned", member=member.id)
    return draft.done(member=member.id)


def _goes(draft: Draft, member: Member, how: str) -> Change:
    draft.put(member.model_copy(update={"gone": how, "last_seen": draft.now if how == "left" else member.last_seen}))
    draft.tell("member_left" if how == "left" else "member_removed", member=member.id)
    lose_claims(draft, {member.id: "left the team" if how == "left" else "removed from the team"})
    return draft.done(member=member.id)


def _same_owner(one: Identity, other: Identity) -> bool:
    """The same login, or the same tags in the same tailnet. A device without either belongs to nobody."""
    if one.tags or other.tags:
        return set(one.tags) == set(other.tags) and _suffix(one) == _suffix(other)
    return bool(one.login and other.login) and one.login == other.login


def _suffix(identity: Identity) -> str:
    return identity.name.removesuffix(".").partition(".")[2].lower()
