"""A part in a team while it lasts: the lead's, with the team itself, or a member's, with its way to the lead."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread
from pydantic import TypeAdapter, ValidationError

from cctailscale.agents.hosting import identity
from cctailscale.agents.leadway import LeadWay
from cctailscale.agents.policy import Principal, principal
from cctailscale.agents.wire import Message
from cctailscale.errors import BadCall, CcTailscaleError, FalseLead, MessageConflict, NodeClosed, TeamUnusable
from cctailscale.tailnet.peers import everybody
from cctailscale.teams import news, replica, rules
from cctailscale.teams.following import Following, Tell
from cctailscale.teams.lead import Lead
from cctailscale.teams.local import LocalGateway
from cctailscale.teams.membership import Membership, MembershipFile
from cctailscale.teams.model import MAX_NAME_OF_TEAM_CHARS, Identity, TeamName
from cctailscale.teams.remote import RemoteGateway
from cctailscale.teams.sqlite import SqliteStore

if TYPE_CHECKING:
    from cctailscale.agents.agent import Desk
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.node import Node
    from cctailscale.teams.gateway import TeamGateway
    from cctailscale.teams.places import Place

log = logging.getLogger(__name__)

_NAME: TypeAdapter[str] = TypeAdapter(TeamName)


@dataclass(frozen=True, slots=True)
class Engaged:
    """One part in one team: `lead` is the team itself, where this session leads it; else `remote` is the way to it."""

    file: MembershipFile
    gateway: TeamGateway
    following: Following
    tell: Tell
    lead: Lead | None = None
    remote: RemoteGateway | None = None


@dataclass(frozen=True, slots=True)
class Founder:
    """Who makes a new team, and what it is called."""

    name: str
    identity: Identity


def check_name(name: str) -> None:
    """Raises BadCall for what cannot be a team's name."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        problem = f"A team's name is one line of 1 to {MAX_NAME_OF_TEAM_CHARS} characters."
        raise BadCall(problem, "Choose another one.") from None


def _telling(desk: Desk, file: MembershipFile) -> Tell:
    """Puts notes into this session's inbox, as from its lead. What was told before is not told again."""

    async def tell(note: news.Note) -> None:
        lead = file.now.lead
        with suppress(MessageConflict):  # in other words, by a process that was killed before it noted that
            await desk.inbox.put(
                Principal(lead.node_id, lead.name, lead.login, lead.tags),
                Message.new(note.subject, note.body, id=note.id),
            )

    return tell


async def identity_of(device: Device) -> Identity:
    """Who a device is to others."""
    me = await device.me()
    if me is None:
        raise NodeClosed
    return identity(principal(me))


@asynccontextmanager
async def as_member(node: Node, desk: Desk, file: MembershipFile) -> AsyncIterator[Engaged]:
    """The part of a member. Nothing is asked of the lead yet: `following.run` does."""
    tell = _telling(desk, file)

    async def warn(node_id: str, error: FalseLead) -> None:
        try:
            await tell(news.impostor(file.now.team, file.now.name, node_id, str(error)))
        except CcTailscaleError as unable:
            log.warning("that could not be told: %s", unable)

    try:
        known = await anyio.to_thread.run_sync(replica.load, file.folder)
    except TeamUnusable as error:  # it is read from the lead again
        log.warning("%s", error)
        known = None
    if known is not None and not known.is_of(file.now.team, file.now.member):
        known = None
    gateway = RemoteGateway(file, LeadWay(node, desk.policy, file, warn), known)

    def keep(known: replica.Replica | None) -> None:
        gateway.replica = known

    following = Following(file, gateway, tell, replica=known, find=gateway.find, keep=keep)
    yield Engaged(file, gateway, following, tell, remote=gateway)


@asynccontextmanager
async def as_lead(
    node: Node, desk: Desk, place: Place, file: MembershipFile | None, founder: Founder | None = None
) -> AsyncIterator[Engaged]:
    """The part of the lead of the team in `place`, which is let go at the end. Raises TeamUnusable.

    `file`: what the session has of it already. `founder`: the team is new.
    """
    settings, disbanded = node.settings, False
    try:
        async with SqliteStore.opened(place.database) as store:
            if founder is not None:
                founding = rules.founding(place.id, founder.name, place.key.public, founder.identity, datetime.now(UTC))
                await store.commit(founding)
            async with (
                Lead.opened(store, place.key, settings.team_lease, present=lambda: _present(node)) as lead,
                anyio.create_task_group() as tasks,
            ):
                file = file or await _begun(desk, lead)
                tasks.start_soon(_return_with_each_device, node, file, lead, founder is not None)
                gateway, tell = LocalGateway(lead), _telling(desk, file)
                try:
                    yield Engaged(file, gateway, Following(file, gateway, tell), tell, lead=lead)
                finally:
                    disbanded = lead.facts.disbanded
                    tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_left, place, disbanded)


async def _begun(desk: Desk, lead: Lead) -> MembershipFile:
    """What this session keeps of its part, from now on."""
    facts = lead.facts
    own = next(row for row in lead.team(facts.lead).members if row.id == facts.lead)
    membership = Membership(
        team=facts.id,
        name=facts.name,
        public_key=facts.public_key,
        role="lead",
        member=facts.lead,
        lead=own.identity,
        lease_seconds=lead.lease_seconds,
        heard=datetime.now(UTC),
        seen=facts.version,
    )
    return await MembershipFile.made(desk.inbox.folder, membership)


async def _return_with_each_device(node: Node, file: MembershipFile, lead: Lead, new: bool) -> None:
    """Notes in the team which device its lead has: at once, unless the team was made with it, and when it changes."""
    device = await node.next_device(None) if new else None
    while True:
        device = await node.next_device(device)
        try:
            me = await identity_of(device)
            await lead.returned(me)
            await file.change(lead=me, heard=datetime.now(UTC))
        except CcTailscaleError as error:
            log.warning("the team could not be told which device its lead has: %s", error)


async def _present(node: Node) -> Collection[str] | None:
    device = node.running_device
    if device is None:
        return None
    return {peer.id for peer in everybody(await device.api.shared_status())}


def _left(place: Place, disbanded: bool) -> None:
    """Lets the place go; with what is in it if the team is no more. Blocks."""
    with place:
        if disbanded:
            try:
                place.remove()
            except TeamUnusable as error:
                log.warning("what was kept of a team that was disbanded stays: %s", error)
