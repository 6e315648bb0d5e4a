"""Files that a tool writes: only new ones below the project's folder, and none that could steer an agent or a program.

What is written comes from the network, and the path from a model that has read what the network said. So a path leads
downwards from the project's folder, over no symbolic link, through no hidden folder (.git, .claude, .vscode hold hooks
and settings that run programs), and to no file that agents obey (CLAUDE.md, AGENTS.md). Each folder on the way is
opened relative to the one above and stays open: what is checked is what is written to, whatever is renamed meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from cctailscale.errors import SaveFailed, SaveRefused

# Files that agents take instructions from, as `_folded` has them.
OBEYED = frozenset({"claude.md", "claude.local.md", "agents.md"})
# Written at a time: a change of threads costs as much as writing some 100 kB.
PIECE_BYTES = 1 << 20
# New files are the user's as any others (the umask takes from it), but nothing from the network is made executable.
FILE_MODE = 0o666
# A file that is replaced keeps its mode, but for the permission to execute.
KEPT_MODE = 0o666
# What ext4, APFS and most others take.
MAX_NAME_BYTES = 255
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parts_of(project: Path, path: str) -> tuple[str, ...]:
    """The names on the way from the project's folder to `path`, which may be absolute. Raises SaveRefused."""
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in path):
        # Some file systems ignore invisible characters: to them ".git" with one before its dot is ".git".
        raise SaveRefused(path, "holds characters that cannot be seen")
    names = list(Path(path).parts)
    if Path(path).is_absolute():
        for root in (project, project.resolve()):
            if Path(path).is_relative_to(root):
                names = list(Path(path).relative_to(root).parts)
                break
        else:
            raise SaveRefused(path, f"lies outside of the project's folder ({project})")
    if project == Path("/"):
        raise SaveRefused(path, "has no project to lie in (the server runs in /, and CLAUDE_PROJECT_DIR is not set)")
    if path.endswith("/") or not names:
        raise SaveRefused(path, "names a folder and no file")
    for name in names:
        if name == "..":
            raise SaveRefused(path, "leads upwards (..)")
        if _folded(name).startswith("."):
            raise SaveRefused(path, "has a part that begins with a dot")
        if _folded(name) in OBEYED:
            raise SaveRefused(path, "is a file that agents take instructions from")
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise SaveRefused(path, f"has a part of more than {MAX_NAME_BYTES} bytes")
    return tuple(names)


