"""This session's place on the disk: its directory, and in it the state of the device that it has now.

A device's state lies in a numbered folder, so that a replacement can be built beside the device it replaces.
"""

from pathlib import Path

from cctailscale import naming, statedir
from cctailscale.config import Settings

# ipn/store.FileStore of tsnet: written with the first key, so that a folder without it holds no device.
STATE_FILE = "tailscaled.state"


class Session:
    """A claimed directory. All methods block on the file system."""

    def __init__(self, directory: statedir.SessionDir) -> None:
        self._directory = directory
        self.swept = False  # whether what killed sessions left was looked at

    @classmethod
    def claim(cls, settings: Settings) -> "Session":
        """Takes up this session's directory or makes one. Raises StateDirError."""
        user = naming.user_name(settings.user)
        context = naming.context_name(settings.project_dir)
        return cls(
            statedir.claim(
                settings.state_dir,
                identity=statedir.session_identity(
                    settings.session_id, settings.project_dir, ephemeral=settings.ephemeral
                ),
                base=naming.base_label(user, context, settings.hostname),
                control_url=settings.control_url,
                ephemeral=settings.ephemeral,
            )
        )

    @property
    def hostname(self) -> str:
        """The name to ask control for."""
        return self._directory.hostname

    def kept_state(self) -> Path | None:
        """The folder of the device that an earlier process had, the newest if a crash left two."""
        kept = [folder for folder in self._folders() if (folder / STATE_FILE).is_file()]
        return kept[-1] if kept else None

    def new_state(self) -> Path:
        """An empty folder for a new device."""
        folders = self._folders()
        folder = self._directory.path / f"device-{int(folders[-1].name.partition('-')[2]) + 1 if folders else 1}"
        folder.mkdir(mode=0o700)
        return folder

    def _folders(self) -> list[Path]:
        folders = [path for path in self._directory.path.glob("device-*") if path.name.partition("-")[2].isdecimal()]
        return sorted(folders, key=lambda path: int(path.name.partition("-")[2]))

    def end(self, forget: bool) -> None:
        """Lets the directory go; with `forget` it is removed, its device being logged out."""
        if forget:
            self._directory.remove()
        else:
            self._directory.close()
