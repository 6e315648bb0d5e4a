"""This session's part in a team: none, its lead, or a member; one at a time, and through restarts of either side.

What it is stands in a file beside the session's inbox (teams/membership.py). Once the node runs, a session goes on with
what stands there by itself: a lead opens its team again, a member follows it again, also as another device.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread

from cctailscale.errors import (
    AgentRefused,
    CcTailscaleError,
    DisbandFirst,
    InTeam,
    LeadOffline,
    LedElsewhere,
    NoSuchTeam,
    NoTeam,
    NoTeamThere,
    TeamEnded,
    TeamError,
    TeamRefused,
    TeamUnusable,
)
from cctailscale.tailnet.attempt import Report, unheard

if TYPE_CHECKING:
    from cctailscale.agents.agent import Agent, Desk
    from cctailscale.agents.engaged import Engaged
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.node import Node
    from cctailscale.teams.gateway import TeamGateway
    from cctailscale.teams.lead import Lead
    from cctailscale.teams.membership import MembershipFile
    from cctailscale.teams.model import MemberId, Role
    from cctailscale.teams.places import Place
    from cctailscale.teams.wire import TeamView

log = logging.getLogger(__name__)

# The lead does not know the path, or the team.
_NO_TEAM_CODES = frozenset({"no_such_team", "not_found"})
# Of the teams that this session has disbanded: more than anybody leads while one of their members is away.
MAX_DISBANDED = 100
# After what nobody foresaw: less than a third of the shortest lease, so that it costs no claim.
FOLLOW_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Part:
    """What a session is in a team: the team's id and name, its role, its own id, and the lead's MagicDNS name."""

    team: str
    name: str
    role: Role
    you: MemberId
    lead: str


@dataclass(frozen=True, slots=True)
class Departure:
    """The part that a session had. `told`: the lead knows; else it gives the claims back once it misses the member."""

    part: Part
    told: bool


class Teamwork:
    """Made by `opened`, which also ends it."""

    def __init__(self, node: Node, agent: Agent, tasks: anyio.abc.TaskGroup) -> None:
        self._node = node
        self._agent = agent
        self._tasks = tasks
        self._changing = anyio.Lock()  # of the part: one call at a time
        self._held: _Held | None = None
        self._looked = False  # for what the session was before
        self._hosting = False
        self._disbanded: deque[str] = deque(maxlen=MAX_DISBANDED)  # by id; what was kept of them is gone
        self._why_none: CcTailscaleError | None = None  # why there is no part any more

    @classmethod
    @asynccontextmanager
    async def opened(cls, node: Node, agent: Agent) -> AsyncIterator[Teamwork]:
        """Goes on with what the session was in a team, as soon as `node` runs."""
        async with anyio.create_task_group() as tasks:
            teamwork = cls(node, agent, tasks)
            tasks.start_soon(teamwork._begin)
            try:
                yield teamwork
            finally:
                tasks.cancel_scope.cancel()

    @property
    def part(self) -> Part | None:
        """What this session is in a team now; None: nothing, or nobody has looked yet."""
        return None if self._held is None or self._held.ended else _part(self._held.engaged.file)

    async def create(self, name: str, *, resume: bool = False, report: Report = unheard) -> TeamView:
        """Creates a team that this session leads. `resume`: goes on with the one of that name that was led from here.

        A session that has led it before does so by itself, and then hears how it is.

        Raises BadCall: it is no name; InTeam, NoSuchTeam, LedElsewhere, TeamUnusable, and what Node.device and
        Agent.desk raise.
        """
        from cctailscale.agents.engaged import check_name

        check_name(name)
        async with self._changing:
            device = await self._node.device(report)
            held = await self._leader_of(name) if resume else None
            if held is None:
                held = await self._leading(await self._free(), device, name, resume)
        return await held.engaged.gateway.team()

    async def join(self, lead: str, *, report: Report = unheard) -> TeamView:
        """Joins the team that the agent at `lead`, any name or address on the tailnet, leads.

        Raises InTeam, NoTeamThere, FalseLead, TeamRefused, TeamUnusable, AgentError, DialError, and what Node.device
        and Agent.desk raise.
        """
        from cctailscale.agents import leadway
        from cctailscale.agents.engaged import as_member
        from cctailscale.agents.hosting import identity
        from cctailscale.agents.policy import principal
        from cctailscale.agents.sending import recipient
        from cctailscale.teams.membership import Membership, MembershipFile
        from cctailscale.teams.remote import RULES

        async with self._changing:
            desk = await self._free()
            device = await self._node.device(report)
            at = await recipient(device, lead)
            who = principal(await device.whois(at.address), at.address)
            if at.address in (await device.api.shared_status()).tailscale_ips:
                raise NoTeamThere(who.name)  # it is this session, which is in no team
            try:
                joined = await leadway.join(device, who, at.address, None, None)
            except AgentRefused as refused:
                if refused.code in _NO_TEAM_CODES:
                    raise NoTeamThere(who.name) from refused
                if refused.code in RULES:
                    raise TeamRefused(refused.code, refused.reason) from refused
                raise AgentRefused(who.name, refused.status, refused.code, refused.reason) from refused
            membership = Membership(
                team=joined.team,
                name=joined.name,
                public_key=joined.public_key,
                role="member",
                member=joined.member,
                token=joined.token,
                lead=identity(who),
                lead_address=at.address,
                lease_seconds=joined.lease_seconds,
                heard=datetime.now(UTC),
                seen=joined.version,
            )
            file = await MembershipFile.made(desk.inbox.folder, membership)
            held = await self._hold(as_member(self._node, desk, file))
        return await held.engaged.gateway.team()

    async def leave(self, *, disband: bool = False, member: str | None = None, report: Report = unheard) -> Departure:
        """Ends this session's part in its team; with `member`, by a lead, that member's (a name or an id) instead.

        Raises DisbandFirst: a lead ends the team with that; NoTeam, TeamEnded, TeamRefused, TeamUnusable, and what
        Node.attempt raises.
        """
        async with self._changing:
            held = await self._present()
            part, lead = _part(held.engaged.file), held.engaged.lead
            await self._node.attempt(report)  # this session leaves without a tailnet as well
            if member is not None:
                if lead is None:
                    raise TeamRefused("lead_only", "Only the lead can remove a member.")
                await lead.remove(member)
                return Departure(part, told=True)
            if lead is not None and not disband:
                view = await held.engaged.gateway.team()
                unfinished = view.counts.pending + view.counts.in_progress
                raise DisbandFirst(part.name, unfinished, view.counts.in_progress, len(view.members) - 1)
            held.leaves = True
            try:
                told = await _told(held.engaged)
            except TeamUnusable:
                held.leaves = False
                raise
            with anyio.CancelScope(shield=True):  # what stays on the disk is gone on with by the next session
                if lead is None:
                    await held.close()
                await self._end(held, None)
            return Departure(part, told)

    async def gateway(self, report: Report = unheard) -> TeamGateway:
        """The way to this session's team. It joins the tailnet first.

        Raises NoTeam; TeamEnded, TeamUnusable, LedElsewhere, NoSuchTeam: why there is none any more; and what
        Node.device and Agent.desk raise.
        """
        async with self._changing:
            held = await self._present()
        await self._node.device(report)
        return held.engaged.gateway

    # ---- which part -------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self._node.next_device(None)
        from cctailscale.teams import places

        self._tasks.start_soon(places.sweep, self._node.settings)
        try:
            async with self._changing:
                await self._present()
        except NoTeam:
            pass
        except CcTailscaleError as error:
            log.warning("%s", error)
        except Exception:  # a defect in there must not end the session
            log.exception("the session's team could not be gone on with")

    async def _present(self) -> _Held:
        """The part that this session has. Raises NoTeam, or why there is none any more."""
        desk = await self._desk()
        if self._held is None and not self._looked:
            await self._go_on(desk)
            self._looked = True
        remote = None if self._held is None else self._held.engaged.remote
        if self._held is not None and remote is not None and remote.ended is not None:
            await self._end(self._held, remote.ended)
        if self._held is None or self._held.ended:
            raise self._why_none or NoTeam()
        return self._held

    async def _leader_of(self, name: str) -> _Held | None:
        """The part that this session has, if it leads the team of that name."""
        try:
            held = await self._present()
        except TeamError:
            return None
        return held if held.engaged.lead is not None and held.engaged.file.now.name == name else None

    async def _free(self) -> Desk:
        """Makes room for a part in a team. Raises InTeam."""
        try:
            held = await self._present()
        except TeamError:  # why there is none
            if self._held is not None:
                if self._held.engaged.lead is not None:
                    self._disbanded.append(self._held.engaged.file.now.team)
                await self._held.close()
                self._held = None
            return await self._desk()
        raise InTeam(held.engaged.file.now.name, held.engaged.file.now.role)

    async def _desk(self) -> Desk:
        from cctailscale.agents.hosting import endpoints

        desk = await self._agent.desk()
        if not self._hosting:
            self._hosting = True
            desk.server.endpoints.extend(endpoints(self._led, self._disbanded))
        return desk

    def _led(self) -> Lead | None:
        """The team that others find here. One that was disbanded is found for as long, so that its members hear it."""
        return None if self._held is None else self._held.engaged.lead

    async def _go_on(self, desk: Desk) -> None:
        """Takes up what the session was before, if it was anything."""
        from cctailscale.agents.engaged import as_lead, as_member
        from cctailscale.teams import places
        from cctailscale.teams.membership import MembershipFile

        try:
            file = await MembershipFile.found(desk.inbox.folder)
        except TeamUnusable as error:
            self._why_none = error
            return
        if file is None:
            return
        if file.now.role == "member":
            await self._hold(as_member(self._node, desk, file))
            return
        try:
            place = await anyio.to_thread.run_sync(places.open_by_id, self._node.settings, file.now.team, file.now.name)
        except (NoSuchTeam, LedElsewhere) as error:
            self._why_none = error
            await file.remove()
            return
        await self._hold(as_lead(self._node, desk, place, file), place)

    async def _leading(self, desk: Desk, device: Device, name: str, resume: bool) -> _Held:
        from cctailscale.agents.engaged import Founder, as_lead, identity_of
        from cctailscale.teams import places

        founder = None if resume else Founder(name, await identity_of(device))
        find = places.find if resume else places.create
        place = await anyio.to_thread.run_sync(find, self._node.settings, name)
        return await self._hold(as_lead(self._node, desk, place, None, founder), place)

    # ---- one part ---------------------------------------------------------------------------------------------------

    async def _hold(self, opening: AbstractAsyncContextManager[Engaged], place: Place | None = None) -> _Held:
        try:
            self._held = await self._tasks.start(self._live, opening)
        except BaseException:
            if place is not None:  # it may not even have been opened
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(place.close)
            raise
        self._why_none = None
        self._agent.team = self._held.engaged.file.now.name
        return self._held

    async def _live(
        self,
        opening: AbstractAsyncContextManager[Engaged],
        *,
        task_status: anyio.abc.TaskStatus[_Held],
    ) -> None:
        closed, held = anyio.Event(), None
        try:
            with anyio.CancelScope() as scope:
                async with opening as engaged:
                    held = _Held(engaged, scope, closed)
                    task_status.started(held)
                    await self._followed(held)
                    if engaged.lead is not None:  # its members are to hear that the team has ended
                        await anyio.sleep_forever()
        except Exception:
            if held is None:  # it is for who opens it
                raise
            log.exception("the session's part in a team broke off")  # which must not end the session
        finally:
            closed.set()

    async def _followed(self, held: _Held) -> None:
        while True:
            try:
                ended = await held.engaged.following.run()
            except Exception:  # a defect in there, or no descriptor, must cost neither the session nor its claims
                log.exception("the team could not be followed; it is tried again in %g s", FOLLOW_AGAIN_SECONDS)
                await anyio.sleep(FOLLOW_AGAIN_SECONDS)
            else:
                await self._end(held, None if held.leaves else ended)
                return

    async def _end(self, held: _Held, why: TeamEnded | None) -> None:
        """There is no part in the team any more; `why` None: this session wanted it so."""
        from cctailscale.teams import news, replica

        if held.ended:
            return
        held.ended = True
        self._why_none = why
        self._agent.team = None
        file, now = held.engaged.file, held.engaged.file.now
        try:
            await file.remove()
            if held.engaged.lead is None:
                await anyio.to_thread.run_sync(replica.forget, file.folder)
            if why is not None and held.engaged.lead is None:
                await held.engaged.tell(news.end(now.team, now.name, why, now.queued))
        except CcTailscaleError as error:
            log.warning("%s", error)


class _Held:
    """A part with the task that holds it open. `leaves`: it is being left; `ended`: it was, or its team is no more."""

    def __init__(self, engaged: Engaged, scope: anyio.CancelScope, closed: anyio.Event) -> None:
        self.engaged = engaged
        self.leaves = False
        self.ended = False
        self._scope = scope
        self._closed = closed

    async def close(self) -> None:
        self._scope.cancel()
        await self._closed.wait()


def _part(file: MembershipFile) -> Part:
    now = file.now
    return Part(now.team, now.name, now.role, now.member, now.lead.name)


async def _told(engaged: Engaged) -> bool:
    """Ends a part; whether the lead knows it."""
    try:
        if engaged.lead is not None:
            await engaged.lead.disband()
        else:
            await engaged.gateway.leave()
    except TeamEnded:
        return True
    except (LeadOffline, AgentRefused):
        return False
    return True
