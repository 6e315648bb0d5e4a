"""The directories in which sessions keep their node's keys, one for each device: ``{root}/{hostname}``.

Each holds three things of ours: ``lock`` (an flock for the life of the process; the kernel releases it, also on
kill -9), ``session.json`` (whose directory it is) and whatever the node writes. The rules:

1. A session takes up the directory that it had, and with it key, name and address: the one whose record has the same
   session, base name, control server and kind, and whose lock is free. Otherwise it gets a new one.
2. There is no lock over the root. A new directory is filled under a hidden name, locked, and appears by one rename;
   it disappears by a rename too. Whoever has locked a directory looks once more whether it still has its name.
3. A directory without a record of ours is never touched, links are never followed, and a directory that others could
   write to is refused.

All calls block on the file system (milliseconds) and are meant for a thread. POSIX only: flock and dir_fd.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shlex
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cctailscale.errors import StateDirError, plain
from cctailscale.naming import new_suffix

_VERSION = 1
_LOCK = "lock"
_RECORD = "session.json"
# What each directory holds, whatever is kept in it.
FILES = (_LOCK, _RECORD)
# Ours has some 400 bytes.
_MAX_RECORD_BYTES = 16384
# Names of directories that are being made or removed. No making takes minutes: an older one was left by a crash.
_UNFINISHED = re.compile(r"\.cc-(?:new|gone)-[0-9a-f]{16}")
_UNFINISHED_SECONDS = 600
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# With 65,536 suffixes and a handful of directories the first try is nearly always free.
_ATTEMPTS = 64
# One start sweeps so many at most: each takes a descriptor, and a logout from control.
MAX_SWEPT = 32

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHOOSE_ANOTHER = "Set TS_STATE_DIR to a folder of your own, or remove this one."


@dataclass(frozen=True, slots=True)
class Record:
    """What ``session.json`` says. `session` is from `session_identity`; times are seconds since the epoch."""

    session: str
    hostname: str
    suffix: str
    ephemeral: bool
    control_url: str
    created: float
    last_used: float

    @property
    def owner(self) -> tuple[str, str, bool]:
        """Session, control server and kind: what must be the same for a directory to be taken up again."""
        return self.session, self.control_url, self.ephemeral


def session_identity(session_id: str | None, project_dir: Path, *, ephemeral: bool) -> str:
    """Who a directory belongs to, as a SHA-256 in hex: neither ids nor paths are written down.

    The Claude Code session, or the project where there is none. A device that is not ephemeral belongs to the
    project, so that its next session takes it up.
    """
    if ephemeral and session_id:
        return hashlib.sha256(b"session\0" + os.fsencode(session_id)).hexdigest()
    return hashlib.sha256(b"project\0" + os.fsencode(os.path.realpath(project_dir))).hexdigest()


class SessionDir:
    """One directory, locked by this process until `close` or `remove`; also a context manager that closes.

    `path` is where the node keeps its state. `record` says whose it is.
    """

    def __init__(self, path: Path, record: Record, lock_fd: int) -> None:
        self.path = path
        self.record = record
        self._lock_fd = lock_fd

    def __repr__(self) -> str:
        return f"<SessionDir {self.path} {'closed' if self._lock_fd < 0 else 'locked'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def hostname(self) -> str:
        """The name to ask control for; the directory's own name."""
        return self.record.hostname

    def mark_used(self) -> None:
        """Writes down that the directory is in use now, unless it was closed before. Raises StateDirError."""
        if self._lock_fd < 0:
            return
        record = replace(self.record, last_used=time.time())
        with as_state_dir_error(self.path), _open_fd(self.path, _DIRECTORY) as fd:
            _write_record(fd, record)
        self.record = record

    def remove(self) -> None:
        """Removes the directory with all that is in it, then lets go of the lock. Links in it are not followed.

        Raises StateDirError if it has to stay. Nothing happens on a directory that was closed or removed before: by
        then it may be somebody else's.
        """
        if self._lock_fd < 0:
            return
        gone = self.path.parent / f".cc-gone-{secrets.token_hex(8)}"
        try:
            with as_state_dir_error(self.path), contextlib.suppress(FileNotFoundError):
                # One step for all who look, and a crash in what follows leaves nothing that seems usable.
                self.path.rename(gone)
        finally:
            self.close()
        shutil.rmtree(gone, ignore_errors=True)  # what is left over, a later start sweeps

    def close(self) -> None:
        """Lets go of the lock and leaves the directory as it is. May be called twice."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
            os.close(fd)


def claim(root: Path, *, identity: str, base: str, control_url: str, ephemeral: bool) -> SessionDir:
    """Takes up this session's directory, or makes a new one with a fresh suffix; either way it is locked.

    `root` is a full path and is made if missing; `base` is `naming.base_label`, `identity` is `session_identity`.
    A directory that another living process has locked is passed over: two processes never share one.

    Raises StateDirError: the root or the directory is not writable, not a folder, full, somebody else's, open to
    others or a link.
    """
    with as_state_dir_error(root):
        root = _prepared(root)
        for record in _records_of(root, (identity, control_url, ephemeral), base):
            if taken := take_up(root, record):
                return taken
        now = time.time()
        return _make(root, Record(identity, "", "", ephemeral, control_url, now, now), base)


def below(root: Path, folder: str) -> Path:
    """A folder of the root for directories of another kind. The root is made, if it is missing, as private as it is."""
    with contextlib.suppress(OSError):  # if it cannot be made, the claim says why
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root / folder


def records(root: Path) -> list[Record]:
    """Of all directories that are sound and this user's own, locked or not, the last used first. Raises StateDirError.

    A root that does not exist has none.
    """
    with as_state_dir_error(root), contextlib.suppress(FileNotFoundError):
        root = root.resolve(strict=True)
        _refuse_unsafe(root)
        found = (_read_record(entry) for entry in root.iterdir() if _LABEL.fullmatch(entry.name) and _is_safe(entry))
        return sorted(filter(None, found), key=lambda record: record.last_used, reverse=True)
    return []


def take_up(root: Path, record: Record) -> SessionDir | None:
    """The directory of a record, locked, and from now on in use.

    None if a living process has it, or it has gone or changed hands since. Raises StateDirError.
    """
    with as_state_dir_error(root):
        taken = _lock_existing(root / record.hostname, record)
    if taken is not None:
        try:
            taken.mark_used()
        except BaseException:
            taken.close()
            raise
    return taken


def sweep_unused(root: Path, since: float) -> None:
    """Removes the ephemeral directories in which nothing was written after `since` (seconds since the epoch).

    Those that a living process has locked stay. Raises StateDirError, OSError.
    """
    with contextlib.ExitStack() as locked:
        directories = abandoned(root, unused_since=since)
        for directory in directories:
            locked.enter_context(directory)
        for directory in directories:
            # A process that was killed has not written down when it was last in use; what it kept there has.
            if max(entry.lstat().st_mtime for entry in directory.path.iterdir()) < since:
                directory.remove()


def in_use(root: Path, *, identity: str, base: str, control_url: str, ephemeral: bool) -> str | None:
    """The hostname of the directory that `claim` would take up, while another living process has it; else None.

    Raises StateDirError.
    """
    with as_state_dir_error(root), contextlib.suppress(FileNotFoundError):
        root = root.resolve(strict=True)
        for record in _records_of(root, (identity, control_url, ephemeral), base)[:1]:
            taken = _lock_existing(root / record.hostname, record)
            if taken is None:
                return record.hostname
            taken.close()
    return None


def abandoned(root: Path, *, limit: int = MAX_SWEPT, unused_since: float = math.inf) -> list[SessionDir]:
    """The ephemeral directories whose process is dead, locked, at most `limit`, the oldest first.

    `unused_since`: only those that were last taken up by that time, in seconds since the epoch.

    The caller logs each device out (at ``record.control_url``, without ever registering anew), then calls `remove`;
    with `close` instead, the next start finds it again. Directories of devices that are not ephemeral are kept. What
    a crash left half made or half removed is removed here.

    Raises StateDirError if the root cannot be read or others could write to it; a root that does not exist has none.
    """
    found: list[SessionDir] = []
    with as_state_dir_error(root), contextlib.suppress(FileNotFoundError):
        root = root.resolve(strict=True)
        _refuse_unsafe(root)
        for entry in root.iterdir():
            if _UNFINISHED.fullmatch(entry.name):
                _remove_unfinished(entry)
        for record in reversed(records(root)):
            if len(found) >= limit:
                break
            if not record.ephemeral or record.last_used > unused_since:
                continue
            with contextlib.suppress(OSError):  # one broken directory must not keep the others from being swept
                if taken := _lock_existing(root / record.hostname, record):
                    found.append(taken)
    return found


def _records_of(root: Path, own: tuple[str, str, bool], base: str) -> list[Record]:
    """The records with this session, control server and kind under this base name, the last used first."""
    wanted = re.compile(re.escape(base) + r"-[0-9a-f]{4}")
    found = []
    for entry in root.iterdir():
        if not wanted.fullmatch(entry.name):
            continue
        if entry.is_symlink():  # nobody can say whose it is without following it
            _refuse_unsafe(entry)
        record = _read_record(entry)
        if record and record.owner == own:
            _refuse_unsafe(entry)
            found.append(record)
    return sorted(found, key=lambda record: record.last_used, reverse=True)


def _prepared(root: Path) -> Path:
    if not root.is_absolute():
        raise StateDirError(root, "is not a full path", "Set TS_STATE_DIR to a path that begins with a slash.")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    real = root.resolve(strict=True)  # the root itself may be a link of the user's: to another disk, say
    _refuse_unsafe(real)
    if not os.access(real, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(real).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number))
    return real


def _refuse_unsafe(path: Path) -> None:
    """Raises StateDirError for what others could have put there or could change."""
    shown = shlex.quote(plain(str(path)))
    with contextlib.suppress(FileNotFoundError):  # swept by another process meanwhile
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise StateDirError(path, "is a symbolic link", f"Remove the link: rm {shown}")
        if not stat.S_ISDIR(found.st_mode):
            raise StateDirError(path, "is not a folder", _CHOOSE_ANOTHER)
        if found.st_uid != os.geteuid():
            raise StateDirError(path, "belongs to another user", _CHOOSE_ANOTHER)
        if found.st_mode & 0o022:
            raise StateDirError(path, "can be changed by other users", f"Take their right away: chmod 700 {shown}")


def _is_safe(path: Path) -> bool:
    try:
        _refuse_unsafe(path)
    except (StateDirError, OSError):
        return False
    return True


def _make(root: Path, blank: Record, base: str) -> SessionDir:
    for _ in range(_ATTEMPTS):
        suffix = new_suffix()
        target = root / f"{base}-{suffix}"
        if os.path.lexists(target):
            continue
        record = replace(blank, hostname=target.name, suffix=suffix)
        hidden = root / f".cc-new-{secrets.token_hex(8)}"
        hidden.mkdir(mode=0o700)
        lock_fd = -1
        try:
            with _open_fd(hidden, _DIRECTORY) as fd:
                lock_fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd)
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _write_record(fd, record)
            # Fails if somebody made a directory of that name meanwhile, since that has something in it by now.
            hidden.rename(target)
        except OSError as error:
            _discard(hidden, lock_fd)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue
            raise
        except BaseException:
            _discard(hidden, lock_fd)
            raise
        return SessionDir(target, record, lock_fd)
    raise StateDirError(root, f"has no free name {base}-…", "Remove the directories of sessions that are gone.")


def _discard(hidden: Path, lock_fd: int) -> None:
    if lock_fd >= 0:
        os.close(lock_fd)
    shutil.rmtree(hidden, ignore_errors=True)


def _lock_existing(path: Path, seen: Record) -> SessionDir | None:
    """The directory, locked; None if a living process has it, or it has gone or changed hands since it was `seen`."""
    try:
        with _open_fd(path, _DIRECTORY) as fd:
            lock_fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between the look and the lock another process may have removed it and a third made one of that name.
                record = _read_record(path) if os.path.samestat(os.fstat(fd), path.lstat()) else None
                if record is not None and record.owner == seen.owner:
                    os.fchmod(fd, 0o700)
                    return SessionDir(path, record, lock_fd)
            except BaseException:
                os.close(lock_fd)
                raise
            os.close(lock_fd)
            return None
    except (BlockingIOError, FileNotFoundError):
        return None


def _read_record(path: Path) -> Record | None:
    """The record of the directory, None if it has none that is sound: then it is not ours."""
    try:
        with (
            _open_fd(path, _DIRECTORY) as fd,
            _open_fd(_RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd) as file,
        ):
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return None
            content = os.read(file, _MAX_RECORD_BYTES + 1)
    except OSError:
        return None
    record = _parse_record(content)
    # A directory that was renamed or copied by hand: the node in it would still have the old name.
    return record if record and record.hostname == path.name else None


def _parse_record(content: bytes) -> Record | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    match found:
        case {
            "version": int(version),
            "session": str(session),
            "hostname": str(hostname),
            "suffix": str(suffix),
            "ephemeral": bool(ephemeral),
            "control_url": str(control_url),
            "created": int() | float() as created,
            "last_used": int() | float() as last_used,
        } if version == _VERSION and suffix and hostname.endswith(f"-{suffix}"):
            return Record(session, hostname, suffix, ephemeral, control_url, created, last_used)
    return None


def _write_record(dir_fd: int, record: Record) -> None:
    """Writes ``session.json``. Raises OSError."""
    _replace_file(dir_fd, _RECORD, json.dumps({"version": _VERSION, **asdict(record)}, indent=1).encode() + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file, mode 0600, so that a reader sees the old or the new one, never a part. Raises OSError."""
    with _open_fd(path.parent, _DIRECTORY) as fd:
        _replace_file(fd, path.name, content)


