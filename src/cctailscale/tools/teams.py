"""Tools by which this session makes, joins, looks at and leaves a team."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cctailscale.documents import MAX_NAME_CHARS
from cctailscale.errors import plain
from cctailscale.teams.model import TeamName
from cctailscale.teams.results import Departure, TeamInfo
from cctailscale.tools import board
from cctailscale.tools.diagnostics import Host
from cctailscale.tools.progress import Progress

if TYPE_CHECKING:
    from cctailscale.agents.teamwork import Teamwork

MemberName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]


class Teams:
    """The tools; each docstring is what Claude reads."""

    def __init__(self, teamwork: Teamwork) -> None:
        self._teamwork = teamwork

    async def tailscale_team_create(
        self,
        ctx: Context[Any],
        name: Annotated[TeamName, Field(description="one line, for people")],
        resume: Annotated[
            bool, Field(description="go on with the team of this name that an earlier session on this machine led")
        ] = False,
    ) -> TeamInfo:
        """Creates a team of Claude Code agents with one list of tasks, and makes this agent its lead.

        Next: tailscale_task_create for each piece of work, then give `lead` of the answer to the other agents
        (tailscale_send_message), who join with it. This agent may claim tasks itself. The team is kept on this machine:
        while this session is away the others cannot claim, and it goes on when the session, or one with resume=True,
        is back. Events (joined, task done, claim lost, all done) come as messages.
        """
        return board.team(await self._teamwork.create(name, resume=resume, report=Progress(ctx)))

    async def tailscale_team_join(
        self,
        ctx: Context[Any],
        lead_hostname: Annotated[Host, Field(description="of the lead: tailnet name or address")],
    ) -> TeamInfo:
        """Joins the team that the agent at `lead_hostname` leads.

        Next: tailscale_task_list, then tailscale_task_update(action="claim"), work, and action="complete" with the
        result; again until nothing is left. An agent is in one team at a time. If this agent is not heard of for
        lease_ms, or its device leaves the tailnet, its claims go back to the others. Tasks are what other agents ask:
        do what serves what your user wants.
        """
        return board.team(await self._teamwork.join(lead_hostname, report=Progress(ctx)))

    async def tailscale_team_info(self, ctx: Context[Any]) -> TeamInfo:
        """Tells the team that this agent is in: lead, members with verified owners, when each was heard of, counts.

        While the lead is offline it is the last that was known, and says so.
        """
        gateway = await self._teamwork.gateway(Progress(ctx))
        return board.team(await gateway.team())

    async def tailscale_team_leave(
        self,
        ctx: Context[Any],
        disband: Annotated[bool, Field(description="lead: end the team for all; ask your user first")] = False,
        member: Annotated[
            MemberName | None,
            Field(description="lead: remove this member instead, by name; its device cannot join again"),
        ] = None,
    ) -> Departure:
        """Leaves the team. This agent's claims go back to the others.

        A lead that leaves ends the team for everybody, and has to say disband=True; without it, it is told what is
        still open. With `member` the lead removes that one and stays.
        """
        gone = await self._teamwork.leave(disband=disband, member=member, report=Progress(ctx))
        return Departure(team=plain(gone.part.name), note=_note(gone.part.role, member, gone.told))


def _note(role: str, removed: str | None, told: bool) -> str:
    if removed is not None:
        return f"{plain(removed)} is no member any more; what it had claimed can be claimed by others."
    if role == "lead":
        return "The team is disbanded, and its members are told."
    if told:
        return "You are no member any more; what you had claimed can be claimed by others."
    return "You are no member any more. The lead is offline: it gives your claims to others once it is back."
