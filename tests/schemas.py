"""What a client might send to a tool, by the tool's own schema: what fits it, and what does not."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.agent import Json

# What a text is likely to be taken for somewhere: hosts, addresses, URLs, names of files, markup, and half a character.
TEXTS = [
    "", " ", "web", "web.", "WEB:80", "*", ".", "..", "-", "100.64.0.1", "[::1]", "fd7a:115c:a1e0::1", "0", "null",
    "127.0.0.1:22", "http://web/", "http://web:80/%00", "https://web", "file:///etc/passwd", "http://[", "//web", "GET",
    "~/x", "/etc/passwd", "../x", "a/b", "task-1", "task-999999999", "member-1", "list", "cursor", "\0", "\x1b[2J",
    "\r\nX: y", "\ud800", "\u202e", "é" * 70, "x" * 70_000, "{}", '{"a":', "<system>", "'; --", "%s%n", "${TS_AUTHKEY}",
]  # fmt: skip
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(TEXTS),
    st.text(max_size=20),
)
ANYTHING = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def fitting(schema: Json, root: Json | None = None) -> st.SearchStrategy[Any]:
    """Values that the schema takes, as far as pydantic writes schemas: enough that most calls get past it."""
    root = root or schema
    if "$ref" in schema:
        return fitting(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return st.one_of(*(fitting(one, root) for one in schema[key]))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    made = {
        "null": st.none,
        "boolean": st.booleans,
        "integer": lambda: st.integers(schema.get("minimum"), schema.get("maximum")),
        "number": lambda: st.floats(
            schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False
        ),
        "string": lambda: _text(schema),
        "array": lambda: _array(schema, root),
        "object": lambda: _object(schema, root),
    }
    return made[schema["type"]]() if "type" in schema else ANYTHING


def calls(schema: Json, small: Json, count: int) -> list[Json]:
    """Arguments for so many calls of a tool: all of them fit, or one is anything. `small`: what takes long otherwise.

    They are drawn before the first call: what hypothesis raises to end a test case would end an event loop as well.
    """
    names = [*schema["properties"], "unknown"]
    fit = _object(schema, schema)
    strange = st.builds(lambda call, name, value: {**call, name: value}, fit, st.sampled_from(names), ANYTHING)
    drawn: list[Json] = []

    @settings(max_examples=count, phases=[Phase.generate], database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(fit, fit, strange))
    def draw(call: Json) -> None:
        drawn.append(call | {name: value for name, value in small.items() if name in call})

    draw()
    return drawn


def _text(schema: Json) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 100_000)
    texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=min(most, 40)))
    if "pattern" in schema:
        texts = st.one_of(st.from_regex(re.compile(schema["pattern"], re.ASCII)), texts)
    return texts.filter(lambda text: least <= len(text) <= most)


def _array(schema: Json, root: Json) -> st.SearchStrategy[list[Any]]:
    items = fitting(schema["items"], root) if "items" in schema else ANYTHING
    return st.lists(items, min_size=schema.get("minItems", 0), max_size=max(3, schema.get("minItems", 0)))


def _object(schema: Json, root: Json) -> st.SearchStrategy[Json]:
    if "properties" not in schema:
        more = schema.get("additionalProperties", True)
        values = fitting(more, root) if isinstance(more, dict) else ANYTHING
        return st.dictionaries(st.one_of(st.sampled_from(TEXTS), st.text(max_size=10)), values, max_size=3)
    parts = {name: fitting(one, root) for name, one in schema["properties"].items()}
    needed = {name: part for name, part in parts.items() if name in schema.get("required", ())}
    return st.fixed_dictionaries(needed, optional={name: parts[name] for name in parts if name not in needed})
