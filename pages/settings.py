"""docs/settings.md, from `Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from cctailscale.config import Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

# Set by the client or the system rather than by the user.
NOT_FOR_USERS = ("CLAUDE_PROJECT_DIR", "CLAUDE_CODE_SESSION_ID", "USER")

HEAD = """\
<!-- Made by `python -m pages` from src/cctailscale/config.py; change it there. -->

# Settings

All are environment variables, read once when the server starts: in the `env` block of `.mcp.json`, by
`claude mcp add -e NAME=VALUE`, or from the environment that Claude Code runs in. A variable that is unset, empty, or an
unexpanded `${NAME}` counts as not set. A bad value does not stop the server: each tool then says which variable it is,
what is wrong with it and what it should look like; the value itself is not shown. `cc-tailscale doctor` names those
that are set.

What they are good for is told in [keys](keys.md) and [security](security.md).

| variable | meaning | example | default |
|---|---|---|---|
"""


def page() -> str:
    return HEAD + "".join(
        f"| `{field.validation_alias}` | {_cell(field.description or '')} | `{_cell(field.examples[0])}` "
        f"| {_shown(field.default)} |\n"
        for field in Settings.model_fields.values()
        if field.validation_alias and field.examples and field.validation_alias not in NOT_FOR_USERS
    )


def _shown(default: Any) -> str:  # noqa: ANN401 - of any setting
    """A default as it would be written into the environment."""
    if default is None or default == ():
        return "none"
    assert not isinstance(default, SecretStr)
    if isinstance(default, bool):
        return f"`{int(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