def _replace_file(dir_fd: int, name: str, content: bytes) -> None:
    part = f".{name}.{secrets.token_hex(4)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _open_fd(part, flags, dir_fd=dir_fd) as fd:
            if os.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        os.replace(part, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=dir_fd)
        raise


def _remove_unfinished(path: Path) -> None:
    with contextlib.suppress(OSError):
        if _is_safe(path) and time.time() - path.lstat().st_mtime > _UNFINISHED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _open_fd(path: Path | str, flags: int, *, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags, 0o600, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


_ADVICE = {
    errno.EACCES: ("is not writable", "Give yourself the right to write there, or set TS_STATE_DIR to another folder."),
    errno.EPERM: ("is not writable", "Give yourself the right to write there, or set TS_STATE_DIR to another folder."),
    errno.EROFS: ("is on a read-only file system", "Set TS_STATE_DIR to a folder that can be written to."),
    errno.ENOSPC: ("is on a full disk", "Make room, or set TS_STATE_DIR to a folder on another disk."),
    errno.EDQUOT: ("is over its quota", "Make room, or set TS_STATE_DIR to a folder on another disk."),
    errno.ENOTDIR: ("is not a folder", _CHOOSE_ANOTHER),
    errno.EEXIST: ("is not a folder", _CHOOSE_ANOTHER),
    errno.ELOOP: ("leads through a symbolic link that cannot be followed", _CHOOSE_ANOTHER),
    errno.ENOLCK: ("is on a file system without locks", "Set TS_STATE_DIR to a folder on a local disk."),
    errno.ENOTSUP: ("is on a file system without locks", "Set TS_STATE_DIR to a folder on a local disk."),
    errno.ENAMETOOLONG: ("has a name that is too long", "Set TS_STATE_DIR to a shorter path."),
}


@contextlib.contextmanager
def as_state_dir_error(path: Path) -> Iterator[None]:
    """What the file system refuses, as StateDirError with advice."""
    try:
        yield
    except OSError as error:
        default = (f"cannot be used ({error.strerror or type(error).__name__})", _CHOOSE_ANOTHER)
        problem, next_step = _ADVICE.get(error.errno or 0, default)
        raise StateDirError(path, problem, next_step) from error
