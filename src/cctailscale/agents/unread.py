"""What waits unread, in one small file beside the inbox: for those who must know it without opening the inbox.

That is Claude Code's hook (`commands/inbox.py`), which has milliseconds, and whose words Claude takes as they come. So
the file holds counts and names of devices as WhoIs gave them, and nothing that a message says. This module loads
nothing beside the standard library.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cctailscale.statedir import replace_file

if TYPE_CHECKING:
    from cctailscale.agents.inbox import Inbox

log = logging.getLogger(__name__)

# Where inboxes lie in the state directory. No session's directory is called so: those end in a hyphen and hex digits.
FOLDER = "inboxes"
FILE = "unread.json"
# One line has room for so many; who else wrote is known from the inbox.
MAX_SENDERS = 3
# Three names and a hash have less than 600.
_MAX_BYTES = 4096
_VERSION = 1
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A DNS name, and short enough for a sentence. Of it the peer's user chose at most the first label.
_NAME = re.compile(rf"(?=.{{1,120}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Unread(NamedTuple):
    """How many messages wait for a session (`statedir.session_identity`), and whose: the names with the most first."""

    session: str
    total: int
    senders: tuple[tuple[str, int], ...]


def write(folder: Path, unread: Unread) -> None:
    """Writes the file in an inbox's folder; where nothing is unread there is none. Raises OSError."""
    if not unread.total:
        (folder / FILE).unlink(missing_ok=True)
        return
    # A name of another form is counted, and not told.
    senders = [[name, count] for name, count in unread.senders if _NAME.match(name)]
    content = {"version": _VERSION, "session": unread.session, "unread": unread.total, "senders": senders}
    replace_file(folder / FILE, json.dumps(content).encode())


def read(state_dir: Path, session: str | None = None) -> list[Unread]:
    """What waits in each inbox, or in those of one session. What cannot be read, or is not ours, waits nowhere."""
    found = []
    with contextlib.suppress(OSError), os.scandir(state_dir / FOLDER) as entries:
        for entry in entries:
            unread = _read(Path(entry.path, FILE))
            if unread is not None and session in (None, unread.session):
                found.append(unread)
    return found


async def keep(inbox: Inbox, session: str) -> None:
    """Keeps the file beside `inbox` true until cancelled. A disk that fails is told in the log, and stops nothing."""
    import anyio
    import anyio.to_thread

    from cctailscale.errors import InboxUnusable

    written: Unread | None = None

    async def settle() -> None:
        nonlocal written
        try:
            senders = await inbox.senders(MAX_SENDERS)
            unread = Unread(session, (await inbox.counts()).unread, tuple(senders))
            if unread != written:
                await anyio.to_thread.run_sync(write, inbox.folder, unread)
                written = unread
        except (OSError, InboxUnusable) as error:
            log.info("the file for hooks is not up to date: %s", error)

    try:
        while True:
            changed = inbox.changed
            await settle()
            await changed.wait()
    finally:
        with anyio.CancelScope(shield=True):
            await settle()


def _read(path: Path) -> Unread | None:
    """The content of a file that only this user can have written, if it is sound."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
            return None
        return _parsed(os.read(fd, _MAX_BYTES + 1))
    except OSError:
        return None
    finally:
        os.close(fd)


def _parsed(content: bytes) -> Unread | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    match found:
        case {"version": int(version), "session": str(session), "unread": int(total), "senders": list(listed)}:
            senders = [(entry[0], entry[1]) for entry in listed if _is_sender(entry)]
            sound = version == _VERSION and total > 0 and len(senders) == len(listed) <= MAX_SENDERS
            return Unread(session, total, tuple(senders)) if sound else None
    return None


def _is_sender(entry: object) -> bool:
    match entry:
        case [str(name), int(count)]:
            return bool(_NAME.match(name)) and count > 0
    return False
