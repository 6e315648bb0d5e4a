"""What a lead answers to the members of its team, under /v1/team: the endpoints in front of `teams.lead.Lead`.

They are there before there is a team and after it, and answer then that there is none. Who asks is known by WhoIs; the
policy has let it in for "team"; here it is found which member that is.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qsl

import anyio
from aiohttp import web
from pydantic import ValidationError

from cctailscale.agents.connection import answer, refuse
from cctailscale.agents.policy import Principal
from cctailscale.agents.rate import Rate
from cctailscale.agents.server import Call, Endpoint
from cctailscale.documents import MAX_NAME_CHARS, Document, reason
from cctailscale.errors import BadDocument, NoTeam, TeamRefused, TeamUnusable, plain
from cctailscale.teams.lead import Lead
from cctailscale.teams.model import Identity
from cctailscale.teams.wire import (
    CommandRequest,
    EventsOfTeam,
    JoinRequest,
    LeaveRequest,
    OfTeam,
    Proof,
    ProofRequest,
    TasksOfTeam,
)

log = logging.getLogger(__name__)

D = TypeVar("D", bound=Document)

# When twenty race for the tasks each claim would make twenty pages of events, and a page costs as much as a claim. So
# what concerns a follower goes out at once, and anything else once it is known, after GATHER_SECONDS, whether it is one
# of many: MANY_EVENTS since the follower's last page wait for more, and so does who has had many pages of late.
GATHER_SECONDS = 0.015
MANY_EVENTS = 4
PAGES_PER_MINUTE = 120
PAGES_AT_ONCE = 5
# How long they wait, not all followers the same time: in step they would hold up every claim of that moment.
PAUSE_SECONDS = (0.25, 0.75)
# Of those that come at once all the same. Whoever asks again for what it was told already gets no more than these.
CONCERNS_PER_MINUTE = 300
CONCERNS_AT_ONCE = 10

_STATUS = {"not_member": 403, "removed": 403, "disbanded": 410}


def endpoints(lead_of: Callable[[], Lead | None], disbanded: Container[str] = ()) -> list[Endpoint]:
    """For AgentServer.endpoints. `lead_of` gives the team that this agent leads now, if it leads one.

    `disbanded`: ids of those that it led before, for members who were away when their team ended.
    """
    hosted = _Hosted(lead_of, disbanded)
    return [
        Endpoint("POST", "/v1/team/join", "team", partial(_answered, hosted.join)),
        Endpoint("POST", "/v1/team/proof", "team", partial(_answered, hosted.proof)),
        Endpoint("POST", "/v1/team/leave", "team", partial(_answered, hosted.leave)),
        Endpoint("POST", "/v1/team/command", "team", partial(_answered, hosted.command), often=True),
        Endpoint("GET", "/v1/team", "team", partial(_answered, hosted.team)),
        Endpoint("GET", "/v1/team/tasks", "team", partial(_answered, hosted.tasks)),
        Endpoint("GET", "/v1/team/events", "team", partial(_answered, hosted.events), waits=True, often=True),
    ]


class _Hosted:
    def __init__(self, lead_of: Callable[[], Lead | None], disbanded: Container[str]) -> None:
        self._lead_of = lead_of
        self._disbanded = disbanded
        self._pages = Rate(PAGES_PER_MINUTE, PAGES_AT_ONCE)
        self._concerns = Rate(CONCERNS_PER_MINUTE, CONCERNS_AT_ONCE)

    # ---- for everybody whom the policy lets in ----------------------------------------------------------------------

    async def join(self, call: Call) -> Document:
        request = JoinRequest.from_json(call.body)
        lead = self._lead_of()
        if lead is None:
            raise NoTeam
        return await lead.join(identity(call.peer), request, call.me.node_id)

    async def proof(self, call: Call) -> Document:
        request = ProofRequest.from_json(call.body)
        lead = self._lead(request.team)
        return Proof(signature=lead.proof(request.nonce, call.me.node_id, call.peer.node_id))

    # ---- for members ------------------------------------------------------------------------------------------------

    async def leave(self, call: Call) -> Document:
        request = LeaveRequest.from_json(call.body)
        lead, member = self._member(call, request.team)
        await lead.leave(member)
        return OfTeam(team=request.team)

    async def command(self, call: Call) -> Document:
        request = CommandRequest.from_json(call.body)
        lead, member = self._member(call, request.team)
        return await lead.command(member, request.id, request.command)

    async def team(self, call: Call) -> Document:
        lead, member = self._member(call, _asked(OfTeam, call).team)
        return lead.team(member)

    async def tasks(self, call: Call) -> Document:
        query = _asked(TasksOfTeam, call)
        lead, member = self._member(call, query.team)
        return lead.tasks(query, member)

    async def events(self, call: Call) -> Document:
        asked = _asked(EventsOfTeam, call)
        lead, member = self._member(call, asked.team)
        with anyio.move_on_after(asked.wait):
            await lead.moved(asked.after)
            with anyio.move_on_after(GATHER_SECONDS):
                await lead.concerned(member, asked.after)
        hurries = self._pages.take(call.peer.node_id) > 0
        if hurries or lead.facts.version - asked.after >= MANY_EVENTS:
            with anyio.move_on_after(random.uniform(*PAUSE_SECONDS)):  # noqa: S311 - no secret
                await anyio.sleep(self._concerns.take(call.peer.node_id))
                await lead.concerned(member, asked.after)
            self._pages.take(call.peer.node_id)
        return await lead.events(asked.after, 0)

    def _lead(self, team: str) -> Lead:
        lead = self._lead_of()
        if lead is not None and lead.facts.id == team:
            return lead
        if team in self._disbanded:
            raise TeamRefused("disbanded", "The team was disbanded by its lead.")
        raise NoTeam

    def _member(self, call: Call, team: str) -> tuple[Lead, str]:
        """The lead, and which member asks, which is thereby heard of."""
        lead = self._lead(team)
        member = lead.member_of(call.peer.node_id)
        lead.heard(member)
        return lead, member


async def _answered(handle: Callable[[Call], Awaitable[Document]], call: Call) -> web.Response:
    try:
        return answer((await handle(call)).to_json())
    except TeamRefused as error:
        return refuse(_STATUS.get(error.code, 409), error.code, error.message)
    except NoTeam:
        return refuse(404, "no_such_team", "This agent does not lead that team.")
    except TeamUnusable as error:  # its text names a path of this machine
        log.error("a team cannot be kept: %s", error)
        return refuse(507, "team_unusable", "The lead cannot keep its team now; its user has to see to it.")


def _asked(kind: type[D], call: Call) -> D:
    """What the query says. Raises BadDocument for what is not in `kind`, or is there twice."""
    try:
        given = parse_qsl(
            call.query, keep_blank_values=True, strict_parsing=bool(call.query), errors="strict", max_num_fields=16
        )
    except ValueError:  # UnicodeDecodeError is one
        raise BadDocument("query", "cannot be read") from None
    values = dict(given)
    if len(values) < len(given):
        raise BadDocument("query", "has a parameter twice")
    if not values.keys() <= kind.model_fields.keys():
        raise BadDocument("query", "has a parameter that is not known")
    try:
        return kind.model_validate_strings(values)
    except ValidationError as error:
        raise BadDocument("query", reason(error)) from None


def identity(peer: Principal) -> Identity:
    """Who that is, as a team keeps it."""
    return Identity(
        node_id=peer.node_id,
        name=plain(peer.name, MAX_NAME_CHARS),
        login=None if peer.login is None else plain(peer.login, MAX_NAME_CHARS),
        tags=tuple(plain(tag, MAX_NAME_CHARS) for tag in peer.tags),
    )
