"""Documents in a session's own folder: read as they are, written whole or not at all. All calls block on the disk."""

from __future__ import annotations

import errno
from itertools import count
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from cctailscale.documents import Document
from cctailscale.errors import BadDocument, TeamUnusable
from cctailscale.statedir import replace_file

FORMAT = 1

_ASIDE = ".aside-"


class Kept(Document):
    """The base of what is kept. A later version that changes what a field means counts `format` up."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT


class _AnyFormat(Document):
    format: int


K = TypeVar("K", bound=Kept)


class Unfit(Exception):  # noqa: N818 - not an error that anybody sees
    """The file is there and can be read, but not used; `problem` follows on its name, `next_step` is what to do."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step


def read(kind: type[K], path: Path) -> K | None:
    """What the file holds; None if there is none. Raises Unfit; TeamUnusable: it cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, "read", error) from error
    try:
        return kind.from_json(content)
    except BadDocument as error:
        if _is_newer(content):
            raise Unfit("was written by a later version of cc-tailscale", "Update cc-tailscale.") from error
        raise Unfit("is damaged", "Join the team again, or create it with resume.") from error


def load(kind: type[K], path: Path) -> K | None:
    """As `read`, for who only looks. Raises TeamUnusable, also for what is unfit."""
    try:
        return read(kind, path)
    except Unfit as error:
        raise TeamUnusable(path, error.problem, error.next_step) from error


def write(path: Path, document: Kept) -> None:
    """Puts `document` in the place of the file, whole or not at all. Raises TeamUnusable."""
    try:
        replace_file(path, document.to_json())
    except OSError as error:
        raise _unusable(path, "written", error) from error


def set_aside(path: Path) -> Path:
    """Gives the file a name that nobody reads, and returns that. Raises TeamUnusable."""
    names = (path.with_name(f"{path.name}{_ASIDE}{number}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    try:
        return path.rename(aside)
    except OSError as error:
        raise _unusable(path, "renamed", error) from error


def remove(path: Path) -> None:
    """Raises TeamUnusable."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, "removed", error) from error


def _is_newer(content: bytes) -> bool:
    try:
        return _AnyFormat.model_validate_json(content).format > FORMAT
    except ValidationError:
        return False


def _unusable(path: Path, done: str, error: OSError) -> TeamUnusable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TeamUnusable(path, "is on a full disk", "Make room, or set TS_STATE_DIR to a folder on another disk.")
    why = error.strerror or type(error).__name__
    return TeamUnusable(path, f"cannot be {done} ({why})", "Give yourself the right to, or set TS_STATE_DIR.")
