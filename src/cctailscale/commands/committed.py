"""Whether a key stands in a `.mcp.json`, and whether git tracks that file: then it is, or will be, in the history.

A repository's configuration can make git run programs (core.fsmonitor); that is switched off. Only git's list of files
is asked for, and the files are read here.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from cctailscale.commands.findings import Found
from cctailscale.config import load_settings
from cctailscale.redact import Redactor

NAME = ".mcp.json"
GIT = ("git", "-c", "core.fsmonitor=false", "ls-files", "-z", "--", f":(top,glob)**/{NAME}")
# Such a file has some hundred bytes, and a repository one of them.
MAX_BYTES = 1 << 20
MAX_FILES = 100
KEY_VARIABLES = ("TS_AUTHKEY", "TS_CLIENT_SECRET")
INSTEAD = "name the key's file in TS_AUTHKEY_FILE instead"


async def keys_in_git(project: Path, redactor: Redactor, environ: Mapping[str, str]) -> Found:
    """Looks at every tracked `.mcp.json` of the repository around `project`, and at the project's own."""
    tracked, problem = await _tracked(project, environ)
    files = {_normal(project / NAME), *tracked}
    found = await anyio.to_thread.run_sync(_with_keys, files, redactor, abandon_on_cancel=True)
    unknown = problem and f" ({problem})"
    committed = [where for path, where in found.items() if path in tracked]
    if committed:
        step = f"Revoke that key, since it stays in the history; take it out and {INSTEAD}."
        return Found("failed", f"git tracks a key: {'; '.join(committed)}", step)
    if found:
        where = "; ".join(found.values())
        return Found("warning", f"a key stands in {where}{unknown}", f"Before git tracks it, {INSTEAD}.")
    return Found("ok", f"no file of that name holds a key{unknown}")


async def _tracked(project: Path, environ: Mapping[str, str]) -> tuple[set[Path], str]:
    """The files, and why git cannot say which, or ""."""
    try:
        listed = await anyio.run_process(GIT, cwd=project, env=environ, check=False)
    except OSError:  # there is no git, or no such folder
        return set(), "git cannot be asked"
    if listed.returncode != 0:
        outside = b"not a git repository" in listed.stderr
        return set(), "not in a git repository" if outside else "git does not answer"
    names = [name for name in listed.stdout.split(b"\0") if name][:MAX_FILES]
    return {_normal(project / os.fsdecode(name)) for name in names}, ""


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))  # git says "../.mcp.json"


def _with_keys(paths: set[Path], redactor: Redactor) -> dict[Path, str]:
    """Those of the files that hold a key, and where in them."""
    found = {}
    for path in sorted(paths):
        lines = list(lines_with_keys(_content(path), redactor))
        if lines:
            found[path] = f"{path} line {', '.join(map(str, lines))}"
    return found


def _content(path: Path) -> str:
    try:
        # O_NONBLOCK: a FIFO must not keep this waiting.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return os.read(fd, MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def lines_with_keys(text: str, redactor: Redactor) -> Iterator[int]:
    """The numbers of the lines that hold a key: one by its value or shape, or what is set as one (Headscale's).

    A `${NAME}` is none.
    """
    given = set(_keys_given(text))
    for number, line in enumerate(text.split("\n"), start=1):
        if redactor(line) != line or any(key in line for key in given):
            yield number


def _keys_given(text: str) -> Iterator[str]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    inner = [document]
    while inner:
        value: Any = inner.pop()
        if isinstance(value, list):
            inner += value
        elif isinstance(value, dict):
            inner += value.values()
            for variable in KEY_VARIABLES:
                key = value.get(variable)
                if isinstance(key, str) and load_settings({variable: key}).settings.secrets():
                    yield json.dumps(key)[1:-1]
