"""JSON as a person reads it."""

import json
import re

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_STEP = "  "


def indented(text: str, max_bytes: int) -> str | None:
    """`text` with a line for each member; None if it is not JSON, or more than `max_bytes` long that way (in UTF-8).

    Only blanks change: numbers keep their digits, strings their escapes, and a name that comes twice comes twice.
    """
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    parts: list[str] = []
    size = depth = 0
    before = ""
    for part in _TOKEN.findall(text):
        if part in ("}", "]"):
            depth -= 1
        if before == "," or (before in ("{", "[")) != (part in ("}", "]")):  # nothing in between: "{}" stays
            parts.append("\n" + _STEP * depth)
            size += len(parts[-1])
        if part in ("{", "["):
            depth += 1
        parts.append(": " if part == ":" else part)
        size += len(parts[-1].encode("utf-8", "surrogatepass"))
        if size > max_bytes:
            return None
        before = part
    return "".join(parts)
