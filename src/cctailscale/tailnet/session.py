"""This session's place on the disk: its directory, and in it the state of the device that it has now.

A device's state lies in a numbered folder, so that a replacement can be built beside the device it replaces.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cctailscale import naming, statedir
from cctailscale.config import Settings

# ipn/store.FileStore of tsnet: written with the first key, so that a folder without it holds no device.
STATE_FILE = "tailscaled.state"


class Session:
    """A claimed directory. All methods block on the file system."""

    def __init__(self, directory: statedir.SessionDir) -> None:
        self._directory = directory
        self._last = 0  # the highest number of a folder so far
        for folder in self._folders():
            if not (folder / STATE_FILE).is_file():  # a process was killed while it made it
                shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    def claim(cls, settings: Settings) -> "Session":
        """Takes up this session's directory or makes one. Raises StateDirError."""
        return cls(statedir.claim(settings.state_dir, **_owner(settings)))

    @staticmethod
    def in_use(settings: Settings) -> str | None:
        """The name of this session's device while another process has its directory. Raises StateDirError."""
        return statedir.in_use(settings.state_dir, **_owner(settings))

    @property
    def hostname(self) -> str:
        """The name to ask control for."""
        return self._directory.hostname

    def kept_states(self) -> list[Path]:
        """The folders of devices that an earlier process had; the newest first, where a crash left two."""
        return [folder for folder in reversed(self._folders()) if (folder / STATE_FILE).is_file()]

    def keep_only(self, folder: Path) -> None:
        """Removes the state of all devices but one."""
        for other in self._folders():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)

    def new_state(self) -> Path:
        """An empty folder for a new device. No number is used twice: a node that is closing may still write."""
        self._last = max([self._last, *map(_number, self._folders())]) + 1
        folder = self._directory.path / f"device-{self._last}"
        folder.mkdir(mode=0o700)
        return folder

    def _folders(self) -> list[Path]:
        """In the order in which they were made."""
        folders = [path for path in self._directory.path.glob("device-*") if path.name.partition("-")[2].isdecimal()]
        return sorted(folders, key=_number)

    def end(self, discarded: Iterable[Path] = ()) -> None:
        """Lets the directory go. It is removed if no device has its state in it any more. Raises StateDirError.

        `discarded`: folders that somebody is removing at this moment, which is not waited for.
        """
        for folder in discarded:
            shutil.rmtree(folder, ignore_errors=True)
        if self.kept_states():
            self._directory.close()
        else:
            self._directory.remove()


def _owner(settings: Settings) -> dict[str, Any]:
    """Whose directory it is, as `statedir` asks for it."""
    user, context = naming.user_name(settings.user), naming.context_name(settings.project_dir)
    return {
        "identity": statedir.session_identity(settings.session_id, settings.project_dir, ephemeral=settings.ephemeral),
        "base": naming.base_label(user, context, settings.hostname),
        "control_url": settings.control_url,
        "ephemeral": settings.ephemeral,
    }


def _number(folder: Path) -> int:
    return int(folder.name.partition("-")[2])
