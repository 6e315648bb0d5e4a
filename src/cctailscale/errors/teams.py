"""What goes wrong in a team."""

# The names are the field's words for what happened; "Error" at the end of each would say nothing more.
# ruff: noqa: N818

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from cctailscale.errors.text import CcTailscaleError, plain

# A refusal's sentences, with two names of devices in them.
MAX_REFUSAL_CHARS = 1000
# Of a task that is shown as it is now. It is JSON, which is read only if it is whole (tools/tasks.py sees to that).
MAX_PRESENT_CHARS = 1750

_NEXT_STEPS = {
    "not_member": "Join the team with tailscale_team_join.",
    "removed": "Ask the user of the lead.",
    "not_found": "tailscale_task_list has the tasks that there are.",
    "taken": "Claim another one: tailscale_task_update without an id takes the next.",
    "blocked": "Claim another one, or complete first what it waits for.",
    "completed": "Nothing is left to do for it.",
    "not_yours": "Leave it to its owner, or ask the lead.",
    "lead_only": "Ask the lead, with tailscale_send_message.",
    "unclaimed": "Claim it first, if it is still to be done.",
    "blocking": "Complete it, change what waits for it, or delete it with force.",
    "cycle": "Leave one of them out of blocked_by.",
    "stale": "Look at what it is now, and repeat the call with its version if it is still wanted.",
    "nothing_to_claim": "tailscale_task_list tells what the others work on and what waits for it.",
    "too_many": "Delete what is not needed any more.",
    "too_large": "Put large things into a file and name it.",
    "no_such_member": "tailscale_team_info has the members.",
    "no_such_page": "List the tasks again without a cursor.",
    "id_taken": "Call again.",
    "disbanded": "Leave it with tailscale_team_leave, then join or create another one.",
}


class TeamError(CcTailscaleError):
    """Something cannot be done with a team."""


class TeamRefused(TeamError):
    """The team's rules say no.

    `code` is model.RefusalCode, `message` says why; `present` is the task as it is now, as text.
    """

    def __init__(self, code: str, message: str, present: str | None = None) -> None:
        self.code = code
        self.message = plain(message, MAX_REFUSAL_CHARS)
        self.present = present
        shown = f" As it is now: {plain(present, MAX_PRESENT_CHARS)}" if present else ""
        super().__init__(
            self.message, f"Nothing was changed.{shown}", _NEXT_STEPS.get(code, "tailscale_task_list has the tasks.")
        )


class LeadOffline(TeamError):
    """The lead does not answer; `since` is when it last did. `kept`: the call is sent once it is back.

    `unsure`: the call has gone out, and may have been carried out.
    """

    def __init__(self, lead: str, since: datetime, *, kept: bool = False, unsure: bool = False) -> None:
        self.lead = lead
        self.since = since
        if kept:
            done = (
                "What you completed is kept here and sent when the lead is back; a message will tell what came of it."
            )
        elif unsure:
            done = "Whether this call was carried out is not known: look at tailscale_task_list when the lead is back."
        else:
            done = "Nothing was done."
        super().__init__(
            f"The lead {plain(lead)} has been offline since {since:%Y-%m-%dT%H:%M:%SZ}.",
            done,
            "Go on with what you claimed; the team is found again by itself when its lead is back.",
        )


class FalseLead(TeamError):
    """The agent at `name` says that it leads the team, and cannot prove it."""

    def __init__(self, name: str, team: str) -> None:
        super().__init__(
            f'{plain(name)} says that it leads the team "{plain(team)}", but does not have its key.',
            "It is not the lead that was joined, so nothing was sent to it.",
            "Tell your user; if the team was created anew, leave the old one first.",
        )


class NoTeam(TeamError):
    """This session is in no team."""

    def __init__(self) -> None:
        super().__init__(
            "This session is in no team.",
            "There are no tasks to work on.",
            "Create one with tailscale_team_create, or join one with tailscale_team_join.",
        )


class NoTeamToShow(TeamError):
    """No session whose files are below `root` is in a team, or in one called `name`; `known` are those there are."""

    def __init__(self, root: Path, name: str | None = None, known: Sequence[str] = ()) -> None:
        called = "" if name is None else f' called "{plain(name)}"'
        there = f"There is {plain(', '.join(known))}" if known else "There is none"
        super().__init__(
            f"No session on this machine is in a team{called}.",
            f"{there} below {plain(str(root))}.",
            "Ask Claude to create or join one, in a session with TS_ENABLE_TEAMS=1. TS_STATE_DIR and TS_CONTROL_URL "
            "have to be here what they are there.",
        )


class InTeam(TeamError):
    """This session is in a team already; `role`: "lead" or "member"."""

    def __init__(self, team: str, role: str) -> None:
        super().__init__(
            f'This session is in the team "{plain(team)}" already, as its {role}.',
            "A session is in one team at a time.",
            "Leave it first, with tailscale_team_leave.",
        )


class NoSuchTeam(TeamError):
    """There is none to go on with; `name` is what was asked for."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f'There is no team "{plain(name)}" to go on with: {plain(why)}.',
            "Nothing was created.",
            "Create it without resume, or name another one.",
        )


class NoTeamThere(TeamError):
    """The agent at `name` leads no team."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The agent at {plain(name)} leads no team.",
            "Nothing was joined.",
            "Name the agent that leads it: tailscale_agents tells who is in a team. Or ask its user to create one.",
        )


class DisbandFirst(TeamError):
    """The lead would leave its team, which ends it, and has not said that this is wanted.

    `unfinished` tasks are not completed, `in_progress` of them claimed; there are so many `others` in it.
    """

    def __init__(self, team: str, unfinished: int, in_progress: int, others: int) -> None:
        super().__init__(
            f'This session leads the team "{plain(team)}", which ends when its lead leaves.',
            f"Nothing was changed. Tasks that are not completed: {unfinished}, of them in progress: {in_progress}. "
            f"Other members, for whom it would be gone as well: {others}.",
            "If your user wants that, call again with disband=True.",
        )


class LedElsewhere(TeamError):
    """Another process of this machine leads the team."""

    def __init__(self, team: str) -> None:
        super().__init__(
            f'The team "{plain(team)}" is led by another process of this machine.',
            "One process leads a team at a time, so nothing was changed.",
            "Go on in that session, or end it and call again.",
        )


class TeamEnded(TeamError):
    """The team is no more for this member; `why` follows on its name, as those of WAYS do."""

    # By the code with which the lead refuses.
    WAYS: ClassVar[Mapping[str, str]] = {
        "disbanded": "was disbanded by its lead",
        "removed": "goes on without this session: its lead has removed it",
    }

    def __init__(self, team: str, why: str) -> None:
        self.why = why
        super().__init__(
            f'The team "{plain(team)}" {plain(why)}.',
            "This session is no member of it any more.",
            "Tell your user; join or create another one if there is still work for it.",
        )


class TeamUnusable(TeamError):
    """The file `path` of a team cannot be opened, read or written; `problem` follows on it ("is on a full disk")."""

    def __init__(self, path: Path, problem: str, next_step: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(
            f"The team's file {plain(str(path))} {problem}.",
            "Nothing was changed; what is in it stays.",
            next_step,
        )
