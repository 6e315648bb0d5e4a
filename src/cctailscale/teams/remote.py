"""A team that another agent keeps: its lead is asked over the tailnet, and given up within seconds if it is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol, get_args
from urllib.parse import urlencode

import anyio

from cctailscale.documents import MAX_DOCUMENT_BYTES
from cctailscale.errors import (
    AgentRefused,
    AnswerLost,
    DialError,
    LeadOffline,
    LocalApiError,
    NoAgent,
    NodeError,
    TeamEnded,
    TeamRefused,
    TeamUnusable,
)
from cctailscale.teams.commands import Complete, Delete, TaskCommand
from cctailscale.teams.gateway import task_of
from cctailscale.teams.membership import MAX_QUEUED, MembershipFile, Queued
from cctailscale.teams.model import RefusalCode, Task
from cctailscale.teams.replica import Replica
from cctailscale.teams.telling import names_of
from cctailscale.teams.wire import (
    Answer,
    CommandRequest,
    EventPage,
    LeaveRequest,
    TaskPage,
    TaskQuery,
    TeamView,
)

log = logging.getLogger(__name__)

Method = Literal["GET", "POST"]

# What the lead's rules refuse with, as the codes of its agent's refusals.
RULES = frozenset(get_args(RefusalCode))
# A call has ended by then, whatever becomes of the lead.
CALL_SECONDS = 5.0
# Of one try. A lead that lives answers within some hundred milliseconds; then it is looked for elsewhere.
TRY_SECONDS = 2.0
# A lead that has just gone is being restarted, perhaps: until it has been away for CALL_SECONDS it is looked for so
# often. After that once a call.
LOOK_AGAIN_SECONDS = 0.25

# The lead is not there, and nothing has gone out to it.
_NOT_THERE = (DialError, LocalApiError, NoAgent, NodeError)
# Nor is it where this is said: its process has begun again, and has not opened the team yet.
_NOT_YET = frozenset({"no_such_team", "not_found", "not_running"})


class _Away(Exception):  # noqa: N818 - not an error that anybody sees
    """The lead does not answer at the place where it was. `unsure`: it may have been told all the same."""

    def __init__(self, *, unsure: bool) -> None:
        super().__init__()
        self.unsure = unsure


class Way(Protocol):
    """To the agent that leads the team, which it finds again when it has moved."""

    async def ask(self, method: Method, path: str, body: bytes | None, max_bytes: int) -> bytes:
        """What the lead answers; `path` follows on /v1/. The caller bounds it.

        Raises DialError, LocalApiError, NoAgent, NodeError: nothing has gone out to it; AnswerLost, AgentRefused.
        """
        ...

    async def find(self) -> bool:
        """Looks once for the lead wherever it may be. Whether it is found: it has proven to have the team's key."""
        ...

    async def rejoin(self) -> None:
        """Has the lead take this session's present device for the member that it is, by its token. Raises as `ask`."""
        ...


