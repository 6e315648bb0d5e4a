"""A team that is kept in this process: its commands one at a time, its leases, and what it tells of itself.

A command is decided on the team in memory, committed, and only then true here. It runs as a task of the lead's own: who
asked for it may be cancelled at any moment, by any means, and no commit is without its effect in memory. What a
cancelled caller does not learn it gets by asking again under the same id.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, ParamSpec, Self, TypeVar

import anyio
import anyio.abc

from cctailscale.errors import CcTailscaleError, NoTeam, TeamRefused, TeamUnusable
from cctailscale.teams import keys, leases, listing, rules
from cctailscale.teams.commands import Command, Disband, Join, Lapse, Leave, Remove, Return, TaskCommand
from cctailscale.teams.leases import Leases
from cctailscale.teams.model import Change, Event, Facts, Identity, Refused, Team
from cctailscale.teams.store import Answered, AnsweredBefore, Moved
from cctailscale.teams.wire import MAX_EVENTS, Answer, EventPage, Joined, JoinRequest, No, TaskPage, TaskQuery, TeamView

if TYPE_CHECKING:
    from cctailscale.teams.keys import LeadKey
    from cctailscale.teams.store import TeamStore

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
# The node ids that are on the tailnet; None: that is not known now.
Present = Callable[[], Awaitable[Collection[str] | None]]

# All followers read the same last events at the same moment; those are told from memory.
RECENT_EVENTS = 1_000
# Another writer is let in before us so often; after that something is wrong with it.
MAX_MOVES = 10
# The list of all peers is large in a large tailnet.
PRESENT_SECONDS = 5.0


def _now() -> datetime:
    return datetime.now(UTC)


async def _nobody_knows() -> None:
    return None


@dataclass(frozen=True, slots=True)
class _Id:
    """A member's id of a command, and what the command was."""

    member: str
    id: str
    digest: bytes


def _repeated(known: Answered, id: _Id) -> Answered | Refused:  # noqa: A002 - a command's
    """What the second command under an id gets."""
    return known if known.digest == id.digest else Refused("id_taken", "That id was used before.")


def _concerns(event: Event) -> str:
    """The member to whom, or to whose claim, another one has done this; "" where there is none."""
    return "" if event.member is None or event.member.id == event.by else event.member.id


