"""What a session keeps of its part in a team, so that it goes on with it after a crash, a restart or a new device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import anyio
import anyio.to_thread
from pydantic import Field

from cctailscale.documents import MAX_NAME_CHARS, Document, Id, Time
from cctailscale.errors import TeamUnusable
from cctailscale.teams import kept
from cctailscale.teams.commands import Complete
from cctailscale.teams.model import Identity, MemberId, Role, TeamName
from cctailscale.teams.wire import Lease, PublicKey, Token

FILE = "membership.json"
# Of calls that wait for the lead. A member has claimed fewer tasks than that at once.
MAX_QUEUED = 100
# The queue, with results of their full length in letters that need the most room.
MAX_BYTES = 8 * 1024 * 1024


class Queued(Document):
    """A call that was made while the lead was offline, under the id that it is sent with."""

    id: Id
    command: Complete
    asked: Time


class Membership(kept.Kept):
    """A part in a team, the lead's as well.

    `lead` and `lead_address` are who the lead was last, by WhoIs, and where; `heard` is when it last answered. The news
    up to `seen` have been told.
    """

    max_bytes: ClassVar[int] = MAX_BYTES

    team: Id
    name: TeamName
    public_key: PublicKey
    role: Role
    member: MemberId
    token: Token | None = Field(default=None, repr=False)  # None: the lead's own
    lead: Identity
    lead_address: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = ""
    lease_seconds: Lease
    heard: Time
    seen: int
    queued: Annotated[tuple[Queued, ...], Field(max_length=MAX_QUEUED)] = ()


def load(folder: Path) -> Membership | None:
    """The membership in a session's folder, for who only looks; None if it is in no team. Blocks.

    Raises TeamUnusable.
    """
    return kept.load(Membership, folder / FILE)


class MembershipFile:
    """A membership as it is now, with its file. Every call raises TeamUnusable if the disk fails it.

    `answered` is set when the lead answers for the next time.
    """

    def __init__(self, folder: Path, membership: Membership) -> None:
        self.folder = folder
        self.now = membership
        self.answered = anyio.Event()
        self.gone = False  # the session is in this team no more
        self._unsaved = False
        self._writing = anyio.Lock()

    @classmethod
    async def found(cls, folder: Path) -> Self | None:
        """The one in the folder; None if there is none. A file that cannot be used is kept under another name."""
        path = folder / FILE
        try:
            membership = await anyio.to_thread.run_sync(kept.read, Membership, path)
        except kept.Unfit as error:
            aside = await anyio.to_thread.run_sync(kept.set_aside, path)
            raise TeamUnusable(
                aside, f"{error.problem}, so it was set aside under this name", error.next_step
            ) from error
        return None if membership is None else cls(folder, membership)

    @classmethod
    async def made(cls, folder: Path, membership: Membership) -> Self:
        """A new one, on the disk when this returns."""
        file = cls(folder, membership)
        await file.change()
        return file

    def note(self, **fields: Any) -> None:  # noqa: ANN401 - those of Membership
        """Changes what need not be on the disk at once: see `save`."""
        self.now = self.now.model_copy(update=fields)
        self._unsaved = True

    async def change(self, **fields: Any) -> None:  # noqa: ANN401 - those of Membership
        """Changes fields; they are on the disk when this returns."""
        self.note(**fields)
        await self.save()

    async def save(self) -> None:
        """Writes what was noted, if anything was."""
        async with self._writing:
            if self.gone or not self._unsaved:
                return
            self._unsaved = False
            try:
                await anyio.to_thread.run_sync(kept.write, self.folder / FILE, self.now)
            except BaseException:
                self._unsaved = True
                raise

    async def remove(self) -> None:
        """The session is in no team any more."""
        async with self._writing:
            self.gone = True
            await anyio.to_thread.run_sync(kept.remove, self.folder / FILE)

    def hear(self, now: Time) -> None:
        """Notes that the lead has answered; that is written together with anything else."""
        self.now = self.now.model_copy(update={"heard": now})
        answered, self.answered = self.answered, anyio.Event()
        answered.set()
