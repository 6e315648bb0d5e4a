"""Where a session's inbox lies: ``{TS_STATE_DIR}/inboxes/inbox-…``, beside the directories of the sessions' nodes.

Those go when a node has logged out; an inbox stays, and the same session (or project, see `statedir.session_identity`)
finds it again. It is a directory of `statedir`'s own kind, with its lock and its record: two processes never share one,
the second gets one of its own, and of two that are free the one that was used last is taken up. Each control server has
its own, since the ids of nodes mean something to it alone.

All calls but `sweep` block on the file system.
"""

from __future__ import annotations

import logging
import time

import anyio
import anyio.to_thread

from cctailscale import statedir
from cctailscale.agents.unread import FOLDER
from cctailscale.config import Settings
from cctailscale.errors import InboxUnusable, StateDirError

log = logging.getLogger(__name__)

_BASE = "inbox"
KEPT_SECONDS = 7 * 24 * 60 * 60


def identity(settings: Settings) -> str:
    """Who this session's inbox belongs to (see `statedir.session_identity`)."""
    return statedir.session_identity(settings.session_id, settings.project_dir, ephemeral=settings.ephemeral)


def claim(settings: Settings) -> statedir.SessionDir:
    """This session's directory, locked by this process. Raises InboxUnusable."""
    root, owner = statedir.below(settings.state_dir, FOLDER), identity(settings)
    try:
        # What a kept device's session leaves is swept after a week as well, hence `ephemeral`.
        return statedir.claim(root, identity=owner, base=_BASE, control_url=settings.control_url, ephemeral=True)
    except StateDirError as error:
        raise InboxUnusable(error.path, error.problem, error.next_step) from error


def leave(directory: statedir.SessionDir, empty: bool) -> None:
    """Lets the directory go: for good if nothing is in it, else its week begins. Never raises."""
    with directory:
        try:
            if empty:
                directory.remove()
            else:
                directory.mark_used()
        except StateDirError as error:
            log.info("%s", error)


async def sweep(settings: Settings) -> None:
    """Removes the inboxes that nobody has used for a week. Never raises; what stays, a later start finds."""
    expired = time.time() - KEPT_SECONDS
    try:
        await anyio.to_thread.run_sync(statedir.sweep_unused, settings.state_dir / FOLDER, expired)
    except (StateDirError, OSError) as error:
        log.info("old inboxes stay for now: %s", error)