def _folded(name: str) -> str:
    """A name as the file system that tells the fewest names apart has it: without case, forms, and final dots."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded.strip(" ").rstrip(". ") or folded


class NewFile:
    """A file on its way: written under a hidden name, in its place once `keep` was called. Its calls block.

    `sha256` is that of what was written so far.
    """

    def __init__(self, project: Path, path: str, *, overwrite: bool, mode: int) -> None:
        self._path = path
        self._overwrite = overwrite
        self._hash = hashlib.sha256()
        *folders, self._name = parts_of(project, path)
        self._folder = _opened(project, path, folders)
        try:
            kept = self._checked_place()
            self._temporary = f".{secrets.token_hex(8)}.part"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._temporary, flags, mode, dir_fd=self._folder)
            if kept is not None:
                os.fchmod(self._fd, kept & KEPT_MODE)
        except OSError as error:
            os.close(self._folder)
            raise SaveFailed(path, os.strerror(error.errno or 0)) from error
        except BaseException:
            os.close(self._folder)
            raise

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _checked_place(self) -> int | None:
        """The mode of the file that is to be replaced; None if there is none. Raises SaveRefused."""
        try:
            there = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(there.st_mode):
            raise SaveRefused(self._path, "is a symbolic link")
        if not stat.S_ISREG(there.st_mode):
            raise SaveRefused(self._path, "is there already and is no ordinary file")
        if not self._overwrite:
            raise SaveRefused(self._path, "is there already, and overwrite is not set")
        return there.st_mode

    def room(self, count: int) -> None:
        """Raises SaveFailed if the file system has no room for `count` bytes."""
        free = os.fstatvfs(self._fd)
        if count > free.f_bavail * free.f_frsize:
            raise SaveFailed(self._path, f"{count} bytes are to come, and there is room for fewer")

    def write(self, *pieces: bytes) -> None:
        """Raises SaveFailed."""
        try:
            for piece in pieces:
                self._hash.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise SaveFailed(self._path, os.strerror(error.errno or 0)) from error

    def keep(self) -> None:
        """Puts the file in its place. Raises SaveFailed, and SaveRefused if something has taken the place meanwhile."""
        try:
            self._close_file()  # some file systems tell only now that they are full
            self._checked_place()
            if self._overwrite:
                os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            else:
                self._link()
        except FileExistsError as error:
            raise SaveRefused(self._path, "is there already, and overwrite is not set") from error
        except OSError as error:
            raise SaveFailed(self._path, os.strerror(error.errno or 0)) from error

    def _link(self) -> None:
        """Renames, but never replaces: a link to a name that is taken fails."""
        try:
            os.link(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            # FAT and some network file systems have no links. The place was free a moment ago.
            os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def close(self) -> None:
        """Removes what is not in its place."""
        with contextlib.suppress(OSError):
            self._close_file()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=self._folder)
        os.close(self._folder)

    def _close_file(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _opened(project: Path, path: str, folders: list[str]) -> int:
    """A descriptor of the last folder, each opened in the one above. Raises SaveRefused, SaveFailed."""
    try:
        # The project's folder is the user's choice, and may well be reached over a link.
        folder = os.open(project, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SaveFailed(path, f"the project's folder {project}: {os.strerror(error.errno or 0)}") from error
    for number, name in enumerate(folders):
        above = folder
        try:
            folder = os.open(name, _OPEN_FOLDER, dir_fd=above)
        except OSError as error:
            problem = _problem(name, above, error)
            raise SaveRefused(path, f"leads through {'/'.join(folders[: number + 1])}, which {problem}") from error
        finally:
            os.close(above)
    return folder


def _problem(name: str, above: int, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "does not exist"
    with contextlib.suppress(OSError):
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            return "is a symbolic link"
    return "is no folder" if error.errno == errno.ENOTDIR else f"cannot be opened: {os.strerror(error.errno or 0)}"


class Saving:
    """A NewFile for the event loop, which does not wait for the disk. `size` and `sha256` are final after `keep`."""

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._pieces: list[bytes] = []
        self._waiting = 0
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._file.sha256

    async def expect(self, count: int) -> None:
        """Raises SaveFailed if there is no room for `count` bytes."""
        await anyio.to_thread.run_sync(self._file.room, count)

    async def write(self, data: bytes) -> None:
        """Takes `data`; the disk gets it piece by piece. Raises SaveFailed."""
        self._pieces.append(data)
        self._waiting += len(data)
        self.size += len(data)
        if self._waiting >= PIECE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        await anyio.to_thread.run_sync(self._file.write, *pieces)

    async def keep(self) -> None:
        """Puts the file in its place. Raises SaveFailed, SaveRefused."""
        await self._flush()
        await anyio.to_thread.run_sync(self._file.keep)


@asynccontextmanager
async def saving(project: Path, path: str, *, overwrite: bool = False, mode: int = FILE_MODE) -> AsyncIterator[Saving]:
    """A file at `path` below `project`, which is there once `keep` was called; without that nothing is left of it.

    `path` is relative to `project`, or absolute and below it; its folders exist. `mode` is that of a new file before
    the umask. Raises SaveRefused and SaveFailed, here and in each call.
    """
    make = partial(NewFile, project, path, overwrite=overwrite, mode=mode)
    file = await anyio.to_thread.run_sync(make)  # is waited for when cancelled, so that none is lost
    try:
        yield Saving(file)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(file.close)