class _Turn(Generic[T]):
    """A call that has its turn, whatever becomes of the one who waits for it."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._done = anyio.Event()
        self._value: T
        self._error: Exception | None = NoTeam()  # if the lead ends before

    async def take(self, one_at_a_time: anyio.Lock) -> None:
        try:
            async with one_at_a_time:
                with anyio.CancelScope(shield=True):
                    self._value = await self._call()
            self._error = None
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        finally:
            self._done.set()

    async def outcome(self) -> T:
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value


class Lead:
    """Made by `opened`, which also ends it; after that commands and waiting for events raise NoTeam.

    Whatever changes the team raises TeamUnusable if the store fails; then nothing was changed.
    """

    def __init__(
        self,
        team: Team,
        store: TeamStore,
        key: LeadKey,
        lease: Leases,
        now: Callable[[], datetime],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._team = team
        self._store = store
        self._key = key
        self._leases = lease
        self._now = now
        self._tasks = tasks
        self._one_at_a_time = anyio.Lock(fast_acquire=True)
        self._open = True
        self._recent: deque[Event] = deque(maxlen=RECENT_EVENTS)
        self._moved = anyio.Event()  # set at the next change
        self._concerned: dict[str, anyio.Event] = {}  # of members who wait for what others do to them
        self._seen: dict[str, datetime] = {}
        self._unwritten: set[str] = set()  # members whose `_seen` the store does not have
        self._present: Collection[str] | None = None

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        store: TeamStore,
        key: LeadKey,
        lease_seconds: float,
        *,
        present: Present = _nobody_knows,
        now: Callable[[], datetime] = _now,
        clock: Callable[[], float] = time.monotonic,
    ) -> AsyncIterator[Self]:
        """The team in `store`, every lease in full. `clock` is monotonic. Raises TeamUnusable."""
        team = await store.load()
        lease = Leases(lease_seconds, clock, lambda: now().timestamp())
        async with anyio.create_task_group() as tasks:
            lead = cls(team, store, key, lease, now, tasks)
            tasks.start_soon(lead._watch)
            tasks.start_soon(lead._look, present)
            try:
                yield lead
            finally:
                lead._open = False
                lead._moved.set()
                tasks.cancel_scope.cancel()

    # ---- what it tells ----------------------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        return self._team.facts

    @property
    def lease_seconds(self) -> float:
        return self._leases.seconds

    def member_of(self, node_id: str) -> str:
        """The member whose device this is. Raises TeamRefused: not_member, removed, disbanded."""
        if self.facts.disbanded:
            raise TeamRefused("disbanded", f'The team "{self.facts.name}" was disbanded by its lead.')
        member = self._team.of_node(node_id)
        if member is None or member.gone == "left":
            raise TeamRefused("not_member", f'Your device is no member of the team "{self.facts.name}".')
        if member.gone == "removed":
            raise TeamRefused("removed", f'The lead has removed you from the team "{self.facts.name}".')
        return member.id

    def team(self, you: str) -> TeamView:
        """Who is in it, and how far it is, for a member."""
        return listing.view(self._as_seen(), you, self.lease_seconds)

    def names(self) -> dict[str, str]:
        """By id, the names of the devices of those who are in it."""
        return {member.id: member.identity.name for member in self._team.members.values() if not member.gone}

    def tasks(self, query: TaskQuery, you: str) -> TaskPage:
        """A page of the list. Raises TeamRefused: there is no such page, or no such owner."""
        page = listing.page(self._team, query, you)
        if isinstance(page, Refused):
            raise TeamRefused(page.code, page.message)
        return page

    async def moved(self, after: int) -> None:
        """Returns once there is an event past `after`, or this is the lead no more."""
        if after == self.facts.version:
            await self._moved.wait()

    async def events(self, after: int, seconds: float) -> EventPage:
        """The first of the events past `after`, as soon as there are some; none after `seconds`."""
        with anyio.move_on_after(seconds):
            await self.moved(after)
        if not self._open:
            raise NoTeam
        events = await self._events(after)
        if events is None:
            return EventPage(events=(), version=self.facts.version, reset=True, lease_seconds=self.lease_seconds)
        page = listing.paged(events)
        return EventPage(events=page, version=page[-1].seq if page else after, lease_seconds=self.lease_seconds)

    async def concerned(self, member: str, after: int) -> None:
        """Returns once there is an event past `after` of what somebody else has done to this member or its claim."""
        if not any(_concerns(event) == member for event in self._since(after)):
            await self._concerned.setdefault(member, anyio.Event()).wait()

    def proof(self, nonce: str, lead_node: str, asker_node: str) -> str:
        """The signature that shows `asker_node` that `lead_node`, which is this one, has the team's key."""
        return self._key.prove(team=self.facts.id, nonce=nonce, lead=lead_node, asker=asker_node)

    # ---- what it is told --------------------------------------------------------------------------------------------

    def heard(self, member: str) -> None:
        """Something came from the member."""
        self._leases.heard(member)
        self._seen[member] = self._now()
        self._unwritten.add(member)

    async def command(self, member: str, id: str, command: TaskCommand) -> Answer:  # noqa: A002 - the field's name
        """Carries out a member's command, or says why not. The same one under the same id gets the first answer."""
        digest = hashlib.sha256(command.model_dump_json().encode()).digest()
        return await self._alone(self._command, _Id(member, id, digest), command)

    async def join(self, identity: Identity, request: JoinRequest, lead_node: str) -> Joined:
        """Makes the device a member: a new one, or the one that it was. Raises TeamRefused."""
        member, token, version = await self._alone(self._join, identity, request.token)
        self.heard(member)
        return Joined(
            team=self.facts.id,
            name=self.facts.name,
            public_key=self.facts.public_key,
            signature=self.proof(request.nonce, lead_node, identity.node_id),
            member=member,
            token=token,
            lease_seconds=self.lease_seconds,
            version=version,
        )

    async def returned(self, identity: Identity) -> None:
        """Notes the device that the lead has now."""
        await self._alone(self._granted, Return(identity, None), self.facts.lead)

    async def leave(self, member: str) -> None:
        """Ends a membership. Raises TeamRefused: a lead disbands."""
        await self._alone(self._granted, Leave(), member)

    async def remove(self, member: str) -> None:
        """Ends the membership of the member with that name or id, for good. Raises TeamRefused."""
        await self._alone(self._granted, Remove(member), self.facts.lead)

    async def disband(self) -> None:
        """Ends the team."""
        await self._alone(self._granted, Disband(), self.facts.lead)

    # ---- one at a time ----------------------------------------------------------------------------------------------

    async def _alone(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        if not self._open:
            raise NoTeam
        turn = _Turn(partial(call, *args, **kwargs))
        self._tasks.start_soon(turn.take, self._one_at_a_time)
        return await turn.outcome()

    async def _command(self, id: _Id, command: TaskCommand) -> Answer:  # noqa: A002 - as above
        outcome = await self._change(command, id.member, id)
        if isinstance(outcome, Refused):
            refused = No(code=outcome.code, message=outcome.message, task=outcome.task)
            return Answer(refused=refused, version=self.facts.version)
        if isinstance(outcome, Answered):
            return Answer(task=outcome.task, version=outcome.version)
        return Answer(task=outcome.task, version=outcome.facts.version)

    async def _join(self, identity: Identity, token: str | None) -> tuple[str, str, int]:
        """The member, its token, and the version of the team with it."""
        digest = token and keys.token_digest(token)
        if token and digest and any(member.token == digest for member in self._team.members.values()):
            change = await self._granted(Return(identity, digest), None)
        else:
            token = keys.new_token()
            change = await self._granted(Join(identity, keys.token_digest(token)), None)
        assert change.member is not None
        return change.member.id, token, change.facts.version

    async def _granted(self, command: Command, actor: str | None) -> Change:
        outcome = await self._change(command, actor)
        if isinstance(outcome, Refused):
            raise TeamRefused(outcome.code, outcome.message)
        assert isinstance(outcome, Change)
        return outcome

    async def _change(
        self,
        command: Command,
        actor: str | None,
        id: _Id | None = None,  # noqa: A002 - as above
    ) -> Change | Refused | Answered:
        """What the rules decide, and the store has committed; or what was answered to this id before."""
        for _ in range(MAX_MOVES):
            decided = rules.decide(self._team, command, actor, self._now())
            if isinstance(decided, Refused) or not decided.events:  # as it may be because it was carried out before
                known = await self._store.answered(id.member, id.id) if id else None
                return _repeated(known, id) if id and known else decided
            answered = Answered(id.member, id.id, id.digest, decided.task, decided.facts.version) if id else None
            try:
                await self._store.commit(decided, answered)
            except AnsweredBefore as before:
                assert id is not None
                return _repeated(before.answered, id)
            except Moved:
                self._recent.clear()
                self._is_now(await self._store.load())
            else:
                self._recent.extend(decided.events)
                for event in decided.events:
                    if concerned := self._concerned.pop(_concerns(event), None):
                        concerned.set()
                self._is_now(self._team.after(decided))
                return decided
        raise Moved

    def _is_now(self, team: Team) -> None:
        self._team = team
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    # ---- leases -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Takes the claims of those whose lease has lapsed, and writes down who was heard of."""
        written = time.monotonic()
        while True:
            await anyio.sleep(leases.TICK_SECONDS)
            try:
                async with self._one_at_a_time:
                    with anyio.CancelScope(shield=True):
                        await self._lapse()
                        if time.monotonic() - written >= self.lease_seconds / 3:
                            written = time.monotonic()
                            await self._write_seen()
            except TeamUnusable as error:
                log.warning("the team's leases could not be looked after: %s", error)
            except Exception:  # a defect in there must not end the session
                log.exception("the team's leases could not be looked after")

    async def _lapse(self) -> None:
        """Looked at and decided in one turn: who has been heard of until then keeps its claims."""
        members = self._team.members.values()
        devices = {m.id: m.identity.node_id for m in members if m.role != "lead" and not m.gone}
        lapsed = self._leases.lapsed(devices, self._present)
        owners = {task.owner for task in self._team.tasks.values()} if lapsed else set()
        lost = {member: reason for member, reason in lapsed.items() if member in owners}
        if lost:
            await self._change(Lapse(lost), None)

    async def _write_seen(self) -> None:
        self._seen = {member: at for member, at in self._seen.items() if member in self._team.members}
        unwritten, self._unwritten = self._unwritten & self._seen.keys(), set()
        if unwritten:
            await self._store.seen({member: self._seen[member] for member in unwritten})

    async def _look(self, present: Present) -> None:
        """Keeps knowing who is on the tailnet."""
        while True:
            known = None
            try:
                with anyio.move_on_after(PRESENT_SECONDS):
                    known = await present()
            except CcTailscaleError as error:
                log.debug("it is not known who is on the tailnet: %s", error)
            except Exception:  # as above
                log.exception("it is not known who is on the tailnet")
            self._present = known
            await anyio.sleep(PRESENT_SECONDS)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _as_seen(self) -> Team:
        """The team with the times at which members were last heard of."""
        team, seen = self._team, self._seen
        members = {
            key: member.model_copy(update={"last_seen": seen[key]}) if key in seen else member
            for key, member in team.members.items()
        }
        return Team(team.facts, members, team.tasks)

    async def _events(self, after: int) -> Sequence[Event] | None:
        """The first of the events past `after`; None if they cannot be told in full."""
        if after > self.facts.version:
            return None
        if self._recent and self._recent[0].seq <= after + 1:
            return list(self._since(after))[::-1][:MAX_EVENTS]
        return await self._store.events(after, MAX_EVENTS)

    def _since(self, after: int) -> Iterator[Event]:
        """The recent events past `after`, the newest first."""
        return takewhile(lambda event: event.seq > after, reversed(self._recent))