class RemoteGateway:
    """A TeamGateway. `ended` is set once the team is no more for this session.

    `team` and `tasks` answer from `replica`, marked by `as_of`, while the lead is offline. Beside TeamGateway's errors
    every call raises AgentRefused: the lead's agent turns this one away, for a reason that it says.
    """

    def __init__(self, file: MembershipFile, way: Way, replica: Replica | None = None) -> None:
        self.replica = replica
        self.ended: TeamEnded | None = None
        self._file = file
        self._way = way
        self._away_since: float | None = None  # monotonic
        self._poll: anyio.CancelScope | None = None
        self._leaves = False

    async def team(self) -> TeamView:
        try:
            answer = await self._call("GET", self._path("team"), max_bytes=TeamView.max_bytes)
        except LeadOffline:
            if self.replica is None:
                raise
            return self.replica.view()
        return TeamView.from_json(answer).model_copy(update={"as_of": None})

    async def names(self, members: Collection[str]) -> Mapping[str, str]:
        """As TeamGateway. The lead is asked only about somebody of whose joining there is no news yet."""
        if self.replica is not None and self.replica.names.keys() >= set(members):
            return self.replica.present
        return names_of(await self.team())

    async def tasks(self, query: TaskQuery) -> TaskPage:
        asked = query.model_dump(mode="json", exclude_defaults=True)
        try:
            answer = await self._call("GET", self._path("team/tasks", **asked), max_bytes=TaskPage.max_bytes)
        except LeadOffline:
            if self.replica is None:
                raise
            return self.replica.page(query)
        return TaskPage.from_json(answer).model_copy(update={"as_of": None})

    async def command(self, id: str, command: TaskCommand) -> Task:  # noqa: A002 - the field's name
        """As TeamGateway. A `Complete` is kept while the lead is offline, and the error says so."""
        request = CommandRequest(team=self._file.now.team, id=id, command=command)
        try:
            answer = Answer.from_json(
                await self._call("POST", "team/command", request.to_json(), max_bytes=Answer.max_bytes)
            )
        except LeadOffline as error:
            if isinstance(command, Complete) and await self._kept(id, command):
                raise LeadOffline(error.lead, error.since, kept=True) from error
            raise
        task = task_of(answer)
        if self.replica is not None:
            self.replica.put(task, deleted=isinstance(command, Delete))
        return task

    async def events(self, after: int, seconds: float) -> EventPage:
        """As TeamGateway. It does not look for a lead that is gone: LeadOffline says so at once.

        It ends too when another call finds that the lead is gone: a connection to a process that was killed is silent.
        """
        path = self._path("team/events", after=after, wait=seconds)
        with anyio.CancelScope() as self._poll:
            answer = await self._call("GET", path, max_bytes=EventPage.max_bytes, waits=seconds, looks=False)
            return EventPage.from_json(answer)
        raise self._offline(unsure=False)

    async def leave(self) -> None:
        """As TeamGateway; whether it succeeds or not, this session does not come back by its token after that."""
        self._leaves = True
        await self._call("POST", "team/leave", LeaveRequest(team=self._file.now.team).to_json())

    async def find(self) -> bool:
        """Looks for the lead once, wherever it may be."""
        return await self._way.find()

    def _path(self, path: str, **query: str | float) -> str:
        asked = {"team": self._file.now.team} | {
            name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()
        }
        return f"{path}?{urlencode(asked)}"

    async def _kept(self, id: str, command: Complete) -> bool:  # noqa: A002 - as above
        """Whether the call is on the disk now, in the place of an earlier one about the same task."""
        queued = self._file.now.queued
        if any(each.id == id for each in queued):  # this is it, tried again
            return True
        others = tuple(each for each in queued if each.command.task != command.task)
        if len(others) >= MAX_QUEUED:
            return False
        asked = Queued(id=id, command=command, asked=datetime.now(UTC))
        try:
            await self._file.change(queued=(*others, asked))
        except TeamUnusable as error:
            log.warning("what was completed cannot be kept for the lead: %s", error.happened)
            # What the caller is told is not kept must not be sent later.
            still = (each for each in self._file.now.queued if each.id != id)
            self._file.note(queued=(*(each for each in queued if each not in others), *still))
            return False
        return True

    # ---- one call ---------------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: Method,
        path: str,
        body: bytes | None = None,
        *,
        max_bytes: int = MAX_DOCUMENT_BYTES,
        waits: float = 0.0,
        looks: bool = True,
    ) -> bytes:
        """The lead's answer. All tries together take `waits` and CALL_SECONDS. Raises LeadOffline, TeamEnded."""
        if self.ended is not None:
            raise self.ended
        unsure = False
        with anyio.move_on_after(waits + CALL_SECONDS):
            while True:
                before, unsure = unsure, True  # if the time ends in there
                try:
                    with anyio.fail_after(waits + TRY_SECONDS):
                        answer = await self._answer(method, path, body, max_bytes)
                except _Away as away:
                    unsure = before or away.unsure
                except TimeoutError:
                    pass
                else:
                    self._away_since = None
                    self._file.hear(datetime.now(UTC))
                    return answer
                self._away_since = self._away_since or time.monotonic()
                if not looks:
                    break
                if self._poll is not None:
                    self._poll.cancel()
                if not await self._found(self._away_since + CALL_SECONDS):
                    break
        raise self._offline(unsure=unsure and method == "POST")

    def _offline(self, *, unsure: bool) -> LeadOffline:
        return LeadOffline(self._file.now.lead.name, self._file.now.heard, unsure=unsure)

    async def _found(self, until: float) -> bool:
        """Whether the lead is found by a monotonic time; it is looked for once at least."""
        while not await self._way.find():
            if time.monotonic() >= until:
                return False
            await anyio.sleep(LOOK_AGAIN_SECONDS)
        return True

    async def _answer(self, method: Method, path: str, body: bytes | None, max_bytes: int) -> bytes:
        """The lead's answer, if it is where it was. A device that it does not know is made known to it first."""
        try:
            try:
                return await self._way.ask(method, path, body, max_bytes)
            except AgentRefused as refused:
                if refused.code != "not_member":
                    raise
            await self._rejoined()
            return await self._way.ask(method, path, body, max_bytes)
        except AnswerLost as error:
            raise _Away(unsure=True) from error
        except _NOT_THERE as error:
            raise _Away(unsure=False) from error
        except AgentRefused as refused:
            if refused.code in _NOT_YET:
                raise _Away(unsure=False) from refused
            if refused.code in TeamEnded.WAYS:
                raise self._end(TeamEnded.WAYS[refused.code]) from refused
            if refused.code in RULES:
                raise TeamRefused(refused.code, refused.reason) from refused
            raise

    async def _rejoined(self) -> None:
        """Raises TeamEnded: the lead does not take the token, or this session leaves."""
        if self._leaves:
            raise self._end("was left by this session")
        try:
            await self._way.rejoin()
        except AgentRefused as refused:
            if refused.code not in RULES - _NOT_YET - TeamEnded.WAYS.keys():  # the policy, or a lead with a full disk
                raise
            raise self._end(f"does not take this session back: {refused.reason}".rstrip(".")) from refused

    def _end(self, why: str) -> TeamEnded:
        self.ended = TeamEnded(self._file.now.name, why)
        return self.ended
