"""Variables as a shell or a client hands them over: which count as given, and what a path among them means.

It loads nothing but the standard library, so that a command which has to answer in milliseconds can read them too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

DEFAULT_STATE_DIR = "~/.cache/claude-code-tailscale"

BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

# ${NAME}, ${NAME:-default} (one more inside it) or $NAME, and nothing else: what a client did not expand.
BRACED = r"\$\{(?:[^{}]|\$\{[^{}]*\})*\}"
PLACEHOLDER = re.compile(rf"(?:{BRACED})+|\$[A-Za-z_][A-Za-z0-9_]*")


def value_of(environ: Mapping[str, str], variable: str) -> str:
    """The variable's value without the blanks around it; "" where it is unset, blank or a placeholder."""
    value = environ.get(variable, "").strip()
    return "" if PLACEHOLDER.fullmatch(value) else value


def full_path(path: str, environ: Mapping[str, str]) -> str:
    """The path from the root on: "~" is HOME, and what is relative lies in the working folder. Raises ValueError."""
    if path == "~" or path.startswith("~/"):
        path = environ.get("HOME", "").strip() + path[1:] if environ.get("HOME", "").strip() else path
    try:
        return str(Path(path).expanduser().absolute())
    except (RuntimeError, OSError, ValueError):  # no home, ~nobody, a working folder that was deleted, a NUL
        raise ValueError("cannot be made a full path. Give one that begins with a slash.") from None
