"""Marks around what somebody else wrote, so that it cannot pass for anything else."""

import re
import secrets
from typing import Any

from cctailscale.errors.text import MAX_REASON_CHARS, UNSEEN, plain

# 64 random bits: what stands between the marks cannot close them.
_MARK_BYTES = 8
# What a client or a model takes for the session's own markup, in any case and spacing. The marks make it harmless; a
# reader who only skims should not see it as such either. Possessive: a body of blanks must not take minutes.
_MARKUP = re.compile(
    r"<(?=\s*+/?+\s*+(?:channel|system|user|assistant|human|antml|function|invoke|parameter|thinking|tool|command|bash"
    r"|local-command|task|teammate|cross-session|data|message)(?![a-z0-9]))",
    re.IGNORECASE,
)
_TURN = re.compile(r"^([ \t]*+)(human|assistant|system|user)(?=:)", re.IGNORECASE | re.MULTILINE)


def fenced(kind: str, text: str) -> str:
    """`text` between two marks of this call's own: `<kind 0123456789abcdef>`."""
    mark = secrets.token_hex(_MARK_BYTES)
    return f"<{kind} {mark}>\n{text}\n</{kind} {mark}>"


def neutral(text: str) -> str:
    """`text` without what nobody sees but line breaks and tabs, and with imitated markup made visible as text."""
    text = UNSEEN.sub("", text.replace("\r\n", "\n"))
    printable = "".join(c if c in "\n\t" or c.isprintable() else " " if c.isspace() else "" for c in text)
    return _TURN.sub(r"\1\2 ", _MARKUP.sub("&lt;", printable))


def line(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """One line of at most `limit` characters of somebody's own words, as `neutral` has them."""
    return neutral(plain(text, limit))


def harmless(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A JSON value with all its texts, the names of members too, as `neutral` has them."""
    match value:
        case str():
            return neutral(value)
        case list():
            return [harmless(one) for one in value]
        case dict():
            return {neutral(name): harmless(one) for name, one in value.items()}
        case _:
            return value
