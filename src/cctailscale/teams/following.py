"""A session's eye on its team: it waits for events, tells what is news, and sends what the lead could not be told.

The lead follows its own team in the same way. Each poll also tells a lead that this member lives (its lease).
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import anyio
import anyio.abc

from cctailscale.errors import CcTailscaleError, LeadOffline, TeamEnded, TeamRefused
from cctailscale.teams import news
from cctailscale.teams.gateway import TeamGateway
from cctailscale.teams.membership import MembershipFile, Queued
from cctailscale.teams.replica import Replica
from cctailscale.teams.wire import EventPage

log = logging.getLogger(__name__)

# Of a poll. It tells the lead that this member lives, each third of a lease; and a connection to a lead that was killed
# tells nothing, so that it takes so long to notice.
POLL_SECONDS = 10.0
# Between two pages, whatever the lead sends. It has a bound of its own (agents/hosting.py).
PAGE_SECONDS = 0.02
# A lead that is away is looked for after these, the longer the longer it is away; not longer than a third of a lease,
# which begins when it is back.
FIRST_PAUSE_SECONDS = 0.5
PAUSE_GROWS = 1.5
MAX_PAUSE_SECONDS = 15.0
# What is known is written down so often while it changes, and at the end.
SAVE_SECONDS = 5.0
# An inbox that takes nothing (it is full, or its disk) is tried again after that.
TELL_AGAIN_SECONDS = 30.0
# Of what waits to be told. Beyond it the lists have it.
MAX_ITEMS = 200

Tell = Callable[[news.Note], Awaitable[None]]


class Following:
    """One session's following of one team, in `run`.

    `find` looks for the lead once; `keep` is told of each replica that is read anew, and that there is none
    before. Both are for members alone.
    """

    def __init__(
        self,
        file: MembershipFile,
        gateway: TeamGateway,
        tell: Tell,
        *,
        replica: Replica | None = None,
        find: Callable[[], Awaitable[bool]] | None = None,
        keep: Callable[[Replica | None], None] | None = None,
    ) -> None:
        self._file = file
        self._gateway = gateway
        self._tell = tell
        self._replica = replica if replica is not None and replica.version >= file.now.seen else None
        self._find = find
        self._keep = keep
        self._after = file.now.seen  # events up to this one have been taken
        self._outcomes: dict[str, news.Note] = {}  # of calls that were kept, by their ids, until they are told
        self._items: list[news.Item] = []
        self._more = anyio.Event()  # there is something to tell
        self._pace = news.Pace()
        self._pause = FIRST_PAUSE_SECONDS
        self._saved: tuple[Replica, int] | None = None  # what is on the disk: which one, after how many changes

    async def run(self) -> TeamEnded:
        """Follows until the team is no more for this session, and says why that is."""
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._telling)
            beside.start_soon(self._saving)
            try:
                ended = await self._followed()
            finally:
                beside.cancel_scope.cancel()
        return ended

    async def _followed(self) -> TeamEnded:
        while True:
            try:
                await self._catch_up()
                page = await self._gateway.events(self._after, self._wait())
            except TeamEnded as ended:
                return ended
            except CcTailscaleError as error:
                log.info("the team cannot be followed now: %s", error.happened)
                await self._back(looks=isinstance(error, LeadOffline))
                continue
            self._pause = FIRST_PAUSE_SECONDS
            ended_by = await self._taken(page)
            if ended_by is not None:
                return TeamEnded(self._file.now.name, ended_by)
            await anyio.sleep(PAGE_SECONDS)

    def _wait(self) -> float:
        return min(self._file.now.lease_seconds / 3, POLL_SECONDS)

    async def _back(self, *, looks: bool) -> None:
        """Returns when the lead may be asked again: it has been found, by this or by a call.

        `looks`: it has to be found; else it is there, and has refused to be asked.
        """
        while True:
            answered, pause = self._file.answered, self._pause
            self._pause = min(PAUSE_GROWS * pause, MAX_PAUSE_SECONDS, self._file.now.lease_seconds / 3)
            with anyio.move_on_after(pause):
                await answered.wait()
                return
            if not looks or self._find is None or await self._find():
                return

    # ---- what happens -----------------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """First what was kept for the lead, then the lists, if they are not known."""
        for queued in self._file.now.queued:
            if queued.id not in self._outcomes:
                self._outcomes[queued.id] = await self._outcome(queued)
                self._more.set()
        if self._replica is None:
            self._know(await Replica.read(self._gateway))

    def _know(self, replica: Replica | None) -> None:
        self._replica = replica
        if self._keep is not None:
            self._keep(replica)

    async def _outcome(self, queued: Queued) -> news.Note:
        """What becomes of a call that was kept, which is sent with this."""
        refusal = None
        try:
            await self._gateway.command(queued.id, queued.command)
        except TeamRefused as error:
            refusal = error.message
        return news.outcome(self._file.now.team, self._file.now.name, queued, refusal)

    async def _taken(self, page: EventPage) -> str | None:
        """Takes the events in; why the team has ended with them, or None."""
        assert self._replica is not None
        now = self._file.now
        if page.lease_seconds != now.lease_seconds:
            self._file.note(lease_seconds=page.lease_seconds)
        if page.reset:  # what is between is in no list of events any more; the lists are read anew
            self._know(None)
            self._after = page.version
            self._file.note(seen=self._after)
            return None
        self._replica.take(page, datetime.now(UTC))
        view = self._replica
        for event in page.events:
            self._after = event.seq
            why = news.ended(event, now.member)
            if why is not None:
                return why
            item = news.item(event, now.member, view.lead, view.names)
            if item is not None:
                self._items = [*self._items, item][-MAX_ITEMS:]
        if self._items:
            self._more.set()
        else:
            self._file.note(seen=self._after)
        return None

    # ---- beside it --------------------------------------------------------------------------------------------------

    async def _telling(self) -> None:
        while True:
            wait = 0.0 if self._outcomes else self._pace.wait(self._items, time.monotonic())
            self._more = anyio.Event()
            with anyio.move_on_after(math.inf if wait is None else wait):
                await self._more.wait()
                continue
            try:
                await self._told()
            except CcTailscaleError as error:
                log.warning("news of the team could not be told: %s", error)
                await anyio.sleep(TELL_AGAIN_SECONDS)

    async def _told(self) -> None:
        for call, outcome in list(self._outcomes.items()):
            await self._tell(outcome)
            await self._file.change(queued=tuple(each for each in self._file.now.queued if each.id != call))
            del self._outcomes[call]
        items, after, now = self._items, self._after, self._file.now
        replica = self._replica
        note = news.message(now.team, now.name, items, lambda task: replica is None or replica.can_be_claimed(task))
        if note is not None:
            await self._tell(note)
            self._pace.told(items, time.monotonic())
        self._items = [each for each in self._items if each not in items]
        await self._file.change(seen=self._items[0].seq - 1 if self._items else after)

    async def _saving(self) -> None:
        try:
            while True:
                # Not in step: the sessions of one machine would all write at once.
                await anyio.sleep(SAVE_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                await self._save()
        finally:
            with anyio.CancelScope(shield=True):
                self._file.note()  # when the lead was heard
                await self._save()

    async def _save(self) -> None:
        """Never raises: who cannot write now writes later."""
        try:
            await self._file.save()
            known = self._replica
            if self._keep is None or known is None or self._file.gone:
                return
            state = (known, known.changes)
            if state != self._saved:
                await known.save(self._file.folder)
                self._saved = state
        except CcTailscaleError as error:
            log.warning("what is known of the team could not be written down: %s", error)
