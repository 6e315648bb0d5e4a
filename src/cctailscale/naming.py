"""What this node is called on the tailnet: ``cc-{user}-{context}-{random4}``.

Everything here ends in one DNS label (RFC 1035 §2.3.1, RFC 1123 §2.1): lower-case letters, digits and hyphens, no
hyphen at either end, at most 63 characters, whatever the user, the project or the machine is called.

A repository is only looked at, never believed: the one file that is read is a small ``.git`` file in one of the
folders above the project, and the paths in it are taken apart as text, never opened.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import socket
import stat
import unicodedata
from pathlib import Path

MAX_LABEL_CHARS = 63
SUFFIX_CHARS = 4
# What `base_label` may use: a hyphen and the suffix follow.
MAX_BASE_CHARS = MAX_LABEL_CHARS - 1 - SUFFIX_CHARS
# The context is shortened first, but some of it stays: it tells a user's sessions apart.
_MIN_CONTEXT_CHARS = 16
# Git writes one path into a .git file; PATH_MAX is 4096 on Linux.
_MAX_GIT_FILE_BYTES = 8192
# How many folders up a repository is looked for.
_MAX_PARENTS = 128

_SUFFIX = re.compile(r"[0-9a-f]{4}\Z")
_OTHER = re.compile(r"[^a-z0-9]+")


def new_suffix() -> str:
    """Four random hex digits."""
    return secrets.token_hex(SUFFIX_CHARS // 2)


def label(text: str) -> str:
    """The text as a DNS label of any length, empty when nothing of it can stand in one.

    Letters lose their accents (NFKD); each run of other characters becomes one hyphen.
    """
    ascii_text = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode("ascii")
    return _OTHER.sub("-", ascii_text.lower()).strip("-")


def folded(name: str) -> str:
    """A name or a login, to compare it in upper or lower case: ASCII alone, as no other letter may make two one."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def base_label(user: str, context: str, base: str | None = None) -> str:
    """The hostname without its suffix: at most `MAX_BASE_CHARS` characters, never empty.

    `base` is a hostname that the user chose (TS_HOSTNAME); it takes the place of ``cc-{user}-{context}`` unless
    nothing of it can stand in a DNS label.
    """
    chosen = _cut(label(base or ""), MAX_BASE_CHARS)
    if chosen:
        return chosen
    who = label(user) or "user"
    what = label(context)
    room = MAX_BASE_CHARS - len("cc-") - len("-")
    who = _cut(who, room - min(len(what), _MIN_CONTEXT_CHARS))
    what = _cut(what, room - len(who))
    return "-".join(part for part in ("cc", who, what) if part)


def hostname(user: str, context: str, suffix: str, base: str | None = None) -> str:
    """The whole name, a DNS label of at most 63 characters. Raises ValueError unless `suffix` is 4 hex digits."""
    if not _SUFFIX.match(suffix):
        raise ValueError("a suffix is four lower-case hex digits")
    return f"{base_label(user, context, base)}-{suffix}"


def user_name(user: str | None) -> str:
    """`user` (the USER variable) if it says anything, else the name of the OS account, else "user"."""
    if user and label(user):
        return user
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container that runs under a number without an account
        return "user"


def context_name(project_dir: Path) -> str:
    """What the node works on: the git repository's name, or the machine's hostname outside of one.

    A worktree counts as its main repository, a submodule as itself; a nested folder belongs to the repository around
    it, and the innermost repository wins. Never fails: what cannot be read is not a repository.
    """
    return _repository_name(project_dir) or socket.gethostname().split(".", 1)[0]


def project_name(project_dir: Path) -> str:
    """What a person calls the project: the repository's name, or the folder's outside of one."""
    return _repository_name(project_dir) or project_dir.name


def _cut(text: str, length: int) -> str:
    return text[:length].rstrip("-")


def _repository_name(project_dir: Path) -> str | None:
    try:
        start = project_dir.resolve()
    except (OSError, RuntimeError, ValueError):  # unreadable parent, a circle of links, a NUL
        return None
    for folder in [start, *start.parents][:_MAX_PARENTS]:
        git = folder / ".git"
        # Git wants a HEAD in it too; an empty folder called .git makes no repository.
        if _exists(git / "HEAD"):
            return folder.name
        if (target := _read_gitdir(git)) is not None:
            return _name_behind_gitdir(folder, target)
        if all(_exists(folder / part) for part in ("HEAD", "objects", "refs")):
            return _folder_name(folder)  # bare, or inside of a .git folder
    return None


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True


def _read_gitdir(git_file: Path) -> str | None:
    """The path in a ``.git`` file ("gitdir: PATH", gitrepository-layout(5)), None if it is not one."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(git_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = os.read(fd, _MAX_GIT_FILE_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    if len(content) > _MAX_GIT_FILE_BYTES or not content.startswith(b"gitdir:"):
        return None
    return os.fsdecode(content.removeprefix(b"gitdir:")).strip() or None


def _name_behind_gitdir(folder: Path, gitdir: str) -> str:
    """The name of the repository whose ``.git`` file in `folder` says `gitdir`; the path is only taken apart.

    - ``…/NAME/.git/worktrees/x`` and ``…/NAME.git/worktrees/x``: NAME, the main repository of a worktree
    - ``…/.git/modules/NAME``: NAME, a submodule
    - anything else (``git init --separate-git-dir``): the folder's own name
    """
    path = Path(os.path.normpath(folder / gitdir))
    if path.parent.name == "worktrees":
        return _folder_name(path.parent.parent)
    return _module_name(path) or folder.name


def _module_name(path: Path) -> str | None:
    """The last part of a path below ``.git/modules``, or below the modules of a worktree; None elsewhere."""
    parts = path.parts
    if ".git" not in parts:
        return None
    below = parts[len(parts) - parts[::-1].index(".git") :]
    return path.name if "modules" in below[:-1] else None


def _folder_name(repository: Path) -> str:
    """The name of a git directory: NAME/.git, NAME/.bare, NAME.git or NAME."""
    name = repository.parent.name if repository.name.startswith(".") else repository.name
    return name.removesuffix(".git")
