"""One file that several processes append to, and that is replaced by a new one when it has grown.

Not logging's RotatingFileHandler: it follows links, makes files that others can read, and two processes that rotate
one file lose each other's lines. Sessions that run side by side share the file that their user has named.

POSIX only: flock. All calls block on the file system and are meant for a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

# Some 30,000 lines: weeks of one person's calls, and quick to search.
MAX_FILE_BYTES = 10 << 20
# path.1, the youngest, to path.5: with the file itself 60 MiB at most.
KEPT_FILES = 5
# Another process has rotated between open and lock; it cannot have done so many times in a row.
_ATTEMPTS = 10
# How every line begins. A file that begins otherwise is none of ours, and is not written to.
_BEGINNING = b'{"time":'
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class AuditFile:
    """The file at `path`, which need not exist. It is opened for each `append`: it may be moved away at any time."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES, kept: int = KEPT_FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept

    def append(self, lines: bytes) -> None:
        """Adds whole lines, all or none of them.

        Raises OSError: it cannot be written, is a link or no file, belongs to somebody else, or is another file than
        an audit log.
        """
        for _ in range(_ATTEMPTS):
            with self._locked() as fd:
                size = os.fstat(fd).st_size
                if not self._is_here(fd):
                    continue
                if size and size + len(lines) > self._max_bytes:
                    self._rotate()
                    continue
                _write(fd, lines, size)
                return
        raise OSError(errno.EAGAIN, "it is moved away again and again")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        fd = os.open(self._path, _APPEND, 0o600)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            if found.st_uid != os.geteuid():
                raise OSError(errno.EPERM, "it belongs to another user")
            fcntl.flock(fd, fcntl.LOCK_EX)  # others hold it for one write
            if os.pread(fd, len(_BEGINNING), 0) not in (b"", _BEGINNING):
                raise OSError(errno.EEXIST, "there is a file of another kind")
            os.fchmod(fd, 0o600)
            yield fd
        finally:
            os.close(fd)

    def _is_here(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self._path.lstat())
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Moves the file to path.1, that one to path.2 and so on; the last is lost."""
        for number in range(self._kept, 0, -1):
            younger = self._numbered(number - 1) if number > 1 else self._path
            with contextlib.suppress(FileNotFoundError):
                younger.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _write(fd: int, lines: bytes, size: int) -> None:
    """Appends to a file of that size; on a full disk no part of a line stays."""
    rest = memoryview(lines)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise
