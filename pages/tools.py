"""docs/tools.md: every tool as it is registered, with the answers that answers.json holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcp.server.mcpserver.tools import Tool

from cctailscale.tools.catalog import tools_of
from pages.answers import Asked

PAGE = Path(__file__).parent.parent / "docs" / "tools.md"

# Of a JSON schema: the least, the most, and what they count.
LIMITS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " entries"),
)

HEAD = """\
<!-- Made by `python -m pages` from the tools and from a run of them; change them, not this page. -->

# Tools

What Claude sees: each tool with its description, its parameters and a real answer. The answers come from a run on the
local tailnet of the [demo](quick-start.md#without-an-account); only what differs from run to run (addresses, times,
ids, latencies) was replaced. Where an answer is JSON, the model gets it without the line breaks.

A host is a name as a person writes it (`web`, `web.tail1234.ts.net`, with a final dot too), an IPv4 or an IPv6 address.
Durations end in `_ms`, sizes in `_bytes`, times are of RFC 3339. Unknown parameters are refused. A tool that changes
nothing is marked *read-only*, as it is to the client.

"""


def registered() -> list[Tool]:
    """Every tool, those for teams too; nothing behind them is touched."""
    nothing: Any = object()
    return tools_of(nothing, nothing, nothing, nothing, nothing, nothing)


def page(answers: Mapping[str, Asked]) -> str:
    return HEAD + "\n".join(_section(tool, answers[tool.name]) for tool in registered())


def _section(tool: Tool, asked: Asked) -> str:
    kind = "*read-only*\n\n" if tool.annotations and tool.annotations.read_only_hint else ""
    return (
        f"## {tool.name}\n\n{kind}{tool.description}\n\n"
        f"{_parameters(tool.parameters)}"
        f"```python\n{call(tool.name, asked.arguments)}\n```\n\n"
        f"```{asked.language}\n{asked.answer}\n```\n"
    )


def _parameters(schema: Mapping[str, Any]) -> str:
    if not schema["properties"]:
        return "No parameters.\n\n"
    rows = "".join(
        f"| `{name}` | {_type(one)} | {_default(one)} | {one.get('description', '').replace('|', chr(92) + '|')} |\n"
        for name, one in schema["properties"].items()
    )
    return f"| parameter | type | default | |\n|---|---|---|---|\n{rows}\n"


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return "required"
    return "" if schema["default"] is None else f"`{json.dumps(schema['default'])}`"


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words: what it takes, and its limits."""
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    kind = f"list of {_type(schema['items'])}" if schema["type"] == "array" else schema["type"]
    limits = [_limits(schema, *names) for names in LIMITS]
    return " ".join([kind, *(f"({limit})" for limit in limits if limit)])


def _limits(schema: Mapping[str, Any], least: str, most: str, unit: str) -> str:
    if most not in schema:
        return ""
    if "exclusiveMinimum" in schema and most == "maximum":
        return f"above {schema['exclusiveMinimum']}, up to {schema[most]}"
    return (f"{schema[least]} to " if least in schema else "up to ") + f"{schema[most]}{unit}"


def call(tool: str, arguments: Mapping[str, Any]) -> str:
    """As one writes it down."""
    return f"{tool}({', '.join(f'{name}={_python(value)}' for name, value in arguments.items())})"


def _python(value: Any) -> str:  # noqa: ANN401 - any argument
    return json.dumps(value) if isinstance(value, str | list) else repr(value)
